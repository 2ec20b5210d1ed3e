"""Which layers and activations become integers, on graphs small enough to see why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import deploydcn
from tests.convert.helpers import drawn, node, write
from tests.quantize.networks import images

pytestmark = pytest.mark.backend("ort")

W, DEEP = drawn(8, 3, 3, 3, scale=0.3), drawn(8, 8, 3, 3, scale=0.2, seed=1)
STEM = node("Conv", ["x", "w"], ["a"], name="stem", pads=[1, 1, 1, 1])
LAST = node("Conv", ["b", "deep"], ["y"], name="last", pads=[1, 1, 1, 1])
NUMBERS = {"w": W, "deep": DEEP}


def quantized(
    tmp_path: Path, nodes: Sequence[onnx.NodeProto], constants: Mapping[str, np.ndarray], outputs: Sequence[str] = ("y",), **options: Any
) -> tuple[deploydcn.QuantizeReport, onnx.ModelProto]:
    path = write(tmp_path / "float.onnx", nodes, {"x": ("n", 3, 16, 18)}, outputs, constants, domains=["deploydcn"])
    report = deploydcn.quantize(path, tmp_path / "int8.onnx", images(4), **options)
    return report, onnx.load(tmp_path / "int8.onnx")


def rounded(model: onnx.ModelProto) -> set[str]:
    """The activations that go through 8 bits, by the names they had."""
    names = {item.input[0] for item in model.graph.node if item.op_type == "QuantizeLinear"}
    made = {item.output[0].removesuffix(".quantized") for item in model.graph.node if item.domain == "deploydcn"}
    return {name.removesuffix(".real") for name in names | made}


def scale_of(model: onnx.ModelProto, name: str) -> float:
    arrays = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    (found,) = [item for item in model.graph.node if item.op_type == "QuantizeLinear" and item.input[0].removesuffix(".real") == name]
    return float(arrays[found.input[1]])


def test_what_lies_between_layers_is_rounded(tmp_path: Path) -> None:
    """SiLU in two nodes, a sum with a constant, a pool."""
    between = [
        node("Sigmoid", ["a"], ["gate"]),
        node("Mul", ["a", "gate"], ["silu"]),
        node("Add", ["silu", "shift"], ["moved"]),
        node("MaxPool", ["moved"], ["b"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    report, model = quantized(tmp_path, [STEM, *between, LAST], {**NUMBERS, "shift": drawn(8, 1, 1)})
    assert rounded(model) == {"x", "a", "gate", "silu", "shift", "moved", "b", "y"}
    assert scale_of(model, "b") == scale_of(model, "moved")  # a pool moves values
    assert scale_of(model, "a") != scale_of(model, "silu")
    assert report.agreement[0].sqnr_db > 30


def test_what_follows_the_last_layer_is_not(tmp_path: Path) -> None:
    """Boxes in pixels and scores in [0, 1] in one output: one scale for both would leave nothing of the scores."""
    tail = [
        node("Mul", ["a", "stride"], ["boxes"]),
        node("Sigmoid", ["a"], ["scores"]),
        node("Concat", ["boxes", "scores"], ["y"], axis=1),
    ]
    report, model = quantized(tmp_path, [STEM, *tail], {"w": W, "stride": np.array(32, np.float32)})
    assert rounded(model) == {"x", "a"}
    assert report.agreement[0].channels_db > 30


@pytest.mark.parametrize(("mode", "passes"), [("linear", True), ("nearest", True), ("cubic", False)])
def test_interpolation_that_overshoots_has_a_range_of_its_own(tmp_path: Path, mode: str, passes: bool) -> None:
    resize = node("Resize", ["a", "", "sizes"], ["b"], mode=mode)
    _, model = quantized(tmp_path, [STEM, resize, LAST], {**NUMBERS, "sizes": np.array([1, 1, 2, 2], np.float32)})
    assert rounded(model) == {"x", "a", "b", "y"}
    assert (scale_of(model, "b") == scale_of(model, "a")) == passes


def test_a_clamp_belongs_to_what_it_clamps(tmp_path: Path) -> None:
    clip = node("Clip", ["a", "low", "high"], ["b"])
    _, model = quantized(tmp_path, [STEM, clip, LAST], {**NUMBERS, "low": np.array(0, np.float32), "high": np.array(6, np.float32)})
    assert rounded(model) == {"x", "b", "y"}


def test_offsets_and_masks_stay_real_numbers_back_to_the_layer_that_makes_them(tmp_path: Path) -> None:
    nodes = [
        STEM,
        node("Conv", ["a", "first"], ["hidden"], name="hidden", pads=[1, 1, 1, 1]),
        node("Relu", ["hidden"], ["active"]),
        node("Conv", ["active", "second"], ["both"], name="offsets", pads=[1, 1, 1, 1]),
        node("Slice", ["both", "from", "to", "axis"], ["shift"]),
        node("Slice", ["both", "to", "end", "axis"], ["gate"]),
        node("Sigmoid", ["gate"], ["mask"]),
        node("DeformConv2d", ["a", "deep", "shift", "", "mask"], ["y"], name="layer", domain="deploydcn", pads=[1, 1, 1, 1]),
    ]
    constants = {**NUMBERS, "first": drawn(8, 8, 3, 3, scale=0.1, seed=2), "second": drawn(27, 8, 3, 3, scale=0.05, seed=3)}
    constants |= {name: np.array([value], np.int64) for name, value in (("from", 0), ("to", 18), ("end", 27), ("axis", 1))}
    report, model = quantized(tmp_path, nodes, constants)
    kept = {choice.node: choice.kept for choice in report.layers}
    assert kept == {"stem": "", "hidden": "", "offsets": "makes sampling positions or masks of layer", "layer": ""}
    assert {"both", "shift", "gate", "mask"}.isdisjoint(rounded(model))
    assert report.operators == {"deploydcn::QLinearDeformConv2d": 1}


REASONS: dict[str, tuple[onnx.NodeProto, dict[str, np.ndarray], str]] = {
    "one_output": (node("Conv", ["a", "v"], ["y"], name="last"), {"v": drawn(1, 8, 1, 1)}, "one output channel: nothing to gain"),
    "transposed": (
        node("ConvTranspose", ["a", "v"], ["y"], name="last"),
        {"v": drawn(8, 4, 2, 2)},
        "ConvTranspose has no kernel for 8 bits",
    ),
    "weight_computed": (node("Conv", ["a", "half"], ["y"], name="last"), {"v": DEEP}, "its weight or bias is not constant"),
    "gemm_scaled": (
        node("Gemm", ["flat", "v"], ["y"], name="last", alpha=0.5),
        {"v": drawn(18, 4)},
        "a Gemm of another form than x * W + b",
    ),
    "stack": (node("MatMul", ["a", "v"], ["y"], name="last"), {"v": drawn(8, 18, 4)}, "a stack of matrices"),
}


@pytest.mark.parametrize("name", REASONS)
def test_layers_that_stay_say_why(tmp_path: Path, name: str) -> None:
    last, constants, reason = REASONS[name]
    nodes = [STEM, node("Mul", ["v", "v"], ["half"]), node("Reshape", ["a", "rows"], ["flat"]), last]
    used = {item for made in nodes for item in made.input}
    nodes = [item for item in nodes if item.output[0] in {*last.input, "y", "a"}]
    fixed = {"w": W, "rows": np.array([-1, 18], np.int64), **constants}
    report, _ = quantized(tmp_path, nodes, {key: value for key, value in fixed.items() if key in used})
    assert {choice.node: choice.kept for choice in report.layers} == {"stem": "", "last": reason}


def test_layers_in_branches_stay(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
    branch = helper.make_graph([node("Conv", ["a", "deep"], ["r"], name="inner", pads=[1, 1, 1, 1])], "then", [], [value])
    other = helper.make_graph([node("Neg", ["a"], ["r"])], "else", [], [value])
    nodes = [STEM, node("If", ["yes"], ["y"], then_branch=branch, else_branch=other)]
    report, _ = quantized(tmp_path, nodes, {**NUMBERS, "yes": np.array(True)})
    assert {choice.node: choice.kept for choice in report.layers} == {"stem": "", "inner": "in a branch or loop"}
    assert report.agreement[0].sqnr_db > 30


def test_a_matrix_product_keeps_real_numbers_where_no_layer_follows(tmp_path: Path) -> None:
    nodes = [STEM, node("MatMul", ["a", "m"], ["y"], name="last")]
    report, model = quantized(tmp_path, nodes, {"w": W, "m": drawn(18, 5)})
    assert rounded(model) == {"x", "a"}
    assert report.quantized == 2


def test_grouped_convolutions_of_ours_become_onnxruntimes(tmp_path: Path) -> None:
    grouped = node("GroupedConv2d", ["a", "g"], ["b"], name="grouped", domain="deploydcn", group=2, pads=[1, 1, 1, 1], activation="relu")
    constants = {**NUMBERS, "g": drawn(8, 4, 3, 3, scale=0.2)}
    report, model = quantized(tmp_path, [STEM, grouped, LAST], constants)
    assert report.quantized == 3
    assert sum(item.op_type == "Conv" for item in model.graph.node) == 3
    report, model = quantized(tmp_path, [STEM, grouped, LAST], constants, exclude=["grouped"])  # by the name in the source
    assert report.quantized == 2


def test_dead_channels_and_large_biases_have_scales(tmp_path: Path) -> None:
    weight, bias = W.copy(), np.zeros(8, np.float32)
    weight[2], weight[3], bias[3] = 0, 1e-12, 100.0  # in units of x's scale * 1e-14 that bias needs 54 bits
    nodes = [node("Conv", ["x", "w", "bias"], ["y"], name="stem")]
    report, _ = quantized(tmp_path, nodes, {"w": weight, "bias": bias})
    assert report.agreement[0].sqnr_db > 30
