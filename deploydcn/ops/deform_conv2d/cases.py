"""Conformance rows of DeformConv2d: the axes that have exposed wrong results in published implementations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploydcn.ops.case import Case, Fill
from deploydcn.ops.deform_conv2d.spec import SPEC
from deploydcn.ops.fills import BORDER_STEPS, choice, half_mask, spread


def _case(
    name: str,
    *,
    x: tuple[int, int, int, int] = (2, 8, 11, 13),
    m: int = 6,
    kernel: tuple[int, int] = (3, 3),
    bias: bool = True,
    mask: bool = True,
    offset: Fill | None = None,
    mask_fill: Fill = half_mask,
    why: str = "",
    **attributes: Any,
) -> Case:
    """Shapes of every input from those of X and the kernel, by the spec's own arithmetic."""
    attributes = {"pads": (1, 1, 1, 1), **attributes}
    groups, offset_groups = attributes.get("group", 1), attributes.get("offset_group", 1)
    weight = (m, x[1] // groups, *kernel)
    n, _, oh, ow = SPEC.output_shapes({"X": x, "W": weight}, attributes)[0]
    taps = kernel[0] * kernel[1] * offset_groups
    shapes: Mapping[str, tuple[int, ...]] = {
        "X": x,
        "W": weight,
        "offset": (n, 2 * taps, oh, ow),
        **({"B": (m,)} if bias else {}),
        **({"mask": (n, taps, oh, ow)} if mask else {}),
    }
    return Case(name, shapes, attributes, {"offset": offset or spread(2.0), "mask": mask_fill}, why)


CASES: tuple[Case, ...] = (
    _case("v2_bias"),
    _case("v2_no_bias", bias=False, why="mask without bias leaves a hole in the input list"),
    _case("v1_bias", mask=False),
    _case("v1_no_bias", mask=False, bias=False),
    _case("asym_kernel", kernel=(3, 2), why="h and w swapped"),
    _case("kernel_1x5", kernel=(1, 5), pads=(0, 2, 0, 2)),
    _case("kernel_1x1", kernel=(1, 1), pads=(0, 0, 0, 0)),
    _case("kernel_7x7", kernel=(7, 7), pads=(3, 3, 3, 3), why="BiRefNet; more taps than one block"),
    _case("even_kernel", kernel=(2, 4)),
    _case("asym_stride", strides=(2, 1)),
    _case("stride_3", strides=(3, 3)),
    _case("asym_dilation", dilations=(1, 2), pads=(1, 2, 1, 2)),
    _case("four_pads", pads=(0, 1, 2, 3), why="ONNX pads are top, left, bottom, right"),
    _case("no_pads", pads=(0, 0, 0, 0)),
    _case("asym_all", kernel=(3, 2), strides=(2, 1), dilations=(1, 3), pads=(2, 0, 1, 3)),
    _case("groups_2", group=2),
    _case("offset_groups_2", offset_group=2),
    _case("groups_2_offset_groups_4", group=2, offset_group=4, why="offset groups restarted in every group"),
    _case("groups_4_offset_groups_2", group=4, m=8, offset_group=2),
    _case("groups_3_offset_groups_2", x=(1, 12, 9, 8), group=3, offset_group=2, why="group borders that do not nest"),
    _case("groups_6_offset_groups_4", x=(1, 12, 9, 8), group=6, offset_group=4),
    _case("depthwise", group=8, m=8),
    _case("depthwise_multiplier", group=8, m=24),
    _case("depthwise_offset_groups", group=8, m=8, offset_group=4),
    _case("depthwise_wide", x=(1, 80, 7, 9), group=80, m=80),
    _case("groups_of_8", x=(1, 64, 9, 7), group=8, m=64, why="ResNeXt"),
    _case("awkward_channels", x=(1, 5, 9, 8), m=7, why="(C/g)*K not divisible by 8"),
    _case("wide", x=(1, 70, 10, 9), m=45, why="several channel and output blocks, the last ones partial"),
    _case("wider", x=(2, 130, 17, 16), m=100, offset_group=2),
    _case("groups_of_32", x=(1, 96, 9, 8), group=3, m=96, offset_group=3, why="groups that fill a matrix tile"),
    _case("wide_groups", x=(1, 128, 7, 9), group=2, m=70, why="blocks of one group each, the last outputs missing"),
    _case("batch_0", x=(0, 8, 11, 13)),
    _case("batch_1", x=(1, 8, 11, 13)),
    _case("batch_37", x=(37, 4, 5, 6), why="more than the usual im2col step of 32, and prime"),
    _case("height_1", x=(2, 8, 1, 13), why="onnx's reference divides by H - 1"),
    _case("width_1", x=(2, 8, 11, 1)),
    _case("pixel_1x1", x=(1, 8, 1, 1)),
    _case("input_smaller_than_kernel", x=(1, 8, 2, 2), kernel=(5, 5), pads=(2, 2, 2, 2)),
    _case("zero_offsets", offset=choice(0.0), why="must equal the dense convolution"),
    _case("integer_offsets", offset=choice(-3.0, -1.0, 0.0, 1.0, 2.0), why="must equal a shifted dense convolution"),
    _case("half_offsets", x=(1, 4, 5, 4), offset=choice(*BORDER_STEPS), why="exactly on -1, -0.5, 0, H-1, H-0.5, H"),
    _case("outside", offset=choice(-40.0, -17.5, 30.25, 55.0), why="every sample outside"),
    _case("huge_offsets", offset=choice(-1e30, -3e9, -2147483648.0, 0.5, 2147483648.0, 1e30), why="float to int overflow"),
    _case("non_finite_offsets", offset=choice(float("nan"), float("inf"), float("-inf"), 0.25), why="torchvision reads out of bounds"),
    _case("just_below_zero", x=(1, 4, 5, 4), offset=choice(-1e-8, 1e-8, -1.0 - 1e-7, -1.0 + 1e-7), why="floor and fraction at an integer"),
    _case("mask_zero", mask_fill=choice(0.0)),
    _case("mask_large", mask_fill=choice(-2.0, 3.0), why="a mask is not always a sigmoid"),
    _case("wide_image", x=(1, 4, 3, 900), m=4, why="coordinates in float32 lose 1.5e-5 here, in half far more"),
    _case("relu", activation="relu"),
    _case("relu6", activation="relu6"),
    _case("silu", activation="silu"),
    _case("one_channel", x=(1, 1, 9, 9), m=1),
)
