"""samples/cpp/run_onnx, compiled and run: with the genuine ONNX Runtime, and its header where there is one."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import deploydcn
from deploydcn.libraries import ort_library_path
from deploydcn.nn import DeformConv2d
from tests.ort.runtimes import OLDEST, runtime_environment
from tests.samples.building import STANDINS, build, release, run

HEADERS = os.environ.get("DEPLOYDCN_ORT_HEADERS", "")

pytestmark = [pytest.mark.slow, pytest.mark.backend("ort")]


def runtime_library(python_path: str = "") -> Path:
    """The library inside an installed onnxruntime."""
    code = "import onnxruntime, pathlib; print(*pathlib.Path(onnxruntime.__file__).parent.glob('capi/libonnxruntime.so.*'))"
    environment = {**os.environ, "PYTHONPATH": python_path or os.environ.get("PYTHONPATH", "")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return Path(done.stdout.strip())


@pytest.fixture(scope="module", params=["plain", "sanitized", *(["official-header"] if HEADERS else [])])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PyPI's onnxruntime has no header: ours stands in for it, unless the official one is at hand."""
    folder = tmp_path_factory.mktemp(request.param)
    header = Path(HEADERS) if request.param == "official-header" else STANDINS / "onnxruntime"
    root = release(folder / "onnxruntime", header, runtime_library(), "libonnxruntime.so", "libonnxruntime.so.1")
    return build(folder, f"ONNXRUNTIME_ROOT={root}", sanitize=request.param == "sanitized") / "run_onnx"


class TwoLayers(torch.nn.Module):
    """Two deformable layers, two inputs, outputs of different types."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = DeformConv2d(3, 16, 3, padding=1), DeformConv2d(16, 8, 3, padding=1, groups=2)

    def forward(self, images: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.second(torch.relu(self.first(images))) + bias
        return features, features.mean((2, 3)).argmax(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "two_layers.onnx"
    examples = (torch.rand(1, 3, 32, 32), torch.rand(1, 8, 1, 1))
    deploydcn.export_onnx(TwoLayers().eval(), examples, path, dynamic_shapes=({0: "n", 2: "h", 3: "w"}, {0: "n"}))
    return path


def inputs(rows: int = 2) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    shapes = {"images": (rows, 3, 40, 50), "bias": (rows, 8, 1, 1)}
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def saved(folder: Path, arrays: dict[str, np.ndarray]) -> dict[str, Path]:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return {name: folder / f"{name}.npy" for name in arrays}


def loaded(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.load(path) for path in folder.iterdir()}


# ---------------------------------------------------------------------------------------------------------- what works
@pytest.mark.parametrize("threads", [1, 2])
def test_outputs_are_those_of_python_bit_for_bit(program: Path, model: Path, tmp_path: Path, threads: int) -> None:
    arrays = inputs()
    paths = saved(tmp_path, arrays)
    options = ["-o", tmp_path / "out", "--threads", threads, "--repeat", 3]
    done = run(program, model, ort_library_path(), f"bias={paths['bias']}", paths["images"], *options)
    assert done.returncode == 0, done.stderr
    expected = deploydcn.load(model, threads=threads).run(arrays)
    got = loaded(tmp_path / "out")
    assert {name: (array.dtype, array.tobytes()) for name, array in got.items()} == {
        name: (array.dtype, array.tobytes()) for name, array in expected.items()
    }
    assert "input images: float32[2, 3, 40, 50]\ninput bias: float32[2, 8, 1, 1]\nmedian of 3 runs: " in done.stdout
    assert "output output_1: int64[2] in " in done.stdout


def test_the_oldest_runtime(model: Path, tmp_path: Path) -> None:
    library = runtime_library(runtime_environment(OLDEST)["PYTHONPATH"])
    root = release(tmp_path / "onnxruntime", STANDINS / "onnxruntime", library, "libonnxruntime.so", "libonnxruntime.so.1")
    program = build(tmp_path, f"ONNXRUNTIME_ROOT={root}") / "run_onnx"
    arrays = inputs()
    done = run(program, model, ort_library_path(), *saved(tmp_path, arrays).values(), "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"onnxruntime {OLDEST}\n")
    # Our layers compute the same in every runtime; what lies between them may be rounded another way.
    np.testing.assert_allclose(np.load(tmp_path / "out" / "output_0.npy"), deploydcn.load(model).run(arrays)["output_0"], atol=1e-5)


DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"]


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3, 4)], ids=str)
def test_types_shapes_and_names_pass_through(program: Path, tmp_path: Path, shape: tuple[int, ...]) -> None:
    """One tensor of every type, with names that are no file names."""
    infos = [onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(name)), shape) for name in DTYPES]
    outputs = [onnx.helper.make_tensor_value_info(f"/to {info.name}", info.type.tensor_type.elem_type, shape) for info in infos]
    nodes = [onnx.helper.make_node("Identity", [info.name], [f"/to {info.name}"]) for info in infos]
    graph = onnx.helper.make_graph(nodes, "identities", infos, outputs)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=9), tmp_path / "m.onnx")
    numbers = np.random.default_rng(0)
    arrays = {name: (numbers.random(shape) * 100 % (2 if name == "bool" else 100)).astype(name) for name in DTYPES}
    paths = saved(tmp_path, arrays)
    done = run(program, tmp_path / "m.onnx", ort_library_path(), *paths.values(), "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    got = loaded(tmp_path / "out")
    assert got.keys() == {f"%2Fto%20{name}" for name in DTYPES}
    for name, array in arrays.items():
        assert got[f"%2Fto%20{name}"].dtype == name
        np.testing.assert_array_equal(got[f"%2Fto%20{name}"], array)


# ---------------------------------------------------------------------------------------------------------- bad inputs
def npy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def with_header(text: str, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A file of version 1 with any header."""
    header = text.encode()
    return b"\x93NUMPY\x01\x00" + (len(header) if length is None else length).to_bytes(2, "little") + header + data


