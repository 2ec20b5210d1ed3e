"""QLinearDeformConv2d in ONNX Runtime beside what ONNX Runtime has: QLinearConv, and the same layer with Q and DQ nodes around it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from deploydcn.errors import RuntimeFailure
from deploydcn.ops import op_named
from deploydcn.runners import load
from tests.conformance.backends import BACKENDS
from tests.conformance.single_node import ELEMENT_TYPES
from tests.conformance.test_conformance import inputs_of
from tests.conformance.tolerances import OFF_BY_ONE, units_off

pytestmark = pytest.mark.backend("ort")

OP = op_named("QLinearDeformConv2d")
CASES = {case.id: case for case in OP.cases}


def qlinear_conv(inputs: dict[str, np.ndarray], attributes: dict[str, Any]) -> np.ndarray:
    order = ("X", "x_scale", "x_zero_point", "W", "w_scale", "w_zero_point", "y_scale", "y_zero_point", "B")
    feeds = {**{name: value for name, value in inputs.items() if name in order}, "w_zero_point": np.zeros((), np.int8)}
    node = helper.make_node("QLinearConv", [name if name in feeds else "" for name in order], ["Y"], **attributes)
    infos = [helper.make_tensor_value_info(name, ELEMENT_TYPES[value.dtype.name], value.shape) for name, value in feeds.items()]
    output = helper.make_tensor_value_info("Y", ELEMENT_TYPES[inputs["X"].dtype.name], [None] * 4)
    model = helper.make_model(
        helper.make_graph([node], "dense", infos, [output]), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    return load(model, "ort").run(feeds)["Y"]


@pytest.mark.parametrize("types", OP.spec.type_rows, ids=lambda types: types["T"])
@pytest.mark.parametrize("name", ["zero_offsets", "groups_2", "awkward_channels", "zero_points_lowest", "zero_points_highest", "saturated"])
def test_zero_offsets_without_mask_equal_qlinearconv(name: str, types: dict[str, str]) -> None:
    """An implementation that is not ours: its definition is ONNX's, whose integers ours must reproduce where nothing is interpolated."""
    case = CASES[name]
    inputs = inputs_of(OP, case, types)
    inputs["offset"][:] = 0
    del inputs["mask"]
    got = BACKENDS["ort"](OP, inputs, case.attributes, types)[0]
    attributes = {key: value for key, value in case.attributes.items() if key in ("pads", "group", "strides", "dilations")}
    assert units_off(got, qlinear_conv(inputs, attributes).astype(np.float64)) <= 1  # it multiplies by its scales in float32


def test_rounding_the_samples_can_be_seen() -> None:
    """The tolerance of the conformance table would notice an implementation that keeps samples as real numbers."""
    types = OP.spec.type_rows[0]
    inputs = inputs_of(OP, CASES["wider"], types)
    wanted = OP.reference(inputs, CASES["wider"].attributes)[0]
    wide = {name: inputs[name].astype(np.float32) for name in ("X", "W", "offset", "mask")}
    scale = inputs["x_scale"] * inputs["w_scale"]
    wide["X"] -= np.float32(inputs["x_zero_point"])
    wide["B"] = inputs["B"].astype(np.float32)
    unrounded = op_named("DeformConv2d").reference(wide, CASES["wider"].attributes)[0] * scale[:, None, None] / inputs["y_scale"]
    got = np.clip(np.rint(unrounded) + inputs["y_zero_point"], 0, 255).astype(np.uint8)
    assert np.mean(got != wanted) > 10 * OFF_BY_ONE
    assert units_off(got, wanted) == np.inf


def test_sums_that_32_bits_cannot_hold_are_refused() -> None:
    case = CASES["one_channel"]
    inputs = inputs_of(OP, case, OP.spec.type_rows[0])
    taps = 257 * 257  # 66049, and 65793 fit
    inputs |= {"W": np.ones((1, 1, 257, 257), np.int8), "offset": np.zeros((1, 2 * taps, 1, 1), np.float32)}
    inputs |= {"X": np.ones((1, 1, 257, 257), np.uint8), "mask": np.ones((1, taps, 1, 1), np.float32)}
    with pytest.raises(RuntimeFailure, match="adds up 66049 products for one output; wanted at most 65793"):
        BACKENDS["ort"](OP, inputs, {}, OP.spec.type_rows[0])
