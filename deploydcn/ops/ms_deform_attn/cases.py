"""Conformance rows of MSDeformAttn: every way in which an implementation could be wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deploydcn.ops.case import Case, Fill, normal
from deploydcn.ops.fills import choice

Sizes = Sequence[tuple[int, int]]

PYRAMID: Sizes = ((6, 8), (3, 4), (2, 2))
# Powers of two: locations on multiples of half a pixel are exact in every type.
SMALL: Sizes = ((4, 8), (2, 4))


def _uniform(low: float, high: float) -> Fill:
    return lambda rng, shape: rng.uniform(low, high, shape)


def _table(rows: Sequence[object]) -> Fill:
    return lambda rng, shape: np.array(rows, np.int64).reshape(shape)


def _attention(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Weights that sum to 1 over the levels and points of a head, as after a softmax."""
    logits = np.exp(rng.standard_normal(shape))
    return np.asarray(logits / logits.sum(axis=(3, 4), keepdims=True))


def _on_borders(levels: Sizes) -> Fill:
    """Locations that land on multiples of half a pixel, from two pixels outside to two pixels outside."""
    sizes = np.array(levels)[:, None, ::-1]  # (x, y)
    return lambda rng, shape: rng.integers(-4, 2 * sizes + 5, shape) / (2 * sizes)


def _nan_pixels(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    value = rng.standard_normal(shape)
    value[:, [0, 20]] = np.nan
    return value


def _case(
    name: str,
    *,
    levels: Sizes = PYRAMID,
    n: int = 2,
    queries: int = 7,
    heads: int = 2,
    channels: int = 8,
    points: int = 4,
    starts: Sequence[int] | None = None,
    pixels: int | None = None,
    value: Fill = normal,
    locations: Fill | None = None,
    weights: Fill = _attention,
    why: str = "",
) -> Case:
    """starts: one level behind the other when None. pixels: of value, as many as the levels reach when None."""
    counts = [height * width for height, width in levels]
    begins = [sum(counts[:level]) for level in range(len(levels))] if starts is None else starts
    end = max(start + count for start, count in zip(begins, counts, strict=True))
    points_shape = (n, queries, heads, len(levels), points)
    shapes = {
        "value": (n, pixels or end, heads, channels),
        "spatial_shapes": (len(levels), 2),
        "level_start_index": (len(levels),),
        "sampling_locations": (*points_shape, 2),
        "attention_weights": points_shape,
    }
    fills = {
        "value": value,
        "spatial_shapes": _table(levels),
        "level_start_index": _table(begins),
        "sampling_locations": locations or _uniform(-0.1, 1.1),
        "attention_weights": weights,
    }
    return Case(name, shapes, {}, fills, why)


CASES: tuple[Case, ...] = (
    _case("default"),
    _case("one_level", levels=((5, 7),)),
    _case("one_point", points=1),
    _case("one_head", heads=1),
    _case("height_and_width", levels=((2, 13), (13, 2)), why="(height, width) of shapes, (x, y) of locations"),
    _case("many_levels_and_points", levels=((5, 6), (4, 5), (3, 4), (2, 3), (1, 2)), points=9, why="45 points per head"),
    _case("level_1x1", levels=((1, 1), (1, 9), (9, 1)), why="one pixel still interpolates towards the zeros around it"),
    _case("very_different_levels", levels=((1, 1), (30, 40), (2, 3)), n=1, heads=1),
    _case("levels_out_of_order", starts=(16, 0, 12), why="level_start_index, not the sum of the sizes before"),
    _case("levels_overlap", starts=(0, 5, 0), why="levels may share pixels"),
    _case("pixels_left_over", starts=(3, 60, 55), pixels=80, why="pixels of no level before, between and behind"),
    _case("channels_1", channels=1),
    _case("channels_3", channels=3, why="no 16-byte packets"),
    _case("channels_4", channels=4, why="packets of float32 only"),
    _case("channels_16", channels=16),
    _case("channels_24", channels=24, heads=3),
    _case("channels_32", channels=32, heads=3, why="Deformable DETR"),
    _case("channels_37", channels=37, n=1, why="vectors of every length in turn"),
    _case("many_heads", heads=16, channels=4, n=1),
    _case("one_query", queries=1),
    _case("no_queries", queries=0),
    _case("batch_0", n=0),
    _case("batch_37", n=37, queries=2, channels=4, levels=((2, 3), (1, 2))),
    _case("many_queries", queries=61, heads=1, why="prime, more than one block of threads"),
    _case("weights_not_normal", weights=choice(-2.0, 0.0, 3.0), why="weights need not be positive, or sum to 1"),
    _case("on_borders", levels=SMALL, locations=_on_borders(SMALL), why="exactly on -1, -0.5, 0, H-1, H-0.5, H"),
    _case("corners", levels=SMALL, locations=choice(0.0, 1.0)),
    _case("centres", levels=SMALL, locations=choice(0.125, 0.375, 0.625, 0.875), why="weights of exactly 0 and 1 in places"),
    _case("outside", locations=choice(-5.0, -1.5, 2.5, 40.0), why="every sample outside"),
    _case("huge_locations", locations=choice(-1e30, -3e9, 0.5, 2147483648.0, 1e30, 3e38), why="float to int overflow, infinite products"),
    _case("non_finite_locations", locations=choice(float("nan"), float("inf"), float("-inf"), 0.25)),
    _case("just_outside", levels=SMALL, locations=choice(-0.125 - 1e-7, -0.125 + 1e-7, 1.125 - 1e-7, 1.125 + 1e-7, 0.3)),
    _case("nan_pixels", value=_nan_pixels, levels=((6, 8),), locations=_uniform(0.3, 0.9), why="may reach only what they are a corner of"),
    _case("wide_level", levels=((2, 900),), n=1, heads=1, queries=40, why="x * width in float32 loses 3e-5 of a pixel here"),
)
