"""Conformance rows of DCNv4: every way in which an implementation could be wrong; windows above all are DCNv3's."""

from __future__ import annotations

from typing import Any

import numpy as np

from deploydcn.ops.case import Case, Fill, normal
from deploydcn.ops.dcnv4.spec import SPEC
from deploydcn.ops.fills import BORDER_STEPS, choice, half_mask, nan_pixel, spread


def _case(
    name: str,
    *,
    size: tuple[int, int, int] = (2, 6, 7),
    groups: int = 2,
    channels: int = 8,
    image: Fill = normal,
    offset: Fill | None = None,
    mask: Fill = half_mask,
    padding: float = 777.0,
    why: str = "",
    **attributes: Any,
) -> Case:
    """size: (N, H, W). channels: per group. padding: what fills the channels of offset_mask up. Shapes by the spec's own arithmetic."""
    attributes = {"pads": (1, 1, 1, 1), **attributes, "group": groups}
    shape = (*size, groups * channels)
    n, oh, ow, _ = SPEC.output_shapes({"input": shape}, attributes)[0]
    kernel = attributes.get("kernel_shape", (3, 3))
    points = kernel[0] * kernel[1] - attributes.get("remove_center", 0)

    def fill(rng: np.random.Generator, whole: tuple[int, ...]) -> np.ndarray:
        result = np.full(whole, padding)
        for group in range(groups):
            first, middle, last = (3 * group * points + part * points for part in (0, 2, 3))
            result[..., first:middle] = (offset or spread(2.0))(rng, (n, oh, ow, 2 * points))
            result[..., middle:last] = mask(rng, (n, oh, ow, points))
        return result

    shapes = {"input": shape, "offset_mask": (n, oh, ow, (3 * groups * points + 7) // 8 * 8)}
    return Case(name, shapes, attributes, {"input": image, "offset_mask": fill}, why)


CASES: tuple[Case, ...] = (
    _case("default"),
    _case("padding_not_read", padding=float("nan"), why="54 channels in 56"),
    _case("no_padding", groups=8, channels=4, why="216 channels"),
    _case("one_group", groups=1),
    _case("softmax", softmax=1, mask=normal),
    _case("softmax_large", softmax=1, mask=choice(-3e4, 2e4, 2.001e4, 6e4), why="exp overflows without subtracting the largest"),
    _case("softmax_one_point", softmax=1, kernel_shape=(1, 1), pads=(0, 0, 0, 0), mask=normal),
    _case("softmax_remove_center", softmax=1, remove_center=1, offset_scale=2.0, mask=normal),
    _case("asym_kernel", kernel_shape=(3, 2), why="taps run down the columns first"),
    _case("kernel_1x9", size=(1, 4, 11), kernel_shape=(1, 9), pads=(0, 4, 0, 4)),
    _case("kernel_5x5", kernel_shape=(5, 5), pads=(2, 2, 2, 2), why="the original takes 8 or 9 points only"),
    _case("even_kernel", kernel_shape=(2, 4), why="half the reach of an even kernel rounds down"),
    _case("asym_stride", strides=(2, 1)),
    _case("asym_dilation", dilations=(1, 2), pads=(1, 2, 1, 2)),
    _case("pads_differ_by_axis", pads=(2, 0, 2, 0)),
    _case("four_pads", pads=(0, 1, 2, 3), why="ONNX pads are top, left, bottom, right"),
    _case("asym_all", kernel_shape=(3, 2), strides=(2, 1), dilations=(1, 3), pads=(2, 0, 1, 3), offset_scale=1.5),
    _case("remove_center", remove_center=1),
    _case("remove_center_even", kernel_shape=(4, 4), remove_center=1),
    _case("remove_center_nonsquare", kernel_shape=(3, 5), remove_center=1, pads=(1, 2, 1, 2)),
    _case("offset_scale_half", offset_scale=0.5, why="the scale stretches the window too"),
    _case("channels_1", groups=5, channels=1),
    _case("channels_3", channels=3, why="no 16-byte packets"),
    _case("channels_16", channels=16, why="the original's smallest"),
    _case("channels_24", groups=3, channels=24),
    _case("batch_0", size=(0, 6, 7)),
    _case("batch_2_odd_pixels", size=(2, 5, 7), groups=1, channels=16, why="the original mixes images where blocks straddle them"),
    _case("batch_37", size=(37, 3, 3), groups=1, channels=4, why="likewise"),
    _case("height_1", size=(2, 1, 9)),
    _case("width_1", size=(2, 9, 1)),
    _case("pixel_1x1", size=(3, 1, 1)),
    _case("integer_offsets", offset=choice(-3.0, -1.0, 0.0, 1.0, 2.0), why="weights of exactly 0 and 1"),
    _case("half_offsets", size=(1, 5, 4), offset=choice(*BORDER_STEPS), why="exactly on -1, -0.5, 0, H-1, H-0.5, H"),
    _case("huge_offsets", offset=choice(-1e30, -3e9, -2147483648.0, 0.5, 2147483648.0, 1e30), why="float to int overflow"),
    _case("non_finite_offsets", offset=choice(float("nan"), float("inf"), float("-inf"), 0.25)),
    _case("mask_any_sign", mask=choice(-2.0, 0.0, 3.0), why="a mask is not always a softmax"),
    _case("nan_pixel", image=nan_pixel, offset=spread(0.3), why="a NaN may reach only the outputs it is a corner of"),
    _case("wide_image", size=(1, 2, 900), groups=1, channels=4, why="coordinates in float32 lose 1.5e-5 here, in half far more"),
)
