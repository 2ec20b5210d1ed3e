"""What is written, and what is refused. Everything written passes the check."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import deploydcn
from deploydcn.errors import InvalidArgument, InvalidModel
from tests.triton.models import deformable, save, squares

pytestmark = [pytest.mark.backend("ort"), pytest.mark.backend("tritonclient")]

F32 = TensorProto.FLOAT


def write(folder: Path, *models: Path, **options: object) -> deploydcn.TritonRepository:
    """Write, and see that the check has nothing against it."""
    written = deploydcn.write_triton_repository(list(models), folder / "repository", **options)  # type: ignore[arg-type]
    check = deploydcn.check_triton_repository(written.path)
    assert [str(problem) for problem in check.problems] == []
    return written


def config(folder: Path, name: str = "model") -> str:
    return (folder / "repository" / name / "config.pbtxt").read_text()


def files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


@pytest.mark.slow
def test_a_deformable_model(tmp_path: Path) -> None:
    written = write(tmp_path, deformable(tmp_path / "model.onnx"), batch=8, instances=2)
    assert files(written.path) == ["README.md", "model/1/model.onnx", "model/config.pbtxt"]
    assert (
        config(tmp_path).split()
        == f"""
        name: "model" backend: "onnxruntime" max_batch_size: 8
        input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 2, -1, -1 ] }}, {{ name: "offset" data_type: TYPE_FP32 dims: [ 18, -1, -1 ] }} ]
        output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 4, -1, -1 ] }} ]
        instance_group [ {{ count: 2 kind: KIND_CPU }} ]
        dynamic_batching {{ }}
        model_operations {{ op_library_filename: "{deploydcn.ort_library_path().resolve()}" }}
    """.split()
    )
    assert written.command == f"tritonserver --model-repository={written.path}"
    lines = (written.path / "README.md").read_text().split("\n\n")
    assert len(lines) == 3
    assert written.command in lines[1]
    assert written.container in lines[2]


def cast(path: Path, kind: int) -> Path:
    node = helper.make_node("Identity", ["x"], ["y"])
    return save(path, [node], {"x": (kind, ["n", 3])}, {"y": (kind, ["n", 3])})


def scalars(path: Path) -> Path:
    nodes = [helper.make_node("Add", ["x", "s"], ["y"]), helper.make_node("ReduceSum", ["y"], ["total"], keepdims=0)]
    return save(path, nodes, {"x": (F32, ["n", 3]), "s": (F32, [])}, {"y": (F32, ["n", 3]), "total": (F32, [])})


def several(path: Path) -> Path:
    nodes = [helper.make_node("Add", ["a", "b"], ["y"]), helper.make_node("Shape", ["a"], ["z"])]
    kind = TensorProto.DOUBLE
    return save(path, nodes, {"a": (kind, ["n", "m"]), "b": (kind, ["n", "m"])}, {"y": (kind, ["n", "m"]), "z": (TensorProto.INT64, [2])})


def default(path: Path) -> Path:
    """An input that a caller may leave out, for which there is a constant."""
    node = helper.make_node("Mul", ["x", "w"], ["y"])
    weights = {"w": np.ones(3, "float32")}
    return save(path, [node], {"x": (F32, ["n", 3]), "w": (F32, [3])}, {"y": (F32, ["n", 3])}, weights)


KINDS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "float16": (lambda path: cast(path, TensorProto.FLOAT16), "TYPE_FP16 dims: [ -1, 3 ]"),
    "bfloat16": (lambda path: cast(path, TensorProto.BFLOAT16), "TYPE_BF16 dims: [ -1, 3 ]"),
    "int64": (lambda path: cast(path, TensorProto.INT64), "TYPE_INT64 dims: [ -1, 3 ]"),
    "uint8": (lambda path: cast(path, TensorProto.UINT8), "TYPE_UINT8 dims: [ -1, 3 ]"),
    "bool": (lambda path: cast(path, TensorProto.BOOL), "TYPE_BOOL dims: [ -1, 3 ]"),
    "text": (lambda path: cast(path, TensorProto.STRING), "TYPE_STRING dims: [ -1, 3 ]"),
    "scalars": (scalars, 'name: "total" data_type: TYPE_FP32 dims: [ 1 ]'),
    "several": (several, 'name: "z" data_type: TYPE_INT64 dims: [ 2 ]'),
    "fixed": (lambda path: squares(path, 2), "TYPE_FP32 dims: [ 2, 3 ]"),
    "optional": (default, 'input [ { name: "x" data_type: TYPE_FP32 dims: [ -1, 3 ] } ]'),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_any_model(tmp_path: Path, kind: str) -> None:
    make, expected = KINDS[kind]
    write(tmp_path, make(tmp_path / "model.onnx"))
    text = " ".join(config(tmp_path).split())
    assert expected in text
    assert "max_batch_size: 0" in text
    assert "dynamic_batching" not in text
    assert "op_library" not in text, "no library for a model that needs none"


@pytest.mark.slow
def test_one_value_per_item(tmp_path: Path) -> None:
    """Triton has no tensors without sizes: requests have (batch, 1), the model gets (batch,)."""
    node = helper.make_node("Mul", ["x", "x"], ["y"])
    write(tmp_path, save(tmp_path / "model.onnx", [node], {"x": (F32, ["n"])}, {"y": (F32, ["n"])}), batch=4)
    assert " ".join(config(tmp_path).split()).count("dims: [ 1 ] reshape { shape: [ ] }") == 2


FIRST = [
    helper.make_node("Mul", ["x", "zero"], ["zeros"]),
    helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
    helper.make_node("Cast", ["sum"], ["number"], to=TensorProto.INT64),
    helper.make_node("Reshape", ["number", "one"], ["axis"]),
]
"""axis: 0, computed from values, so that no shape inference knows it."""
ZERO_AND_ONE = {"zero": np.zeros(1, "float32"), "one": np.array([1])}


def pretender(path: Path) -> Path:
    """Says that its batch is dynamic, and computes one row."""
    nodes = [*FIRST, helper.make_node("ReduceSum", ["x", "axis"], ["y"])]
    return save(path, nodes, {"x": (F32, ["n", 3])}, {"y": (F32, ["n", 3])}, ZERO_AND_ONE)


def half_pretender(path: Path) -> Path:
    """Fails at any batch but one."""
    nodes = [*FIRST, helper.make_node("Squeeze", ["x", "axis"], ["row"]), helper.make_node("Unsqueeze", ["row", "axis"], ["y"])]
    return save(path, nodes, {"x": (F32, ["n", 3])}, {"y": (F32, ["n", 3])}, ZERO_AND_ONE)


def chooser(path: Path) -> Path:
    """As many rows as there are values above 0."""
    nodes = [helper.make_node("NonZero", ["x"], ["t"]), helper.make_node("Transpose", ["t"], ["y"])]
    return save(path, nodes, {"x": (F32, ["n", 3])}, {"y": (TensorProto.INT64, ["found", 2])})


def total(path: Path) -> Path:
    node = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)
    return save(path, [node], {"x": (F32, ["n", 3])}, {"y": (F32, [])})


NO_BATCH: dict[str, tuple[Callable[[Path], Path], str]] = {
    "fixed": (lambda path: squares(path, 1), "x: float32.1x3. has a fixed first axis; --batch 8 needs a dynamic one .*--dynamic x:0=n"),
    "scalar": (total, "y: float32.* has a fixed first axis"),
    "choice": (chooser, "output 'y' is 3x2 for a batch of 1"),
    "pretended": (pretender, "output 'y' is 1x3 for a batch of 8"),
    "fails": (half_pretender, "runs at a batch of 1 and fails at 8: .*Squeeze"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", NO_BATCH)
def test_batches_must_be_possible(tmp_path: Path, kind: str) -> None:
    make, message = NO_BATCH[kind]
    with pytest.raises(InvalidArgument, match=message):
        write(tmp_path, make(tmp_path / "model.onnx"), batch=8)
    assert files(tmp_path) == ["model.onnx"]


@pytest.mark.slow
def test_names_of_the_batch_may_differ_if_runs_show_that_it_is_one(tmp_path: Path) -> None:
    written = write(tmp_path, squares(tmp_path / "model.onnx", "unk__1", "unk__2"), batch=4)
    assert written.models[0].notes == ()


@pytest.mark.slow
def test_outputs_that_triton_cannot_carry_are_left_out_and_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["x", "x"], ["y"]), helper.make_node("SplitToSequence", ["x"], ["rows"], axis=0)]
    path = save(tmp_path / "model.onnx", nodes, {"x": (F32, [2, 3])}, {"y": (F32, [2, 3])})
    model = onnx.load(path)
    model.graph.output.append(helper.make_tensor_sequence_value_info("rows", F32, None))
    onnx.save(model, path)
    written = write(tmp_path, path)
    assert "output 'rows' is seq(tensor(float)), a type that Triton does not have" in written.models[0].notes[0]


@pytest.mark.slow
def test_inputs_that_triton_cannot_carry_are_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("SequenceAt", ["rows", "i"], ["y"])]
    path = save(tmp_path / "model.onnx", nodes, {"i": (TensorProto.INT64, [])}, {"y": (F32, [2, 3])})
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_sequence_value_info("rows", F32, [2, 3]))
    onnx.save(model, path)
    with pytest.raises(InvalidModel, match=r"input 'rows' is seq\(tensor\(float\)\)"):
        write(tmp_path, path)


@pytest.mark.slow
def test_unknown_ranks_are_refused(tmp_path: Path) -> None:
    path = squares(tmp_path / "model.onnx")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    with pytest.raises(InvalidModel, match="input 'x' has an unknown rank"):
        write(tmp_path, path)


@pytest.mark.slow
def test_weights_in_other_files_come_along(tmp_path: Path) -> None:
    model = onnx.load(deformable(tmp_path / "model.onnx"))
    (tmp_path / "model.onnx").unlink()
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.weights", size_threshold=0)
    write(tmp_path, tmp_path / "m.onnx", batch=2)
    assert files(tmp_path / "repository" / "m" / "1") == ["m.weights", "model.onnx"]
    (tmp_path / "m.weights").unlink()
    with pytest.raises(InvalidModel, match=r"m\.weights"):
        write(tmp_path, tmp_path / "m.onnx")


@pytest.mark.slow
def test_other_models_and_versions_stay(tmp_path: Path) -> None:
    model = squares(tmp_path / "model.onnx")
    write(tmp_path, model, deformable(tmp_path / "other.onnx"), batch=2)
    (tmp_path / "repository" / "README.md").write_text("mine")
    write(tmp_path, model, version=3, batch=4)
    kept = ["README.md", "model/1/model.onnx", "model/3/model.onnx", "model/config.pbtxt", "other/1/model.onnx", "other/config.pbtxt"]
    assert files(tmp_path / "repository") == kept
    assert (tmp_path / "repository" / "README.md").read_text() == "mine"
    write(tmp_path, squares(tmp_path / "model.onnx", 2), version=3)
    assert "max_batch_size: 0" in config(tmp_path)
    assert files(tmp_path / "repository") == kept


@pytest.mark.slow
def test_nothing_changes_when_one_of_the_models_is_refused(tmp_path: Path) -> None:
    good, bad = squares(tmp_path / "good.onnx"), tmp_path / "bad.onnx"
    bad.write_bytes(b"\0" * 100)
    with pytest.raises(InvalidModel, match=r"bad\.onnx"):
        write(tmp_path, good, bad)
    assert files(tmp_path) == ["bad.onnx", "good.onnx"]
    (tmp_path / "repository" / "good").mkdir(parents=True)
    (tmp_path / "repository" / "good" / "diary.txt").write_text("not a model")
    with pytest.raises(InvalidArgument, match=r"holds no config\.pbtxt"):
        write(tmp_path, squares(tmp_path / "better.onnx"), good)
    assert files(tmp_path / "repository") == ["good/diary.txt"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
def test_a_library_inside_the_repository(tmp_path: Path) -> None:
    """All that a container needs in one folder, which it sees as /models."""
    model = deformable(tmp_path / "model.onnx")
    written = deploydcn.write_triton_repository(model, tmp_path / "repository", batch=2, ops_dir="/models", copy_ops=True)
    assert files(written.path) == ["README.md", "libdeploydcn_ort.so", "model/1/model.onnx", "model/config.pbtxt"]
    assert 'op_library_filename: "/models/libdeploydcn_ort.so"' in config(tmp_path)
    assert written.command == "tritonserver --model-repository=/models"
    assert f"-v {written.path}:/models:ro " in written.container
    check = deploydcn.check_triton_repository(written.path)
    assert check.passed
    assert any("the server will look for it at /models/libdeploydcn_ort.so" in note for note in check.notes)


def test_a_library_elsewhere_on_the_serving_machine(tmp_path: Path) -> None:
    model = deformable(tmp_path / "model.onnx")
    written = deploydcn.write_triton_repository(model, tmp_path / "repository", ops_dir="/opt/deploydcn")
    here = deploydcn.ort_library_path().resolve().parent
    assert f"-v {here}:/opt/deploydcn:ro " in written.container
    with pytest.raises(InvalidArgument, match="wanted an absolute path"):
        deploydcn.write_triton_repository(model, tmp_path / "repository", ops_dir="lib")


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """A file that begins like an engine; nothing here can run it."""
    path = tmp_path / "model.engine"
    path.write_bytes(b"ftrt" + bytes(1000))
    return path


@pytest.mark.slow
def test_an_engine_with_the_file_it_was_built_from(tmp_path: Path, engine: Path) -> None:
    written = deploydcn.write_triton_repository(engine, tmp_path / "repository", batch=8, like=deformable(tmp_path / "model.onnx"))
    text = config(tmp_path)
    assert files(written.path / "model") == ["1/model.plan", "config.pbtxt"]
    assert 'backend: "tensorrt"' in text
    assert "kind: KIND_GPU" in text
    assert "op_library" not in text
    plugins = deploydcn.ort_library_path().resolve().parent / "libdeploydcn_trt.so"
    assert written.command.endswith(f"--backend-config=tensorrt,plugins={plugins}")
    assert "--gpus=all" in written.container
    assert written.models[0].notes == ("whether the engine was built for batches up to 8 is not known here",)


def build_report(path: Path, runtime: str = "tensorrt") -> Path:
    """What `deploydcn build --json` prints, as far as it matters."""
    span = [[1, 3, 64, 64], [4, 3, 64, 64], [8, 3, 64, 64]]
    report = {"runtime": runtime, "inputs": ["x: float32[nx3xhxmax_x]"], "outputs": ["y: float16[?x10]"], "profiles": [{"x": span}]}
    path.write_text(json.dumps(report))
    return path


def test_an_engine_with_the_report_of_its_build(tmp_path: Path, engine: Path) -> None:
    report = build_report(tmp_path / "report.json")
    written = deploydcn.write_triton_repository(engine, tmp_path / "repository", batch=8, like=report)
    assert "dims: [ 3, 64, 64 ]" in config(tmp_path), "sizes that the profile fixes"
    assert "data_type: TYPE_FP16\n    dims: [ 10 ]" in config(tmp_path)
    assert written.models[0].notes == ()
    with pytest.raises(InvalidArgument, match="was built for batches up to 8; got --batch 9"):
        deploydcn.write_triton_repository(engine, tmp_path / "repository", batch=9, like=report)
    with pytest.raises(InvalidArgument, match="for tensorrt-rtx"):
        deploydcn.write_triton_repository(engine, tmp_path / "repository", like=build_report(report, "tensorrt-rtx"))
    report.write_text("{}")
    with pytest.raises(InvalidArgument, match="is not what deploydcn build --json prints"):
        deploydcn.write_triton_repository(engine, tmp_path / "repository", like=report)


def test_engines_that_cannot_be_served(tmp_path: Path, engine: Path) -> None:
    with pytest.raises(InvalidArgument, match="give --like"):
        deploydcn.write_triton_repository(engine, tmp_path / "repository")
    with pytest.raises(InvalidArgument, match="runs on GPUs only"):
        deploydcn.write_triton_repository(engine, tmp_path / "repository", gpu=False)
    engine.write_bytes(b"vtrt" + bytes(1000))
    with pytest.raises(InvalidModel, match="for which Triton has no backend"):
        deploydcn.write_triton_repository(engine, tmp_path / "repository")


@pytest.mark.slow
def test_names_of_classes_become_labels(tmp_path: Path) -> None:
    node = helper.make_node("Mul", ["x", "x"], ["y"])
    path = save(tmp_path / "model.onnx", [node], {"x": (F32, ["n", 2])}, {"y": (F32, ["n", 2])}, names="{0: 'cat', 1: 'hot\\ndog'}")
    write(tmp_path, path, batch=2)
    assert (tmp_path / "repository" / "model" / "labels.txt").read_text() == "cat\nhot dog\n"
    assert 'label_filename: "labels.txt"' in config(tmp_path)


@pytest.mark.slow
def test_names_beyond_ascii(tmp_path: Path) -> None:
    node = helper.make_node("Mul", ['größe "x"', 'größe "x"'], ["y"])
    write(tmp_path, save(tmp_path / "model.onnx", [node], {'größe "x"': (F32, ["n", 2])}, {"y": (F32, ["n", 2])}), batch=2)


@pytest.mark.slow
def test_warm_up(tmp_path: Path) -> None:
    write(tmp_path, squares(tmp_path / "model.onnx"), batch=2, warmup=True)
    assert 'inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 3 ] zero_data: true } }' in config(tmp_path)
    with pytest.raises(InvalidArgument, match="no fixed size"):
        write(tmp_path, squares(tmp_path / "model.onnx"), warmup=True)


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "version 0": ({"version": 0}, "version is 0; wanted a whole number, 1 or more"),
    "no instances": ({"instances": 0}, "instances is 0"),
    "negative batch": ({"batch": -1}, "batch is -1"),
    "batching without batches": ({"dynamic_batching": True}, "dynamic batching needs batches"),
    "delay without batching": ({"batch": 4, "dynamic_batching": False, "delay": 9}, "requests are not put together"),
    "name of a path": ({"name": "../x"}, "wanted letters, digits"),
    "like for an ONNX file": ({"like": "x.onnx"}, "no TensorRT engine"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_options(tmp_path: Path, what: str) -> None:
    options, message = REFUSED[what]
    with pytest.raises(InvalidArgument, match=message):
        write(tmp_path, squares(tmp_path / "model.onnx"), **options)
    assert files(tmp_path) == ["model.onnx"]


def test_places(tmp_path: Path) -> None:
    model = squares(tmp_path / "model.onnx")
    with pytest.raises(InvalidModel, match="does not exist"):
        deploydcn.write_triton_repository(tmp_path / "no.onnx", tmp_path / "repository")
    with pytest.raises(InvalidArgument, match="create it first"):
        deploydcn.write_triton_repository(model, tmp_path / "no" / "repository")
    with pytest.raises(InvalidArgument, match="is a file"):
        deploydcn.write_triton_repository(model, model)
    with pytest.raises(InvalidArgument, match="wanted each once"):
        deploydcn.write_triton_repository([model, model], tmp_path / "repository")
    with pytest.raises(InvalidArgument, match="write them one by one"):
        deploydcn.write_triton_repository([model, model], tmp_path / "repository", name="a")
