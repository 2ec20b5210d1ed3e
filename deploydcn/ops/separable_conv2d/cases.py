"""Conformance rows of SeparableConv2d."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deploydcn.ops.case import Case, Fill
from deploydcn.ops.fills import spread


def _case(
    name: str,
    *,
    x: tuple[int, int, int, int] = (2, 8, 9, 10),
    multiplier: int = 1,
    m: int = 12,
    kernel: tuple[int, int] = (3, 3),
    biases: tuple[bool, bool] = (True, True),
    fills: Mapping[str, Fill] | None = None,
    why: str = "",
    **attributes: Any,
) -> Case:
    """multiplier: D / C. biases: whether the depthwise and the pointwise one are there."""
    d = x[1] * multiplier
    shapes: dict[str, tuple[int, ...]] = {"X": x, "depthwise_W": (d, 1, *kernel), "pointwise_W": (m, d, 1, 1)}
    shapes |= {"depthwise_B": (d,)} if biases[0] else {}
    shapes |= {"pointwise_B": (m,)} if biases[1] else {}
    return Case(name, shapes, {"pads": (1, 1, 1, 1), **attributes}, fills or {}, why)


def far_below_zero(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Values whose exponential overflows, beside ordinary ones."""
    return rng.choice(np.array([-2e3, -300.0, -90.0, -1.0, 2.0]), shape)


CASES: tuple[Case, ...] = (
    _case("both_biases"),
    _case("no_biases", biases=(False, False)),
    _case("depthwise_bias", biases=(True, False)),
    _case("pointwise_bias", biases=(False, True), why="a hole in the input list"),
    _case("relu_between", depthwise_activation="relu"),
    _case("relu6_between_silu_after", depthwise_activation="relu6", activation="silu"),
    _case("silu_between_relu_after", depthwise_activation="silu", activation="relu"),
    _case("relu6_after", fills={"pointwise_W": spread(0.25)}, activation="relu6", why="outputs on either side of 6"),
    _case("silu_far_below_zero", fills={"X": far_below_zero}, depthwise_activation="silu", activation="silu"),
    _case("multiplier_2", multiplier=2, depthwise_activation="relu", why="result d reads channel d // 2"),
    _case("multiplier_3", x=(1, 5, 7, 6), multiplier=3, m=7),
    _case("multiplier_16", x=(1, 3, 7, 6), multiplier=16, m=5),
    _case("one_channel", x=(1, 1, 7, 6), m=3),
    _case("one_channel_multiplier_8", x=(1, 1, 7, 6), multiplier=8, m=3),
    _case("one_output", m=1),
    _case("as_many_outputs_as_channels", m=8),
    _case("awkward_channels", x=(1, 13, 7, 6), m=11),
    _case("wide", x=(1, 70, 6, 7), m=45, depthwise_activation="relu", why="several channel and output blocks, the last ones partial"),
    _case("wider", x=(1, 130, 4, 5), m=140),
    _case("asym_kernel", kernel=(3, 2), why="h and w swapped"),
    _case("kernel_5x5", kernel=(5, 5), pads=(2, 2, 2, 2)),
    _case("kernel_1x1", kernel=(1, 1), pads=(0, 0, 0, 0)),
    _case("stride_2", strides=(2, 2)),
    _case("dilated", dilations=(2, 3), pads=(2, 3, 2, 3)),
    _case("asym_all", kernel=(3, 2), strides=(2, 1), dilations=(1, 3), pads=(2, 0, 1, 3)),
    _case("four_pads", pads=(0, 1, 2, 3)),
    _case("pads_larger_than_kernel", pads=(5, 4, 3, 6), why="outputs of the biases alone"),
    _case("height_1", x=(2, 8, 1, 13)),
    _case("width_1", x=(2, 8, 11, 1)),
    _case("batch_0", x=(0, 8, 9, 10)),
    _case("batch_37", x=(37, 4, 4, 5), m=3),
)
