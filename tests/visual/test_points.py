"""Where layers sample: an operator's output, computed from the points alone, is what its reference computes; and numbers done by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from deploydcn.errors import InvalidArgument
from deploydcn.ops import OPS
from deploydcn.ops.activations import activate
from deploydcn.ops.bilinear import bilinear
from deploydcn.ops.case import Case
from deploydcn.visual.geometry import Grid
from deploydcn.visual.layers import CONVOLUTIONS, SAMPLING_INPUTS, Layer, Points, make_layer

ROWS = [
    pytest.param(op, case, id=f"{op.spec.snake_name}-{case.id}")
    for op in OPS
    if op.spec.name in SAMPLING_INPUTS
    for case in op.cases
    if all(min(shape, default=1) > 0 for shape in case.shapes.values())
]
ROUNDING = 1e-9  # of float64 sums of a few hundred products, positions up to 1e6


def drawn(op: Any, case: Case) -> dict[str, np.ndarray]:
    """Whole numbers in the operator's own types, all others in float64."""
    kinds = {tensor.name: np.dtype(op.spec.type_rows[0][tensor.type_param]) for tensor in op.spec.inputs}
    return case.inputs(lambda name: kinds[name] if kinds[name].kind in "iu" else np.dtype(np.float64))


def layer_of(operator: str, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any], **more: Any) -> Layer:
    read = {name: arrays[name] for name in SAMPLING_INPUTS[operator] if name in arrays}
    shapes = {name: value.shape for name, value in arrays.items()}
    return make_layer("layer", operator, read, shapes, attributes, **{"grid": Grid(), "image_size": (64, 64), **more})


