"""samples/cpp/run_engine: compiled against TensorRT's headers, started with a genuine runtime, and run on a stand-in.

No test has a GPU: the genuine runtime shows that the program links, starts and loads the plugins. What it does with an engine is shown
on standins/tensorrt, a TensorRT of a few classes on the emulator's CUDA.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from deploydcn.libraries import ort_library_path, plugin_library_path
from deploydcn.testing.native import build_target
from tests.samples.building import ROOT, STANDINS, build, release, run
from tests.tensorrt.runtimes import runtime_environment

pytestmark = [pytest.mark.slow, pytest.mark.backend("emulation")]


@pytest.fixture(scope="module")
def emulation() -> dict[str, Path]:
    """The emulator's library, and the folders of the CUDA and TensorRT headers that it was built with."""
    folder = build_target("deploydcn_emulation", "emulation", "DEPLOYDCN_EMULATION=ON", "DEPLOYDCN_CUDA=ON")
    cache = (folder / "CMakeCache.txt").read_text()
    found = re.findall(r"^DEPLOYDCN_(CUDA_INCLUDE|TENSORRT_INCLUDE|CUDART):\w+=(.+)$", cache, re.MULTILINE)
    return {"library": folder / "plugins" / "emulation" / "libdeploydcn_emulation.a", **{name: Path(path) for name, path in found}}


def built_for(emulation: dict[str, Path], folder: Path, runtime: str, library: str) -> Path:
    """With TensorRT 10's headers and a lean runtime, which installs without a GPU."""
    packages = Path(runtime_environment(runtime)["PYTHONPATH"].split(":")[0])
    path = packages / "tensorrt_lean_libs" / library
    root = release(folder / "tensorrt", emulation["TENSORRT_INCLUDE"], path, "libnvinfer.so", library)
    cuda = [f"CUDA_INCLUDE={emulation['CUDA_INCLUDE']}", f"CUDA_RUNTIME={emulation['CUDART']}"]
    return build(folder, f"TENSORRT_ROOT={root}", *cuda) / "run_engine"


@pytest.fixture(scope="module")
def genuine(emulation: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_for(emulation, tmp_path_factory.mktemp("genuine"), "tensorrt-10.16", "libnvinfer_lean.so.10")


@pytest.fixture(scope="module")
def emulated(emulation: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("emulated") / "run_engine"
    flags = ["-std=c++17", "-g", "-Wall", "-Wextra", "-Werror", "-fsanitize=undefined", "-fno-sanitize-recover=all"]
    includes = ["-I", str(STANDINS / "tensorrt"), "-I", str(ROOT / "plugins"), "-isystem", str(emulation["CUDA_INCLUDE"])]
    source, libraries = ROOT / "samples" / "cpp" / "run_engine.cc", [str(emulation["library"]), "-lpthread", "-ldl"]
    done = subprocess.run(["g++", *flags, *includes, str(source), "-o", str(program), *libraries], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """Begins as an engine does; the stand-in looks no further."""
    (tmp_path / "m.engine").write_bytes(b"ftrt" + bytes(60))
    return tmp_path / "m.engine"


def saved(folder: Path, rows: int, dtype: str = "float32") -> tuple[np.ndarray, list[object]]:
    """The stand-in's sum of two inputs, and the files of these."""
    numbers = np.random.default_rng(5)
    x, bias = numbers.standard_normal((rows, 3)).astype(dtype), np.float32([1, 0, -1])
    np.save(folder / "x.npy", x)
    np.save(folder / "bias.npy", bias)
    return x + bias, [f"bias={folder / 'bias.npy'}", folder / "x.npy"]


# ------------------------------------------------------------------------------------------------------ the genuine runtime
def test_without_a_gpu_it_loads_the_plugins_and_says_what_is_missing(
    genuine: Path, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = run(genuine, engine, plugin_library_path(), "-o", tmp_path / "out")
    assert done.returncode == 1
    assert done.stdout == f"plugins: {plugin_library_path()}\n"
    assert done.stderr.startswith("run_engine: no usable GPU; wanted one with its driver, which nvidia-smi would show: ")
    assert not (tmp_path / "out").exists()


def test_a_library_without_plugins_is_refused(genuine: Path, engine: Path, tmp_path: Path) -> None:
    done = run(genuine, engine, ort_library_path(), "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "has no TensorRT plugins; wanted the library that deploydcn.plugin_library_path() names" in done.stderr


def test_headers_of_another_version_are_noticed(emulation: dict[str, Path], engine: Path, tmp_path: Path) -> None:
    program = built_for(emulation, tmp_path, "tensorrt-11.4", "libnvinfer_lean.so.11")
    done = run(program, engine, plugin_library_path(), "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "compiled for TensorRT 10, and the library found is 11; compile this with the headers of that one" in done.stderr


# ------------------------------------------------------------------------------------------------------------ the stand-in
@pytest.mark.parametrize("rows", [1, 4, 8, 16])
def test_outputs_of_known_and_of_unknown_shape(emulated: Path, engine: Path, tmp_path: Path, rows: int) -> None:
    expected, files = saved(tmp_path, rows)
    done = run(emulated, engine, plugin_library_path(), *files, "-o", tmp_path / "out", "--repeat", 3)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "sum.npy"), expected)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "positive.npy"), expected[expected > 0])
    assert "median of 3 runs: " in done.stdout


def test_an_output_without_elements(emulated: Path, engine: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 3), np.float32))
    np.save(tmp_path / "bias.npy", np.zeros(3, np.float32))
    done = run(emulated, engine, plugin_library_path(), tmp_path / "x.npy", tmp_path / "bias.npy", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "out" / "positive.npy").shape == (0,)


def test_shapes_outside_every_profile_are_refused(emulated: Path, engine: Path, tmp_path: Path) -> None:
    _, files = saved(tmp_path, 6)
    done = run(emulated, engine, plugin_library_path(), *files, "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "the inputs have other shapes than this engine was built for: x [1, 3] to [4, 3] or x [8, 3] to [16, 3]; feed" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_wrong_type_is_refused(emulated: Path, engine: Path, tmp_path: Path) -> None:
    _, files = saved(tmp_path, 2, "float64")
    done = run(emulated, engine, plugin_library_path(), *files, "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "is float64; wanted float32; save array.astype('float32')" in done.stderr


def test_what_tensorrt_logs_is_the_reason(emulated: Path, tmp_path: Path) -> None:
    (tmp_path / "old.engine").write_bytes(b"ftrt, of an old version" + bytes(60))
    done = run(emulated, tmp_path / "old.engine", plugin_library_path(), "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "old.engine is refused; build it with this version, on this kind of GPU: The engine plan file is not compatible" in done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "m.engine does not exist; wanted an engine"),
        (b"ftrt", "m.engine is no engine, or is truncated; `deploydcn build` makes one of an ONNX file"),
        (b"\x08\x07\x12\x00" * 20, "m.engine is no engine"),
    ],
    ids=["missing", "truncated", "onnx"],
)
def test_files_that_are_no_engine_are_refused(emulated: Path, tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "m.engine").write_bytes(content)
    done = run(emulated, tmp_path / "m.engine", plugin_library_path(), "-o", tmp_path / "out")
    assert done.returncode == 1
    assert message in done.stderr
