"""Legal configurations of every operator for hypothesis to draw: any options, a few thousand operations, positions of any magnitude.

To add an operator, add a function that draws a DriverCase, and a line in STRATEGIES.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import numpy as np

from deploydcn.ops import op_named
from deploydcn.ops.qlinear_deform_conv2d.cases import OUTPUT_SCALE, largest_bias, scale_of_input
from tests.conformance.backends import numpy_dtype
from tests.cpp.driver import DriverCase

SMALL = st.integers(1, 4)
SPREADS = st.sampled_from([0.0, 0.6, 3.0, 40.0, 1e6, 3e8, 1e30])


@dataclass(frozen=True)
class Strategy:
    """cases: what to draw. positive: the inputs with whatever is multiplied made positive, so that the reference yields the size of
    the sums. inner_rounding: how often a product may be rounded to the data's type before it is summed (tensor cores take halves).
    """

    cases: st.SearchStrategy[DriverCase]
    positive: Callable[[DriverCase], Mapping[str, np.ndarray]]
    inner_rounding: float = 0.0


def _case(draw: st.DrawFn, name: str, inputs: Mapping[str, np.ndarray], attributes: Mapping[str, Any], *, constant: bool) -> DriverCase:
    """Inputs rounded to a drawn row of types."""
    spec = op_named(name).spec
    types = draw(st.sampled_from(spec.type_rows))
    param = {tensor.name: tensor.type_param for tensor in spec.inputs}
    with np.errstate(over="ignore"):
        rounded = {key: value.astype(numpy_dtype(types[param[key]])) for key, value in inputs.items()}
    weights = {name for name in inputs if name.rpartition("_")[2] == "W"}
    return DriverCase(spec, rounded, attributes, types, frozenset(weights if constant else ()))


def _rng(draw: st.DrawFn) -> np.random.Generator:
    return np.random.default_rng(draw(st.integers(0, 2**31)))


def _all_but(*positions: str) -> Callable[[DriverCase], Mapping[str, np.ndarray]]:
    return lambda case: {name: value if name in positions else np.abs(value) for name, value in case.inputs.items()}


# ----------------------------------------------------------------------------------------------------------- convolutions
@st.composite
def _convolution(draw: st.DrawFn, name: str) -> DriverCase:
    deformable = name != "GroupedConv2d"
    group, offset_group = draw(SMALL), draw(SMALL)
    channels = int(np.lcm(group, offset_group)) * draw(st.integers(1, 6))
    outputs, kernel = group * draw(st.integers(1, 20)), (draw(SMALL), draw(SMALL))
    attributes: dict[str, Any] = {"strides": (draw(SMALL), draw(SMALL)), "dilations": (draw(SMALL), draw(SMALL))}
    image, attributes["pads"] = _image_and_pads(draw, kernel, attributes["dilations"])
    attributes |= {"group": group, "activation": draw(st.sampled_from(["", "relu", "relu6", "silu"]))}
    if deformable:
        attributes["offset_group"] = offset_group
    x, weight = (draw(st.integers(0, 3)), channels, *image), (outputs, channels // group, *kernel)
    n, _, oh, ow = op_named(name).spec.output_shapes({"X": x, "W": weight}, attributes)[0]
    taps, rng = offset_group * kernel[0] * kernel[1], _rng(draw)
    inputs = {"X": rng.standard_normal(x), "W": rng.standard_normal(weight)}
    if deformable:
        inputs["offset"] = rng.standard_normal((n, 2 * taps, oh, ow)) * draw(SPREADS)
    if draw(st.booleans()):
        inputs["B"] = rng.standard_normal(outputs)
    if deformable and draw(st.booleans()):
        inputs["mask"] = rng.uniform(-1, 2, (n, taps, oh, ow))
    if name == "QLinearDeformConv2d":
        inputs |= _bytes(rng, inputs)
    return _case(draw, name, inputs, attributes, constant=draw(st.booleans()))


def _bytes(rng: np.random.Generator, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of QLinearDeformConv2d: data, weights and bias in 8 and 32 bits, zero points anywhere, scales that use Y's range."""
    products = int(np.prod(inputs["W"].shape[1:]))
    reach = largest_bias(products)
    drawn = {
        "X": rng.integers(0, 256, inputs["X"].shape),
        "x_scale": np.array(scale_of_input(products)),
        "x_zero_point": np.array(rng.integers(0, 256)),
        "W": rng.integers(-127, 128, inputs["W"].shape),
        "w_scale": rng.uniform(0.005, 0.015, inputs["W"].shape[0]),
        "y_scale": np.array(OUTPUT_SCALE),
        "y_zero_point": np.array(rng.integers(0, 256)),
    }
    return drawn | ({"B": rng.integers(-reach, reach + 1, inputs["B"].shape)} if "B" in inputs else {})


@st.composite
def _separable(draw: st.DrawFn) -> DriverCase:
    """SeparableConv2d: few channels and many, on either side of the kernels' tiles."""
    activations = st.sampled_from(["", "relu", "relu6", "silu"])
    channels, outputs = (draw(st.one_of(st.integers(1, 12), st.sampled_from([16, 33, 64, 70, 130]))) for _ in range(2))
    between, kernel = channels * draw(st.integers(1, 3)), (draw(SMALL), draw(SMALL))
    attributes: dict[str, Any] = {"strides": (draw(SMALL), draw(SMALL)), "dilations": (draw(SMALL), draw(SMALL))}
    image, attributes["pads"] = _image_and_pads(draw, kernel, attributes["dilations"])
    attributes |= {"depthwise_activation": draw(activations), "activation": draw(activations)}
    rng = _rng(draw)
    inputs = {
        "X": rng.standard_normal((draw(st.integers(0, 3)), channels, *image)),
        "depthwise_W": rng.standard_normal((between, 1, *kernel)),
        "pointwise_W": rng.standard_normal((outputs, between, 1, 1)),
    }
    for name, size in (("depthwise_B", between), ("pointwise_B", outputs)):
        if draw(st.booleans()):
            inputs[name] = rng.standard_normal(size)
    return _case(draw, "SeparableConv2d", inputs, attributes, constant=draw(st.booleans()))


