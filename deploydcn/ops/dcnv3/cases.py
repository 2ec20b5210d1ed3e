"""Conformance rows of DCNv3: every way in which an implementation could be wrong."""

from __future__ import annotations

from typing import Any

from deploydcn.ops.case import Case, Fill, normal
from deploydcn.ops.dcnv3.spec import SPEC
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
    why: str = "",
    **attributes: Any,
) -> Case:
    """size: (N, H, W). channels: per group. The other shapes follow by the spec's own arithmetic."""
    attributes = {"pads": (1, 1, 1, 1), **attributes, "group": groups}
    shape = (*size, groups * channels)
    n, oh, ow, _ = SPEC.output_shapes({"input": shape}, attributes)[0]
    kernel = attributes.get("kernel_shape", (3, 3))
    points = groups * (kernel[0] * kernel[1] - attributes.get("remove_center", 0))
    shapes = {"input": shape, "offset": (n, oh, ow, 2 * points), "mask": (n, oh, ow, points)}
    return Case(name, shapes, attributes, {"input": image, "offset": offset or spread(2.0), "mask": mask}, why)


CASES: tuple[Case, ...] = (
    _case("default"),
    _case("one_group", groups=1),
    _case("asym_kernel", kernel_shape=(3, 2), why="taps run down the columns first"),
    _case("kernel_1x1", kernel_shape=(1, 1), pads=(0, 0, 0, 0)),
    _case("kernel_1x5", kernel_shape=(1, 5), pads=(0, 2, 0, 2)),
    _case("kernel_5x5", kernel_shape=(5, 5), pads=(2, 2, 2, 2)),
    _case("even_kernel", kernel_shape=(2, 4), why="half the reach of an even kernel rounds down"),
    _case("even_kernel_odd_dilation", kernel_shape=(4, 2), dilations=(1, 3), pads=(1, 2, 2, 1), why="(D*(K-1))//2 is not D*((K-1)//2)"),
    _case("asym_stride", strides=(2, 1)),
    _case("stride_3", strides=(3, 3)),
    _case("asym_dilation", dilations=(1, 2), pads=(1, 2, 1, 2)),
    _case("pads_differ_by_axis", pads=(2, 0, 2, 0), why="the published PyTorch version raises or is silently wrong"),
    _case("four_pads", pads=(0, 1, 2, 3), why="ONNX pads are top, left, bottom, right"),
    _case("no_pads", pads=(0, 0, 0, 0)),
    _case("asym_all", kernel_shape=(3, 2), strides=(2, 1), dilations=(1, 3), pads=(2, 0, 1, 3), offset_scale=1.5),
    _case("remove_center", remove_center=1),
    _case("remove_center_even", kernel_shape=(4, 4), remove_center=1, why="the tap left out is (KH//2, KW//2)"),
    _case("remove_center_nonsquare", kernel_shape=(3, 5), remove_center=1, pads=(1, 2, 1, 2)),
    _case("remove_center_2x1", kernel_shape=(2, 1), remove_center=1, why="the tap left out is the last"),
    _case(
        "remove_center_all", kernel_shape=(5, 3), strides=(1, 2), dilations=(2, 1), pads=(4, 0, 3, 1), remove_center=1, offset_scale=0.75
    ),
    _case("offset_scale_half", offset_scale=0.5, why="the scale stretches the window too"),
    _case("offset_scale_2", offset_scale=2.0),
    _case("channels_1", groups=5, channels=1),
    _case("channels_3", channels=3, why="no 16-byte packets"),
    _case("channels_4", groups=3, channels=4, why="packets of float32 only"),
    _case("channels_16", channels=16, why="InternImage"),
    _case("channels_24", channels=24),
    _case("channels_37", size=(1, 5, 4), channels=37, why="vectors of every length in turn"),
    _case("many_groups", size=(1, 5, 4), groups=12, channels=4),
    _case("batch_0", size=(0, 6, 7)),
    _case("batch_37", size=(37, 3, 4), groups=1, channels=4),
    _case("height_1", size=(2, 1, 9)),
    _case("width_1", size=(2, 9, 1)),
    _case("pixel_1x1", size=(1, 1, 1)),
    _case("input_smaller_than_kernel", size=(1, 2, 2), kernel_shape=(5, 5), pads=(2, 2, 2, 2)),
    _case("integer_offsets", offset=choice(-3.0, -1.0, 0.0, 1.0, 2.0), why="weights of exactly 0 and 1"),
    _case("half_offsets", size=(1, 5, 4), offset=choice(*BORDER_STEPS), why="exactly on -1, -0.5, 0, H-1, H-0.5, H"),
    _case("outside", offset=choice(-40.0, -17.5, 30.25, 55.0), why="every sample outside"),
    _case("huge_offsets", offset=choice(-1e30, -3e9, -2147483648.0, 0.5, 2147483648.0, 1e30), why="float to int overflow"),
    _case("non_finite_offsets", offset=choice(float("nan"), float("inf"), float("-inf"), 0.25)),
    _case("just_below_zero", size=(1, 5, 4), offset=choice(-1e-8, 1e-8, -1.0 - 1e-7, -1.0 + 1e-7), why="floor and fraction at an integer"),
    _case("mask_any_sign", mask=choice(-2.0, 0.0, 3.0), why="a mask is not always a softmax"),
    _case("nan_pixel", image=nan_pixel, offset=spread(0.3), why="a NaN may reach only the outputs it is a corner of"),
    _case("wide_image", size=(1, 2, 900), groups=1, channels=4, why="coordinates in float32 lose 1.5e-5 here, in half far more"),
)
