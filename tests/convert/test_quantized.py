"""Q and DQ nodes around deformable convolutions become QLinearDeformConv2d for `ort`, and those become Q and DQ nodes for other targets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import deploydcn
from deploydcn.errors import ExportError
from deploydcn.ops import op_named
from tests.conformance.single_node import single_node_model
from tests.conformance.test_conformance import inputs_of
from tests.convert.helpers import drawn, node, operators, write

pytestmark = pytest.mark.backend("ort")

QLINEAR = "deploydcn::QLinearDeformConv2d"
INPUTS = {"x": ("n", 8, "h", "w"), "offset": ("n", 18, "h", "w"), "mask": ("n", 9, "h", "w")}


def constants(dtype: str = "uint8", m: int = 6, channels: int = 8) -> dict[str, np.ndarray]:
    """A layer whose scales use the range of X ~ N(0, 1)."""
    rng = np.random.default_rng(1)
    zero = np.array(0 if dtype == "int8" else 120, dtype)
    return {
        **{"x_scale": np.array(0.03, np.float32), "x_zero": zero, "y_scale": np.array(0.02, np.float32), "y_zero": zero},
        "w8": rng.integers(-127, 128, (m, channels, 3, 3)).astype(np.int8),
        "w_scale": rng.uniform(0.001, 0.002, m).astype(np.float32),
        "w_zero": np.zeros(m, np.int8),
        "b32": rng.integers(-4000, 4000, m).astype(np.int32),
    }


def source(
    path: Path,
    values: Mapping[str, np.ndarray],
    *,
    op: str = "DeformConv",
    bias: str = "dequantized",
    mask: bool = True,
    activation: str = "",
    inner: tuple[onnx.NodeProto, ...] = (),
    axis: int = 0,
    **attributes: Any,
) -> Path:
    """x -> Q -> DQ -> DeformConv -> activation -> Q -> DQ -> y, as quantizers write it."""
    fixed = dict(values)

    def parameters(name: str) -> list[str]:
        return [item for item in (f"{name}_scale", f"{name}_zero") if item in values]

    nodes = [
        node("QuantizeLinear", ["x", *parameters("x")], ["x8"]),
        node("DequantizeLinear", ["x8", *parameters("x")], ["xr"]),
        node("DequantizeLinear", ["w8", *parameters("w")], ["wr"], axis=axis),
    ]
    if bias == "dequantized":
        fixed["b_scale"] = np.float32(0.03) * values["w_scale"]
        nodes.append(node("DequantizeLinear", ["b32", "b_scale"], ["b"], axis=0))
    elif bias == "float":
        fixed["b"] = (values["b32"] * 0.03 * values["w_scale"]).astype(np.float32)
    order = ["xr", "wr", "offset", "b" if bias else "", *(["mask"] if mask else [])]
    domain = {"domain": "deploydcn"} if op == "DeformConv2d" else {}
    nodes.append(node(op, order if mask or bias else order[:3], ["conv"], name="layer", pads=[1, 1, 1, 1], **attributes, **domain))
    result = {"relu": ["Relu"], "silu": ["Sigmoid", "Mul"]}.get(activation, [])
    if result == ["Relu"]:
        nodes.append(node("Relu", ["conv"], ["active"]))
    elif result:
        nodes += [node("Sigmoid", ["conv"], ["gate"]), node("Mul", ["conv", "gate"], ["active"])]
    nodes += [
        node("QuantizeLinear", ["active" if result else "conv", *parameters("y")], ["y8"]),
        node("DequantizeLinear", ["y8", *parameters("y")], ["y"]),
        *inner,
    ]
    used = {name for item in nodes for name in item.input}
    inputs = {name: shape for name, shape in INPUTS.items() if name in used or name == "x"}
    if attributes.get("offset_group"):
        groups = attributes["offset_group"]
        inputs |= {name: ("n", size * groups, "h", "w") for name, size in (("offset", 18), ("mask", 9)) if name in inputs}
    outputs = ["y", *(item.output[0] for item in inner)]
    fixed = {name: array for name, array in fixed.items() if name in used}
    return write(path, nodes, inputs, outputs, fixed, domains=["deploydcn"] if domain else [])


FORMS: dict[str, dict[str, Any]] = {
    "standard": {},
    "ours": {"op": "DeformConv2d"},
    "float_bias": {"bias": "float"},
    "no_bias": {"bias": ""},
    "v1": {"mask": False},
    "v1_no_bias": {"mask": False, "bias": ""},
    "relu": {"activation": "relu"},
    "silu": {"activation": "silu"},
    "offset_groups_4": {"offset_group": 4},
    "depthwise": {"group": 8, "values": constants(m=8, channels=1)},
    "groups_2": {"group": 2, "values": constants(channels=4)},
    "int8": {"values": constants("int8")},
    "weight_of_one_scale": {
        "values": {**constants(), "w_scale": np.array(0.0015, np.float32), "w_zero": np.array(0, np.int8)},
        "bias": "float",
    },
    "no_result_zero_point": {"values": {name: value for name, value in constants().items() if name != "y_zero"}, "activation": "relu"},
    "no_weight_zero_point": {"values": {name: value for name, value in constants().items() if name != "w_zero"}},
}


@pytest.mark.parametrize("name", FORMS)
def test_the_layer_runs_on_integers(tmp_path: Path, name: str) -> None:
    form = dict(FORMS[name])
    path = source(tmp_path / "qdq.onnx", form.pop("values", constants()), **form)
    report = deploydcn.convert(path, tmp_path / "ort.onnx", target="ort")
    assert operators(tmp_path / "ort.onnx") == {"QuantizeLinear", QLINEAR, "DequantizeLinear"}
    assert len(report.checks) == 2  # at two sizes, against ONNX Runtime on the source's Q and DQ nodes
    # Masked samples of some 15 units, rounded to whole ones in one file only: 20 * log10(15 / 0.29) = 34 dB, less where the mask is small.
    assert min(output.sqnr_db for check in report.checks for output in check.outputs) > 22
    assert any("1 deformable convolutions run on 8-bit integers" in note for note in report.notes)
    layer = next(item for item in onnx.load(tmp_path / "ort.onnx").graph.node if item.domain == "deploydcn")
    assert layer.name == "layer"


def _per_channel_x(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**values, "x_scale": np.full(8, 0.03, np.float32), "x_zero": np.full(8, 120, np.uint8)}


OUTSIDE: dict[str, tuple[dict[str, Any], str]] = {
    "x_per_channel": ({"values": _per_channel_x(constants())}, "X has a scale per channel"),
    "weight_zero_point": ({"values": {**constants(), "w_zero": np.full(6, 3, np.int8)}}, "W has a zero point other than 0"),
    "weight_uint8": (
        {"values": {**constants(), "w8": constants()["w8"].view(np.uint8), "w_zero": np.full(6, 128, np.uint8)}},
        "W is uint8; wanted int8",
    ),
    "weight_other_axis": (
        {"values": {**constants(m=8), "w_scale": np.full(8, 0.0015, np.float32), "w_zero": np.zeros(8, np.int8)}, "axis": 1, "bias": ""},
        "W has scales along axis 1",
    ),
    "result_of_another_type": ({"values": {**constants(), "y_zero": np.array(0, np.int8)}}, "X is uint8 and its result int8"),
    "result_used_as_real_numbers": ({"inner": (node("Neg", ["conv"], ["other"]),)}, "its result is used as real numbers"),
    "bias_beyond_32_bits": (
        {"values": {**constants(), "w_scale": np.full(6, 1e-12, np.float32), "b32": np.full(6, 2**30, np.int32)}, "bias": "large"},
        "its bias does not fit 32 bits",
    ),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_has_no_integer_form_stays_and_says_why(tmp_path: Path, name: str) -> None:
    form, reason = dict(OUTSIDE[name][0]), OUTSIDE[name][1]
    values = dict(form.pop("values", constants()))
    if form.get("bias") == "large":
        values["b"] = np.full(6, 5.0, np.float32)
    path = source(tmp_path / "qdq.onnx", values, **form)
    report = deploydcn.convert(path, tmp_path / "ort.onnx", target="ort", check=False)
    assert QLINEAR not in operators(tmp_path / "ort.onnx")
    assert "deploydcn::DeformConv2d" in operators(tmp_path / "ort.onnx")
    assert any(note.startswith("layer stays in float32 between its Q and DQ nodes: ") and reason in note for note in report.notes), (
        report.notes
    )
    feeds = {"x": drawn(1, 8, 7, 9), "offset": drawn(1, 18, 7, 9), "mask": np.abs(drawn(1, 9, 7, 9))}
    wanted = deploydcn.load(path, "ort", replace_standard=True).run(feeds)["y"]
    got = deploydcn.load(tmp_path / "ort.onnx").run(feeds)["y"]
    assert np.abs(got - wanted).max() <= 0.0201  # a unit of y, where a value lies near .5


def test_other_users_of_the_dequantized_image_keep_it(tmp_path: Path) -> None:
    path = source(tmp_path / "qdq.onnx", constants(), inner=(node("Neg", ["xr"], ["negative"]),))
    deploydcn.convert(path, tmp_path / "ort.onnx", target="ort")
    found = [item.op_type for item in onnx.load(tmp_path / "ort.onnx").graph.node]
    assert sorted(found) == sorted(["QuantizeLinear", "DequantizeLinear", "Neg", "QLinearDeformConv2d", "DequantizeLinear"])


def test_scales_that_are_inputs_stay(tmp_path: Path) -> None:
    path = source(tmp_path / "qdq.onnx", constants())
    model = onnx.load(path)
    kept = [item for item in model.graph.initializer if item.name != "x_scale"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    model.graph.input.append(helper.make_tensor_value_info("x_scale", TensorProto.FLOAT, []))
    onnx.save(model, path)
    report = deploydcn.convert(path, tmp_path / "ort.onnx", target="ort", check=False)
    assert any("the scale or zero point of X is not constant" in note for note in report.notes)


def test_convolutions_beside_stay_for_onnxruntime(tmp_path: Path) -> None:
    """24 channels in 3 groups would become GroupedConv2d in float32; quantized, ONNX Runtime has QLinearConv."""
    weight = np.random.default_rng(0).integers(-127, 128, (24, 8, 3, 3)).astype(np.int8)
    fixed = {"s": np.array(0.03, np.float32), "z": np.array(120, np.uint8), "w8": weight, "ws": np.full(24, 0.001, np.float32)}
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["x8"]),
        node("DequantizeLinear", ["x8", "s", "z"], ["xr"]),
        node("DequantizeLinear", ["w8", "ws"], ["wr"], axis=0),
        node("Conv", ["xr", "wr"], ["conv"], group=3),
        node("QuantizeLinear", ["conv", "s", "z"], ["y8"]),
        node("DequantizeLinear", ["y8", "s", "z"], ["y"]),
    ]
    path = write(tmp_path / "in.onnx", nodes, {"x": (1, 24, 9, 9)}, ["y"], fixed)
    deploydcn.convert(path, tmp_path / "out.onnx", target="ort")
    assert "Conv" in operators(tmp_path / "out.onnx")


# ------------------------------------------------------------------------------------------------------------- other targets
@pytest.mark.parametrize("target", ["standard", "tensorrt", "portable"])
def test_integers_become_q_and_dq_nodes_for_other_targets(tmp_path: Path, target: str) -> None:
    deploydcn.convert(source(tmp_path / "qdq.onnx", constants(), activation="silu"), tmp_path / "ort.onnx", target="ort")
    report = deploydcn.convert(tmp_path / "ort.onnx", tmp_path / "out.onnx", target=target)
    assert QLINEAR not in operators(tmp_path / "out.onnx")
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators(tmp_path / "out.onnx")
    assert any("rounds samples to 8 bits" in note for note in report.notes)
    assert len(report.checks) == 2
    assert report.mapping[0].becomes == "DeformConv2d between Q and DQ nodes"


def test_there_and_back_changes_no_integer(tmp_path: Path) -> None:
    deploydcn.convert(source(tmp_path / "qdq.onnx", constants(), activation="relu"), tmp_path / "first.onnx", target="ort")
    deploydcn.convert(tmp_path / "first.onnx", tmp_path / "standard.onnx", target="standard")
    deploydcn.convert(tmp_path / "standard.onnx", tmp_path / "second.onnx", target="ort")
    feeds = {"x": drawn(2, 8, 7, 9), "offset": drawn(2, 18, 7, 9), "mask": np.abs(drawn(2, 9, 7, 9))}
    first, second = (deploydcn.load(tmp_path / name).run(feeds)["y"] for name in ("first.onnx", "second.onnx"))
    assert np.array_equal(first, second)


def test_scales_fed_at_run_time_have_q_and_dq_nodes_too(tmp_path: Path) -> None:
    """A node whose bias cannot be computed before running."""
    op = op_named("QLinearDeformConv2d")
    types, case = op.spec.type_rows[0], op.cases[0]
    inputs = inputs_of(op, case, types)
    onnx.save(single_node_model(op.spec, case.shapes, case.attributes, types), tmp_path / "in.onnx")
    deploydcn.convert(tmp_path / "in.onnx", tmp_path / "out.onnx", target="standard", inputs=inputs)
    got = deploydcn.load(tmp_path / "out.onnx", replace_standard=True).run(inputs)["Y"]
    assert np.abs(got.astype(float) - op.reference(inputs, case.attributes)[0]).max() <= 3


@pytest.mark.parametrize("wrong", ["x_zero_point", "y_scale", "B"])
def test_a_wrong_number_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    """Planted bugs: the comparison of quantized files is wide, but not that wide."""
    from deploydcn.export import quantized

    make = quantized.new_initializer

    def planted(model: Any, array: np.ndarray, name: str) -> Any:
        if name.endswith(f".{'bias' if wrong == 'B' else wrong}"):
            array = np.asarray(array * 1.3 if wrong == "y_scale" else array - 60 if wrong == "x_zero_point" else array + 5000, array.dtype)
        return make(model, array, name)

    monkeypatch.setattr(quantized, "new_initializer", planted)
    path = source(tmp_path / "qdq.onnx", constants())
    with pytest.raises(ExportError, match="dB of signal to noise, wanted 15"):
        deploydcn.convert(path, tmp_path / "ort.onnx", target="ort")
    assert not (tmp_path / "ort.onnx").exists()