GOOD = np.zeros((1, 3, 8, 8), np.float32)
BAD_FILES = {
    "wrong-type": (npy_bytes(GOOD.astype(np.float64)), "is float64; wanted float32; save array.astype('float32')"),
    "wrong-size": (npy_bytes(GOOD[:, :2]), "has shape [1, 2, 8, 8]; wanted images: float32[nx3xhxw]"),
    "wrong-rank": (npy_bytes(GOOD[0]), "has shape [3, 8, 8]; wanted images: float32[nx3xhxw]"),
    "truncated": (npy_bytes(GOOD)[:-1], "it has 767 bytes of data; float32 of shape [1, 3, 8, 8] needs 768: it is truncated"),
    "truncated-header": (npy_bytes(GOOD)[:100], "it is truncated: it ends within its header"),
    "truncated-length": (npy_bytes(GOOD)[:9], "it is no .npy file"),
    "empty": (b"", "it is no .npy file; np.save writes one"),
    "something-else": (b"PK\x03\x04" + bytes(100), "it is no .npy file; np.save writes one"),
    "two-arrays": (npy_bytes(GOOD) * 2, "save one array per file"),
    "unknown-version": (b"\x93NUMPY\x09\x00" + npy_bytes(GOOD)[8:], "of an unknown version"),
    "fortran-order": (npy_bytes(np.asfortranarray(GOOD)), "it is in Fortran order; save np.ascontiguousarray(array)"),
    "big-endian": (npy_bytes(GOOD.astype(">f4")), "it is big-endian; save array.astype(array.dtype.newbyteorder('<'))"),
    "objects": (npy_bytes(np.array([None])), "it holds Python objects; wanted numbers"),
    "records": (npy_bytes(np.zeros(2, [("a", "f4")])), "it holds records; wanted one number per element"),
    "text": (npy_bytes(np.array(["a"])), "its type is '<U1'; wanted bool, an integer type, or float16, 32 or 64"),
    "complex": (npy_bytes(GOOD.astype(np.complex64)), "its type is '<c8'; wanted bool"),
    "overflowing-size": (
        with_header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**64},), }}"),
        "its shape has a size beyond 64 bits",
    ),
    "overflowing-shape": (
        with_header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**40}, {2**40}, 0), }}"),
        "is larger than any memory",
    ),
    "larger-than-memory": (with_header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**60},), }}"), "it is truncated"),
    "negative-size": (with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"), "its header is damaged"),
    "no-shape": (with_header("{'descr': '<f4', 'fortran_order': False, }"), "its header is damaged"),
    "open-header": (with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1"), "its header is damaged"),
}


def refused(program: Path, *arguments: object, output: Path, code: int = 1) -> str:
    """The message of a run that must fail, and leave nothing behind."""
    done = run(program, *arguments, "-o", output)
    assert done.returncode == code, done.stdout + done.stderr
    assert not output.exists()
    return done.stderr


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused(program: Path, model: Path, tmp_path: Path, case: str) -> None:
    content, message = BAD_FILES[case]
    bias = saved(tmp_path, inputs())["bias"]
    (tmp_path / "bad.npy").write_bytes(content)
    text = refused(program, model, ort_library_path(), tmp_path / "bad.npy", bias, output=tmp_path / "out")
    assert str(tmp_path / "bad.npy") in text
    assert message in text


def test_damaged_files_never_crash(program: Path, model: Path, tmp_path: Path) -> None:
    """Bytes of the header changed at random: refused, or read as the other array that they now describe."""
    good, numbers = npy_bytes(GOOD), random.Random(7)
    bias = saved(tmp_path, inputs(1))["bias"]
    refusals = 0
    for _ in range(40):
        damaged = bytearray(good)
        for _ in range(numbers.randint(1, 3)):
            damaged[numbers.randrange(90)] = numbers.choice([0, 0xFF, *b"0123456789(){}[],:'\" <>|fFT", numbers.randrange(256)])
        (tmp_path / "bad.npy").write_bytes(damaged)
        refusals += run(program, model, ort_library_path(), tmp_path / "bad.npy", bias, "-o", tmp_path / "out").returncode
    assert refusals > 20


def both(paths: dict[str, Path]) -> tuple[Path, Path]:
    return paths["images"], paths["bias"]


Make = Callable[[Path, dict[str, Path]], list[object]]
BAD_ARGUMENTS: dict[str, tuple[Make, str]] = {
    "missing-input": (
        lambda m, p: [m, ort_library_path(), p["images"]],
        "input 'bias' is missing; the model takes images: float32[nx",
    ),
    "unknown-input": (lambda m, p: [m, ort_library_path(), f"image={p['images']}"], "no input named 'image'; the model takes images"),
    "extra-input": (lambda m, p: [m, ort_library_path(), *both(p), p["bias"]], "is one input too many; the model takes images"),
    "input-twice": (lambda m, p: [m, ort_library_path(), *[f"bias={p['bias']}"] * 2], "input 'bias' is given twice"),
    "missing-file": (lambda m, p: [m, ort_library_path(), "none.npy", p["bias"]], "none.npy: it does not exist; wanted a .npy file"),
    "folder-for-file": (lambda m, p: [m, ort_library_path(), m.parent, p["bias"]], "it is no file; wanted a .npy file"),
    "missing-library": (
        lambda m, p: [m, "libnone.so", *both(p)],
        "libnone.so does not exist; wanted the library that deploydcn.ort_library_path() names",
    ),
    "another-file-as-library": (lambda m, p: [m, p["bias"], *both(p)], "invalid ELF header"),
    "another-library": (lambda m, p: [m, runtime_library(), *both(p)], "RegisterCustomOps"),
    "missing-model": (lambda m, p: ["none.onnx", ort_library_path(), *both(p)], "none.onnx does not exist; wanted an ONNX model"),
    "another-file-as-model": (lambda m, p: [p["bias"], ort_library_path(), *both(p)], "rotobuf parsing failed"),
    "rows-differ": (lambda m, p: [m, ort_library_path(), p["images"], p["bias_of_3"]], "the run: "),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments_are_refused(program: Path, model: Path, tmp_path: Path, case: str) -> None:
    arguments, message = BAD_ARGUMENTS[case]
    paths = saved(tmp_path, {**inputs(), "bias_of_3": inputs(3)["bias"]})
    text = refused(program, *arguments(model, paths), output=tmp_path / "out")
    assert text.startswith("run_onnx: ")
    assert message in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["m.onnx"], "a model, a library and -o are needed"),
        (["m.onnx", "l.so", "--repeat", "0"], "--repeat is '0'; wanted a whole number, 1 or more"),
        (["m.onnx", "l.so", "--threads", "2x"], "--threads is '2x'; wanted a whole number"),
        (["m.onnx", "l.so", "--threads", "99999999999"], "--threads is '99999999999'; wanted a whole number"),
        (["m.onnx", "l.so", "--verbose"], "unknown option --verbose"),
    ],
    ids=["too-few", "zero", "no-number", "too-large", "unknown"],
)
def test_a_wrong_command_line_shows_the_right_one(program: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    text = refused(program, *arguments, output=tmp_path / "out", code=2)
    assert message in text
    assert "usage: run_onnx model.onnx libdeploydcn_ort.so [name=]input.npy... -o folder" in text


def test_outputs_appear_together_or_not_at_all(program: Path, model: Path, tmp_path: Path) -> None:
    """The disk is full when the second output is written."""
    paths = saved(tmp_path, inputs())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "output_1.npy.part").symlink_to("/dev/full")
    done = run(program, model, ort_library_path(), *paths.values(), "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "output_1.npy.part cannot be written: No space left on device" in done.stderr
    assert not list((tmp_path / "out").iterdir())


def test_an_output_folder_that_is_a_file(program: Path, model: Path, tmp_path: Path) -> None:
    paths = saved(tmp_path, inputs())
    done = run(program, model, ort_library_path(), *paths.values(), "-o", paths["bias"])
    assert done.returncode == 1
    assert str(paths["bias"]) in done.stderr
