"""Runners: the same checks and names on every backend; bad files and factories end in a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import deploydcn
from deploydcn.errors import InvalidArgument, InvalidModel, RuntimeFailure
from deploydcn.ops import op_named
from deploydcn.runners.factory import build_model
from tests.conformance.single_node import single_node_model

pytestmark = pytest.mark.backend("ort")


@pytest.fixture
def onnx_model() -> onnx.ModelProto:
    shapes = {"X": ("n", 4, "h", "w"), "W": (6, 4, 3, 3), "offset": ("n", 18, "h", "w")}
    return single_node_model(op_named("DeformConv2d").spec, shapes, {"pads": (1, 1, 1, 1)}, {"T": "float32", "T1": "float32"})


def feed(height: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"X": (1, 4, height, 6), "W": (6, 4, 3, 3), "offset": (1, 18, height, 6)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_inputs_by_name_and_in_order_agree(onnx_model: onnx.ModelProto) -> None:
    runner = deploydcn.load(onnx_model)
    assert str(runner.inputs[0]) == "X: float32[nx4xhxw]"
    by_name, in_order = runner.run(feed()), runner.run(list(feed().values()))
    assert list(by_name) == ["Y"]
    assert np.array_equal(by_name["Y"], in_order["Y"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": None}, "input 'X' is missing; the model takes X: float32"),
        ({"Z": np.zeros(1)}, "no input named 'Z'"),
        ({"X": np.zeros((1, 4, 5, 6))}, "input 'X' is float64; wanted float32; convert it with .astype"),
        ({"X": np.zeros((1, 3, 5, 6), np.float32)}, "input 'X' has shape [1, 3, 5, 6]; wanted X: float32[nx4xhxw]"),
        ({"X": np.zeros((4, 5, 6), np.float32)}, "input 'X' has shape [4, 5, 6]"),
    ],
)
def test_wrong_inputs_are_named(onnx_model: onnx.ModelProto, change: dict[str, np.ndarray | None], message: str) -> None:
    arrays = {name: value for name, value in {**feed(), **change}.items() if value is not None}
    with pytest.raises(InvalidArgument) as raised:
        deploydcn.load(onnx_model).run(arrays)
    assert message in str(raised.value)


def test_one_array_is_not_a_list_of_inputs(onnx_model: onnx.ModelProto) -> None:
    with pytest.raises(InvalidArgument, match="put it in a list"):
        deploydcn.load(onnx_model).run(np.zeros((3, 4), np.float32))
    with pytest.raises(InvalidArgument, match="got 1 inputs; wanted 3"):
        deploydcn.load(onnx_model).run([np.zeros(1, np.float32)])


def test_kernel_errors_name_node_and_fix(onnx_model: onnx.ModelProto) -> None:
    arrays = feed()
    arrays["offset"] = arrays["offset"][:, :, :4]
    with pytest.raises(RuntimeFailure, match=r"DeformConv2d node 'node': .* dimension 2 is 4; wanted 5 = .*; check kernel_shape, strides"):
        deploydcn.load(onnx_model).run(arrays)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07\x12"])
def test_foreign_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(deploydcn.UserError, match=r"m\.onnx"):
        deploydcn.load(path)


def test_truncated_files_are_refused(tmp_path: Path, onnx_model: onnx.ModelProto) -> None:
    data = onnx_model.SerializeToString()
    path = tmp_path / "m.onnx"
    for length in (len(data) // 3, len(data) - 7):
        path.write_bytes(data[:length])
        with pytest.raises(InvalidModel, match="not an ONNX model, or is truncated"):
            deploydcn.load(path)
    with pytest.raises(InvalidModel, match="does not exist"):
        deploydcn.load(tmp_path / "none.onnx")


def test_unknown_backend_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="backend is 'tpu'; wanted one of torch, ort"):
        deploydcn.load("m.onnx", "tpu")


# ------------------------------------------------------------------------------------------------------------- torch
@dataclass
class Result:
    boxes: torch.Tensor
    scores: list[torch.Tensor]


torch.export.register_dataclass(Result)


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, image: torch.Tensor, extra: dict[str, torch.Tensor], *, scale: float = 1.0) -> Result:
        return Result(self.norm(image) * scale, [extra["a"], extra["b"] + 1])


def nested_example() -> dict[str, object]:
    return {"example_args": (torch.ones(1, 3, 4, 4), {"a": torch.zeros(2), "b": torch.ones(2)}), "example_kwargs": {"scale": 2.0}}


def test_nested_inputs_and_outputs_get_names() -> None:
    runner = deploydcn.load(Nested(), "torch", **nested_example())
    assert [info.name for info in runner.inputs] == ["image", "extra_a", "extra_b"]
    outputs = runner.run(
        {"image": np.ones((1, 3, 4, 4), np.float32), "extra_a": np.zeros(2, np.float32), "extra_b": np.ones(2, np.float32)}
    )
    assert list(outputs) == ["boxes", "scores_0", "scores_1"]
    assert outputs["scores_1"].tolist() == [2, 2]
    assert outputs["boxes"].max() == pytest.approx(2, rel=1e-4)  # scale 2.0 was kept


def test_the_model_is_left_as_it_was() -> None:
    model = Nested().train()
    model.norm.eval()
    runner = deploydcn.load(model, "torch", **nested_example())
    before = model.norm.running_mean.clone()
    runner.run([np.full((1, 3, 4, 4), 7, np.float32), np.zeros(2, np.float32), np.zeros(2, np.float32)])
    assert model.training
    assert not model.norm.training
    assert torch.equal(model.norm.running_mean, before)


def test_an_error_in_the_model_is_reported() -> None:
    runner = deploydcn.load(nn.Conv2d(3, 4, 3), "torch", example_args=(torch.zeros(1, 3, 8, 8),))
    with pytest.raises(RuntimeFailure, match=r"failed on input\[1, 3, 2, 2\]: RuntimeError"):
        runner.run([np.zeros((1, 3, 2, 2), np.float32)])


FACTORIES = """
import torch
def good(): return torch.nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8)
def keywords(): return torch.nn.Conv2d(3, 4, 3), {"input": torch.zeros(1, 3, 8, 8)}
def bare(): return torch.nn.Conv2d(3, 4, 3)
def broken(): raise ValueError("no weights here")
def wrong(): return 3
number = 7
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{file}", "names no factory"),
        ("{file}:missing", "has no function 'missing'; it has good, keywords, bare, broken, wrong"),
        ("{file}:number", "has no function 'number'"),
        ("{file}:broken", "raised ValueError: no weights here"),
        ("{file}:wrong", "returned int; wanted a torch.nn.Module"),
        ("none.py:good", "none.py does not exist"),
        ("no.such.module:good", "cannot import 'no.such.module'"),
    ],
)
def test_bad_factories_are_explained(tmp_path: Path, name: str, message: str) -> None:
    file = tmp_path / "factories.py"
    file.write_text(FACTORIES)
    with pytest.raises(InvalidModel) as raised:
        build_model(name.format(file=file))
    assert message in str(raised.value)


