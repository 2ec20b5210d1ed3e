"""Conformance rows of GroupedConv2d."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deploydcn.ops.case import Case, Fill


def _case(
    name: str,
    *,
    x: tuple[int, int, int, int] = (2, 8, 11, 13),
    m: int = 8,
    kernel: tuple[int, int] = (3, 3),
    bias: bool = True,
    why: str = "",
    fills: Mapping[str, Fill] | None = None,
    **attributes: Any,
) -> Case:
    attributes = {"pads": (1, 1, 1, 1), "group": 2, **attributes}
    weight = (m, x[1] // attributes["group"], *kernel)
    return Case(name, {"X": x, "W": weight, **({"B": (m,)} if bias else {})}, attributes, fills or {}, why)


def far_below_zero(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Values whose exponential overflows, beside ordinary ones: silu must come out as zero there."""
    return rng.choice(np.array([-2e3, -300.0, -90.0, -1.0, 2.0]), shape)


CASES: tuple[Case, ...] = (
    _case("groups_2"),
    _case("no_bias", bias=False),
    _case("dense", group=1),
    _case("groups_4", group=4),
    _case("groups_of_8", x=(1, 64, 9, 7), group=8, m=64, why="ResNeXt"),
    _case("groups_3_of_20", x=(1, 60, 9, 7), group=3, m=57),
    _case("depthwise", group=8),
    _case("depthwise_multiplier", group=8, m=24),
    _case("depthwise_wide", x=(1, 80, 12, 9), group=80, m=80),
    _case("depthwise_5x5", group=8, kernel=(5, 5), pads=(2, 2, 2, 2)),
    _case("depthwise_7x7_stride_2", group=8, kernel=(7, 7), pads=(3, 3, 3, 3), strides=(2, 2)),
    _case("depthwise_dilated", group=8, dilations=(2, 3), pads=(2, 3, 2, 3)),
    _case("asym_kernel", kernel=(3, 2), why="h and w swapped"),
    _case("kernel_1x1", kernel=(1, 1), pads=(0, 0, 0, 0)),
    _case("asym_all", kernel=(3, 2), strides=(2, 1), dilations=(1, 3), pads=(2, 0, 1, 3)),
    _case("four_pads", pads=(0, 1, 2, 3)),
    _case("no_pads", pads=(0, 0, 0, 0)),
    _case("pads_larger_than_kernel", pads=(5, 4, 3, 6)),
    _case("awkward_channels", x=(1, 15, 9, 8), m=9, group=3),
    _case("batch_0", x=(0, 8, 11, 13)),
    _case("batch_37", x=(37, 4, 5, 6)),
    _case("height_1", x=(2, 8, 1, 13)),
    _case("width_1", x=(2, 8, 11, 1)),
    _case("relu", activation="relu"),
    _case("relu6", activation="relu6"),
    _case("silu", activation="silu"),
    _case("depthwise_silu", group=8, activation="silu"),
    _case("silu_far_below_zero", group=1, kernel=(1, 1), pads=(0, 0, 0, 0), activation="silu", fills={"X": far_below_zero}),
    _case("one_channel_many_outputs", x=(1, 1, 9, 8), m=40, group=1, why="groups = channels, but not depthwise"),
    _case("depthwise_large", x=(1, 4, 21, 23), m=4, group=4, why="two rows at a time, the last one alone"),
    _case("depthwise_large_5x4", x=(1, 3, 24, 21), m=3, group=3, kernel=(5, 4), pads=(3, 0, 1, 4), activation="relu"),
    _case("depthwise_large_dilated", x=(1, 2, 25, 24), m=2, group=2, kernel=(3, 3), dilations=(3, 2), pads=(3, 2, 3, 2)),
    _case("depthwise_large_stride_2", x=(1, 2, 45, 44), m=2, group=2, kernel=(3, 5), strides=(2, 2), pads=(1, 2, 1, 2)),
    _case("depthwise_large_stride_3", x=(1, 2, 61, 64), m=2, group=2, strides=(3, 3), dilations=(2, 4), pads=(2, 1, 0, 4)),
    _case("stride_beyond_kernel", x=(1, 4, 25, 26), strides=(4, 5), pads=(0, 0, 0, 0)),
    _case("depthwise_multiplier_16", x=(1, 3, 9, 8), m=48, group=3),
)
