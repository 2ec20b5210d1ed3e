"""How the CPU kernels multiply: the session options, and what fewer products must not cost in precision."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from deploydcn.errors import InvalidArgument
from deploydcn.libraries import BFLOAT16, BFLOAT16_ISAS, PRECISE, cpu_isa, ort_library_path, register_ort_ops
from deploydcn.ops import op_named
from deploydcn.runners import load
from tests.conformance.single_node import single_node_model

# Whole blocks and rows of every instruction set, which combined products and matrix tiles need: up to 384 outputs are multiplied in
# 26 products for 32, more by Strassen's algorithm.
CHANNELS = 64
SCHEMES = pytest.mark.parametrize("outputs", [64, 448], ids=["26 products", "Strassen"])
ATTRIBUTES = {"pads": (1, 1, 1, 1)}


def arrays(outputs: int = 64) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"X": (1, CHANNELS, 9, 9), "W": (outputs, CHANNELS, 3, 3), "offset": (1, 18, 9, 9)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def model(inputs: dict[str, np.ndarray]) -> onnx.ModelProto:
    shapes = {name: value.shape for name, value in inputs.items()}
    return single_node_model(op_named("DeformConv2d").spec, shapes, ATTRIBUTES, {"T": "float32", "T1": "float32"})


def run(inputs: dict[str, np.ndarray], **options: bool) -> np.ndarray:
    return load(model(inputs), "ort", **options).run(inputs)["Y"]


def errors(inputs: dict[str, np.ndarray], *, precise: bool = False) -> np.ndarray:
    """Of the CPU kernels, against the reference in float64."""
    wanted = op_named("DeformConv2d").reference({name: value.astype(np.float64) for name, value in inputs.items()}, ATTRIBUTES)[0]
    return np.abs(run(inputs, precise=precise) - wanted) / np.abs(wanted).max((2, 3), keepdims=True)


def test_sessions_of_every_kind_live_side_by_side() -> None:
    inputs = arrays()
    usual, rounded, precise = (load(model(inputs), "ort", **options) for options in ({}, {"bfloat16": True}, {"precise": True}))
    scale = np.abs(precise.run(inputs)["Y"]).max()
    assert 0 < np.abs(usual.run(inputs)["Y"] - precise.run(inputs)["Y"]).max() / scale < 2e-6
    difference = np.abs(usual.run(inputs)["Y"] - rounded.run(inputs)["Y"]).max() / scale
    if cpu_isa() in BFLOAT16_ISAS:
        assert 1e-4 < difference < 4e-3
    else:
        assert difference == 0


@SCHEMES
@pytest.mark.parametrize("sizes", ["outputs", "channels", "both"])
def test_outputs_and_channels_of_any_size_are_as_precise_as_others(sizes: str, outputs: int) -> None:
    """Sums of several outputs and channels mix: without scaling, those a million times smaller than another would be noise."""
    inputs = arrays(outputs)
    rng = np.random.default_rng(1)
    of_output, of_channel = ((10.0 ** rng.uniform(-4, 4, count)).astype(np.float32) for count in (outputs, CHANNELS))
    if sizes != "channels":
        inputs["W"] *= of_output[:, None, None, None]
    if sizes != "outputs":
        inputs["W"] *= of_channel[:, None, None]
        inputs["X"] /= of_channel[:, None, None]
    # The largest error of an output, against its own largest value: twice what sums of 576 products usually have.
    assert errors(inputs).max() < 5e-6


@SCHEMES
def test_outputs_and_channels_without_weights_are_not_their_partners_rounding_errors(outputs: int) -> None:
    inputs = arrays(outputs)
    inputs["W"] *= 1e-4
    inputs["W"][0] = 0
    inputs["W"][:, 1] = 0
    inputs["X"][:, 1] = 1e6
    usual, precise = (run(inputs, precise=precise) for precise in (False, True))
    assert np.abs(usual - precise).max() < 2e-6 * np.abs(precise).max()


@pytest.mark.skipif(cpu_isa() == "amx", reason="matrix tiles do not mix pixels")
def test_a_small_pixel_beside_a_large_one_needs_precise_products() -> None:
    inputs = arrays()
    inputs["offset"][:] = 0
    inputs["X"][..., 4:] *= 1e4
    left = np.s_[..., :3]  # whose windows hold no large pixel
    small = np.abs(op_named("DeformConv2d").reference(inputs, ATTRIBUTES)[0]).max((2, 3), keepdims=True) * 1e-4
    assert (errors(inputs, precise=True)[left] / small).max() < 0.1 * (errors(inputs)[left] / small).max()


@SCHEMES
@pytest.mark.parametrize("value", [np.inf, np.nan, np.finfo(np.float32).max])
def test_a_value_that_is_not_finite_spoils_its_own_outputs_only(value: float, outputs: int) -> None:
    inputs = arrays(outputs)
    inputs["offset"][:] = 0
    inputs["X"][0, 5, 4, 4] = value
    result = run(inputs)
    with np.errstate(invalid="ignore", over="ignore"):
        wanted = op_named("DeformConv2d").reference(inputs, ATTRIBUTES)[0]
    reached = np.zeros((9, 9), bool)
    reached[3:6, 3:6] = True
    np.testing.assert_allclose(result[..., ~reached], wanted[..., ~reached], rtol=0, atol=1e-4)
    assert not (np.abs(result[..., reached]) < 1e30).any()


@pytest.mark.parametrize("entry", [BFLOAT16, PRECISE])
def test_another_value_is_refused(entry: str) -> None:
    options = ort.SessionOptions()
    options.add_session_config_entry(entry, "yes")
    with pytest.raises(Exception, match=rf"{entry} is 'yes'; wanted 0 or 1"):
        options.register_custom_ops_library(str(ort_library_path()))


def test_rounded_and_precise_at_once_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="both bfloat16=True and precise=True"):
        register_ort_ops(ort.SessionOptions(), bfloat16=True, precise=True)
    options = ort.SessionOptions()
    for entry in (BFLOAT16, PRECISE):
        options.add_session_config_entry(entry, "1")
    with pytest.raises(Exception, match=r"both deploydcn\.bfloat16 and deploydcn\.precise"):
        options.register_custom_ops_library(str(ort_library_path()))