def test_factories_give_models_and_examples(tmp_path: Path) -> None:
    file = tmp_path / "factories.py"
    file.write_text(FACTORIES)
    for name in ("good", "keywords"):
        runner = deploydcn.load(f"{file}:{name}", "torch")
        assert [info.name for info in runner.inputs] == ["input"]
    with pytest.raises(InvalidArgument, match="needs example inputs"):
        deploydcn.load(f"{file}:bare", "torch")


def test_byte_order_and_scalars_are_kept(onnx_model: onnx.ModelProto) -> None:
    runner = deploydcn.load(onnx_model)
    swapped = {name: value.astype(value.dtype.newbyteorder(">")) for name, value in feed().items()}
    assert np.array_equal(runner.run(swapped)["Y"], runner.run(feed())["Y"])


@pytest.mark.parametrize("inputs", [None, 5, iter([1])], ids=["none", "number", "iterator"])
def test_inputs_that_are_none(onnx_model: onnx.ModelProto, inputs: object) -> None:
    with pytest.raises(InvalidArgument, match="wanted a dict of arrays by name"):
        deploydcn.load(onnx_model).run(inputs)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", [None, 5, nn.Conv2d(1, 1, 1)], ids=lambda model: type(model).__name__)
def test_what_is_no_model(model: object) -> None:
    with pytest.raises(InvalidModel, match="wanted an ONNX file"):
        deploydcn.load(model)


def test_missing_providers_do_not_fall_back(onnx_model: onnx.ModelProto) -> None:
    with pytest.raises(InvalidArgument, match="no execution provider Nope; this onnxruntime has"):
        deploydcn.load(onnx_model, providers=["Nope"])


def test_verify_pairs_inputs_by_name(onnx_model: onnx.ModelProto) -> None:
    runner = deploydcn.load(onnx_model)
    assert deploydcn.verify(runner, onnx_model, feed()).passed
    with pytest.raises(InvalidArgument, match="no input named 'typo'"):
        deploydcn.verify(runner, onnx_model, {**{k: v for k, v in feed().items() if k != "X"}, "typo": feed()["X"]})
    for bad in ({"tolerance": -1}, {"seed": -1, "inputs": None}):
        with pytest.raises(InvalidArgument):
            deploydcn.verify(runner, onnx_model, **{"inputs": feed(), **bad})
    with pytest.raises(InvalidArgument, match="one array or an iterator"):
        deploydcn.verify(runner, onnx_model, np.zeros(3))