def recomputed(layer: Layer, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The operator's output for the first image, (sites, channels), from the layer's points."""
    p = layer.points
    if layer.operator == "MSDeformAttn":
        return attended(layer, arrays)
    if layer.operator == "QLinearDeformConv2d":
        return of_integers(layer, arrays)
    data = arrays["X"][0] if "X" in arrays else arrays["input"][0].transpose(2, 0, 1)
    samples = sampled(data, p, layer.groups)
    if layer.operator not in CONVOLUTIONS:
        return samples.sum(2).T
    output = convolved(layer, arrays, samples)
    return activate(output + arrays.get("B", np.zeros(output.shape[1])), layer.attributes.get("activation", ""))


def sampled(data: np.ndarray, p: Points, groups: int) -> np.ndarray:
    """data (C, H, W) at the points, times their weights: (C, sites, taps)."""
    parts = np.split(data, groups)
    return np.concatenate([bilinear(part, p.y[:, q], p.x[:, q]) * p.weight[:, q] for q, part in enumerate(parts)])


def convolved(layer: Layer, arrays: Mapping[str, np.ndarray], samples: np.ndarray) -> np.ndarray:
    """Samples (C, sites, taps) times the weight: (sites, M)."""
    weight = arrays["W"].astype(np.float64).reshape(*arrays["W"].shape[:2], -1)
    group = layer.attributes.get("group", 1)
    parts = zip(np.split(weight, group), np.split(samples, group), strict=True)
    return np.concatenate([np.einsum("mck,csk->sm", w, s) for w, s in parts], 1)


def of_integers(layer: Layer, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """As a convolution of what the points sample, rounded, in units of the scales."""
    limits, zero = np.iinfo(arrays["X"].dtype), float(arrays["x_zero_point"])
    weight = layer.points.weight
    taps = replace(layer.points, weight=np.where(np.isfinite(weight), weight, 0))
    samples = sampled(arrays["X"][0] - zero, taps, layer.groups)
    samples = np.clip(np.rint(samples), limits.min - zero, limits.max - zero)
    total = (convolved(layer, arrays, samples) + arrays.get("B", 0.0)) * arrays["x_scale"] * arrays["w_scale"]
    y = activate(total, layer.attributes.get("activation", "")) / arrays["y_scale"]
    return np.clip(np.rint(np.nan_to_num(y, nan=0)) + float(arrays["y_zero_point"]), limits.min, limits.max)


def attended(layer: Layer, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    p, value = layer.points, arrays["value"][0]
    heads = []
    for head in range(layer.groups):
        total = 0
        for index, ((height, width), start) in enumerate(zip(arrays["spatial_shapes"], arrays["level_start_index"], strict=True)):
            own = slice(index * p.y.shape[2] // len(arrays["spatial_shapes"]), (index + 1) * p.y.shape[2] // len(arrays["spatial_shapes"]))
            level = value[start : start + height * width, head].T.reshape(-1, height, width)
            total = total + (bilinear(level, p.y[:, head, own], p.x[:, head, own]) * p.weight[:, head, own]).sum(2)
        heads.append(total.T)
    return np.concatenate(heads, 1)


def expected(op: Any, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> np.ndarray:
    output = op.reference(arrays, attributes)[0][0]
    return output.reshape(output.shape[0], -1).T if op.spec.name in CONVOLUTIONS else output.reshape(-1, output.shape[-1])


@pytest.mark.parametrize(("op", "case"), ROWS)
def test_points_alone_give_the_operators_output(op: Any, case: Case) -> None:
    arrays = drawn(op, case)
    with np.errstate(invalid="ignore"):
        layer = layer_of(op.spec.name, arrays, case.attributes)
        got, wanted = recomputed(layer, arrays), expected(op, arrays, case.attributes)
    finite = np.isfinite(got) & np.isfinite(wanted)
    assert finite.mean() > 0.25
    assert np.abs(got - wanted)[finite].max() <= ROUNDING * max(np.abs(wanted[finite]).max(), 1)


@pytest.mark.parametrize(("op", "case"), ROWS)
def test_share_is_what_a_map_of_ones_gives(op: Any, case: Case) -> None:
    with np.errstate(invalid="ignore"):
        p = layer_of(op.spec.name, drawn(op, case), case.attributes).points
    sizes = np.broadcast_arrays(p.y, p.height, p.width)[1:]
    for height, width in {*zip(*(size.ravel().astype(int) for size in sizes), strict=True)}:
        own = (sizes[0] == height) & (sizes[1] == width)
        with np.errstate(invalid="ignore"):
            ones = bilinear(np.ones((1, height, width)), p.y[own], p.x[own])[0]
        assert np.abs(p.share[own] - ones).max() < ROUNDING


@pytest.mark.parametrize("operator", SAMPLING_INPUTS)
def test_swapped_axes_would_be_noticed(operator: str) -> None:
    """The planted bug: (x, y) read for (y, x)."""
    (op,) = (op for op in OPS if op.spec.name == operator)
    case = op.cases[0]
    arrays = drawn(op, case)
    planted = dict(arrays)
    if operator in CONVOLUTIONS:
        planted["offset"] = arrays["offset"][:, np.arange(arrays["offset"].shape[1]) ^ 1]
    elif operator == "MSDeformAttn":
        planted["sampling_locations"] = arrays["sampling_locations"][..., ::-1]
    else:
        name = "offset" if operator == "DCNv3" else "offset_mask"
        planted[name] = arrays[name][..., np.arange(arrays[name].shape[-1]) ^ 1]
    got = recomputed(layer_of(operator, planted, case.attributes), arrays)
    assert np.abs(got - expected(op, arrays, case.attributes)).max() > 0.01


def two_by_two(offset: np.ndarray, **attributes: Any) -> Layer:
    """A 3x3 layer on an 8x8 map."""
    arrays = {"X": np.zeros((1, 2, 8, 8)), "W": np.zeros((4, 2, 3, 3)), "offset": offset}
    return layer_of("DeformConv2d", arrays, attributes)


def test_by_hand_stride_padding_dilation_and_groups() -> None:
    """Output pixel (1, 2), tap (0, 2) of group 1: y = 1*2 - 1 + 0*3 + 0.25, x = 2*1 - 2 + 2*1 - 0.5."""
    offset = np.zeros((1, 36, 2, 8))
    offset[0, 18 + 2 * 2, 1, 2], offset[0, 18 + 2 * 2 + 1, 1, 2] = 0.25, -0.5
    layer = two_by_two(offset, strides=(2, 1), pads=(1, 2, 0, 0), dilations=(3, 1), offset_group=2)
    site = layer.site((1, 2))
    assert layer.output_size == (2, 8)
    assert (layer.points.y[site, 1, 2], layer.points.x[site, 1, 2]) == (1.25, 1.5)
    assert (layer.points.y[site, 0, 2], layer.points.x[site, 0, 2]) == (1.0, 2.0)
    assert layer.points.distance[site, 1, 2] == np.hypot(0.25, 0.5)
    assert np.all(layer.points.weight == 1)
    # The middle of that pixel's window: rows 1, 4, 7 and columns 0, 1, 2.
    assert layer.output_grid.to_image(np.array(1), np.array(2)) == (4.0, 1.0)


def test_samples_that_are_not_numbers_lie_outside() -> None:
    offset = np.zeros((1, 18, 6, 6))
    offset[0, 0], offset[0, 3] = np.nan, np.inf
    layer = two_by_two(offset)
    assert np.all(layer.points.share[:, 0, :2] == 0)
    assert np.all(layer.points.share[:, 0, 2:] == 1)


@pytest.mark.parametrize(
    ("pixel", "message"),
    [((6, 0), "pixel 6,0 is outside the output of 'layer'; wanted one from 0,0 to 5,5"), ((3,), "wanted row and column, as in 3,5")],
)
def test_pixels_outside_are_refused(pixel: tuple[int, ...], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        two_by_two(np.zeros((1, 18, 6, 6))).site(pixel)