def _image_and_pads(draw: st.DrawFn, kernel: tuple[int, int], dilations: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, ...]]:
    """An image (h, w) and pads into which the window fits."""
    pads = tuple(draw(st.integers(0, 6)) for _ in range(4))
    reach = [dilation * (size - 1) + 1 for dilation, size in zip(dilations, kernel, strict=True)]
    least = [max(1, reach[axis] - pads[axis] - pads[axis + 2]) for axis in (0, 1)]
    return (draw(st.integers(least[0], least[0] + 8)), draw(st.integers(least[1], least[1] + 39))), pads


# --------------------------------------------------------------------------------------------------- deformable attention
@st.composite
def _window(draw: st.DrawFn, name: str) -> DriverCase:
    """DCNv3 and DCNv4."""
    groups, kernel = draw(SMALL), (draw(SMALL), draw(SMALL))
    remove_center = draw(st.integers(0, 1)) if kernel != (1, 1) else 0
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": (draw(SMALL), draw(SMALL)), "dilations": (draw(SMALL), draw(SMALL))}
    image, attributes["pads"] = _image_and_pads(draw, kernel, attributes["dilations"])
    attributes |= {"group": groups, "remove_center": remove_center, "offset_scale": draw(st.sampled_from([1.0, 0.5, 0.75, 1.5, 2.0]))}
    shape = (draw(st.integers(0, 3)), *image, groups * draw(st.integers(1, 40)))
    n, oh, ow, _ = op_named(name).spec.output_shapes({"input": shape}, attributes)[0]
    points, rng = kernel[0] * kernel[1] - remove_center, _rng(draw)
    offset = rng.standard_normal((n, oh, ow, groups, 2 * points)) * draw(SPREADS)
    mask = rng.uniform(-1, 2, (n, oh, ow, groups, points))
    inputs = {"input": rng.standard_normal(shape)}
    if name == "DCNv3":
        inputs |= {"offset": offset.reshape(n, oh, ow, 2 * groups * points), "mask": mask.reshape(n, oh, ow, groups * points)}
    else:
        attributes["softmax"] = draw(st.integers(0, 1))
        both = np.concatenate([offset, mask], axis=-1).reshape(n, oh, ow, 3 * groups * points)
        filler = np.full((n, oh, ow, -3 * groups * points % 8), np.nan)
        inputs["offset_mask"] = np.concatenate([both, filler], axis=-1)
    return _case(draw, name, inputs, attributes, constant=False)


def _positive_masks(case: DriverCase) -> Mapping[str, np.ndarray]:
    """Of DCNv4: the masks among offset_mask."""
    if case.attributes["softmax"]:
        return {**case.inputs, "input": np.abs(case.inputs["input"])}
    both, groups = case.inputs["offset_mask"].copy(), case.attributes["group"]
    points = case.attributes["kernel_shape"][0] * case.attributes["kernel_shape"][1] - case.attributes["remove_center"]
    for group in range(groups):
        masks = both[..., (3 * group + 2) * points : 3 * (group + 1) * points]
        masks[:] = np.abs(masks)
    return {"input": np.abs(case.inputs["input"]), "offset_mask": both}


@st.composite
def _levels(draw: st.DrawFn) -> DriverCase:
    """MSDeformAttn."""
    shapes = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 30)), min_size=1, max_size=4))
    pixels = max(height * width for height, width in shapes) + draw(st.integers(0, 50))
    starts = [draw(st.integers(0, pixels - height * width)) for height, width in shapes]
    n, queries, heads, channels = draw(st.integers(0, 3)), draw(st.integers(0, 20)), draw(SMALL), draw(st.integers(1, 40))
    each, rng = (n, queries, heads, len(shapes), draw(st.integers(1, 5))), _rng(draw)
    inputs = {
        "value": rng.standard_normal((n, pixels, heads, channels)),
        "spatial_shapes": np.array(shapes),
        "level_start_index": np.array(starts),
        "sampling_locations": 0.5 + rng.standard_normal((*each, 2)) * draw(SPREADS),
        "attention_weights": rng.uniform(-1, 2, each),
    }
    return _case(draw, "MSDeformAttn", inputs, {}, constant=False)


STRATEGIES: dict[str, Strategy] = {
    # 1.1: the largest slope of an activation, silu.
    "DeformConv2d": Strategy(_convolution("DeformConv2d"), _all_but("offset"), 1.1),
    "QLinearDeformConv2d": Strategy(_convolution("QLinearDeformConv2d"), _all_but()),
    "GroupedConv2d": Strategy(_convolution("GroupedConv2d"), _all_but(), 1.1),
    "SeparableConv2d": Strategy(_separable(), _all_but(), 1.1),
    "DCNv3": Strategy(_window("DCNv3"), _all_but("offset")),
    "DCNv4": Strategy(_window("DCNv4"), _positive_masks),
    "MSDeformAttn": Strategy(_levels(), _all_but("spatial_shapes", "level_start_index", "sampling_locations")),
}
