"""Conformance rows of QLinearDeformConv2d: DeformConv2d's axes, and those of 8-bit integers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from deploydcn.ops.case import Case, Fill
from deploydcn.ops.fills import BORDER_STEPS, any_byte, choice, half_mask, integers, spread
from deploydcn.ops.qlinear_deform_conv2d.spec import SPEC

OUTPUT_SCALE = 0.05
"""The real value of one unit of Y: relu6's limit lies inside the range."""


def scale_of_input(products: int) -> float:
    """An x_scale with which a sum of so many products of bytes uses Y's range, beside weights' scales of about 0.01.

    A sample that is rounded to the other neighbour changes Y by at most 127/160 of a unit (weights have at most 127): the tolerance
    of one unit allows for that.
    """
    return OUTPUT_SCALE / (0.01 * max(160.0, 58.0 * math.sqrt(products)))


def largest_bias(products: int) -> int:
    """Biases up to this size move a sum of so many products by its own spread."""
    return int(3000 * math.sqrt(products))


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
    zero_points: tuple[int, int] = (70, 60),
    why: str = "",
    fills: dict[str, Fill] | None = None,
    **attributes: Any,
) -> Case:
    """Shapes of every input from those of X and the kernel. zero_points: of X and Y, as bytes: 255 is -1 in int8."""
    attributes = {"pads": (1, 1, 1, 1), **attributes}
    groups, offset_groups = attributes.get("group", 1), attributes.get("offset_group", 1)
    weight = (m, x[1] // groups, *kernel)
    n, _, oh, ow = SPEC.output_shapes({"X": x, "W": weight}, attributes)[0]
    taps = kernel[0] * kernel[1] * offset_groups
    shapes: dict[str, tuple[int, ...]] = {
        **{"X": x, "x_scale": (), "x_zero_point": (), "W": weight, "w_scale": (m,), "y_scale": (), "y_zero_point": ()},
        "offset": (n, 2 * taps, oh, ow),
        **({"B": (m,)} if bias else {}),
        **({"mask": (n, taps, oh, ow)} if mask else {}),
    }
    products = math.prod(weight[1:])
    drawn: dict[str, Fill] = {
        "X": any_byte,
        "x_scale": choice(scale_of_input(products)),
        "x_zero_point": _byte(zero_points[0]),
        "W": integers(-127, 127),
        "w_scale": lambda rng, shape: rng.uniform(0.005, 0.015, shape),
        "y_scale": choice(OUTPUT_SCALE),
        "y_zero_point": _byte(zero_points[1]),
        "offset": offset or spread(2.0),
        "B": integers(-largest_bias(products), largest_bias(products)),
        "mask": mask_fill,
    }
    return Case(name, shapes, attributes, drawn | (fills or {}), why)


def _byte(value: int) -> Fill:
    return lambda _, shape: np.full(shape, value)


CASES: tuple[Case, ...] = (
    _case("v2_bias"),
    _case("v2_no_bias", bias=False, why="mask without bias leaves a hole in the input list"),
    _case("v1_bias", mask=False),
    _case("v1_no_bias", mask=False, bias=False),
    _case("zero_points_lowest", zero_points=(0, 0), why="after a relu; uint8 has no negative samples"),
    _case("zero_points_highest", zero_points=(255, 255), why="xc and samples reach -255, which is no int8"),
    _case("zero_points_lowest_int8", zero_points=(128, 128), why="-128 in int8: xc reaches 255"),
    _case("zero_points_highest_int8", zero_points=(127, 127), why="the middle of uint8, and int8's last value"),
    _case("extreme_bytes", fills={"X": choice(0, 255, 127, 128), "W": choice(-127, 127)}, why="pairs of products beyond int16"),
    _case("weight_minus_128", fills={"W": choice(-128, 127)}, why="-128 has no negative in int8"),
    _case("saturated", fills={"B": choice(-(10**6), 10**6)}, why="both ends of Y's range"),
    _case("largest_bias", fills={"B": choice(-(2**31), 2**31 - 1)}, why="acc is wider than 32 bits"),
    _case("mask_large", mask_fill=choice(-2.0, 3.0), why="samples saturate"),
    _case("mask_zero", mask_fill=choice(0.0)),
    _case("mask_not_finite", mask_fill=choice(float("nan"), float("inf"), float("-inf"), 0.75), why="such a sample is 0"),
    _case("halves", x=(2, 8, 7, 9), mask_fill=choice(0.5, 1.0), offset=choice(-0.5, 0.0, 0.5, 1.5), why="ties go to even integers"),
    _case("dead_channel", fills={"w_scale": choice(0.0, 0.01)}, why="a weight of zeros may be given a scale of 0"),
    _case("asym_kernel", kernel=(3, 2), why="h and w swapped"),
    _case("kernel_1x1", kernel=(1, 1), pads=(0, 0, 0, 0)),
    _case("kernel_7x7", kernel=(7, 7), pads=(3, 3, 3, 3), why="more taps than one block"),
    _case("asym_all", kernel=(3, 2), strides=(2, 1), dilations=(1, 3), pads=(2, 0, 1, 3)),
    _case("stride_3", strides=(3, 3)),
    _case("groups_2", group=2),
    _case("offset_groups_4", offset_group=4),
    _case("groups_2_offset_groups_4", group=2, offset_group=4, why="offset groups restarted in every group"),
    _case("groups_3_offset_groups_2", x=(1, 12, 9, 8), group=3, offset_group=2, why="group borders that do not nest"),
    _case("depthwise", group=8, m=8),
    _case("depthwise_wide", x=(1, 80, 7, 9), group=80, m=80),
    _case("groups_of_8", x=(1, 64, 9, 7), group=8, m=64, why="ResNeXt"),
    _case("awkward_channels", x=(1, 5, 9, 8), m=7, why="neither four nor eight products fit evenly"),
    _case("wide", x=(1, 70, 10, 9), m=45, why="several channel and output blocks, the last ones partial"),
    _case("wider", x=(2, 130, 17, 16), m=100, offset_group=2),
    _case("one_channel", x=(1, 1, 9, 9), m=1),
    _case("batch_0", x=(0, 8, 11, 13)),
    _case("batch_37", x=(37, 4, 5, 6), why="more than the usual im2col step of 32, and prime"),
    _case("height_1", x=(2, 8, 1, 13)),
    _case("pixel_1x1", x=(1, 8, 1, 1)),
    _case("zero_offsets", offset=choice(0.0), why="must equal QLinearConv"),
    _case("border_offsets", x=(1, 4, 5, 4), offset=choice(*BORDER_STEPS), why="exactly on -1, -0.5, 0, H-1, H-0.5, H"),
    _case("outside", offset=choice(-40.0, -17.5, 30.25, 55.0), why="outside is the zero point, not the byte 0"),
    _case("huge_offsets", offset=choice(-1e30, -3e9, -2147483648.0, 0.5, 2147483648.0, 1e30), why="float to int overflow"),
    _case("non_finite_offsets", offset=choice(float("nan"), float("inf"), float("-inf"), 0.25)),
    _case("wide_image", x=(1, 4, 3, 900), m=4, why="coordinates in float32 lose 1.5e-5 here"),
    _case("relu", activation="relu", zero_points=(70, 0)),
    _case("relu6", activation="relu6", zero_points=(70, 3)),
    _case("silu", activation="silu"),
)
