"""Conformance rows of DeformRoIPool."""

from __future__ import annotations

from typing import Any

import numpy as np

from deploydcn.ops.case import Case, Fill, normal
from deploydcn.ops.fills import alike, choice, spread
from deploydcn.ops.rois import boxes, rows_of

SIZE = (2, 3, 9, 11)  # N, C, H, W; boxes are drawn in units of spatial_scale 0.25


MOVES = spread(1.0)


def _case(
    name: str,
    *,
    size: tuple[int, int, int, int] = SIZE,
    count: int = 5,
    pooled: tuple[int, int] = (2, 3),
    image: Fill = normal,
    rois: Fill | None = None,
    offset: Fill | None = MOVES,
    why: str = "",
    **attributes: Any,
) -> Case:
    """offset: how it is drawn; None leaves it out."""
    attributes = {"output_height": pooled[0], "output_width": pooled[1], "spatial_scale": 0.25, **attributes}
    shapes: dict[str, tuple[int, ...]] = {"input": size, "rois": (count, 5)}
    fills = {"input": image, "rois": rois or boxes(size[0], *size[2:])}
    if offset is not None:
        shapes["offset"], fills["offset"] = (count, 2, *pooled), offset
    return Case(name, shapes, attributes, fills, why)


NAN, INF = float("nan"), float("inf")

# With spatial_scale 1 and one sample per bin of a box (x, y, x, y): a sample at x - 0.5, y - 0.5.
BORDERS = tuple((0.0, x, y, x, y) for x in (-0.75, -0.5, -0.25, 0.5, 11.25, 11.5, 11.75) for y in (-0.5, 3.0, 9.5, 9.75))

CASES: tuple[Case, ...] = (
    _case("offsets"),
    _case("no_offsets", offset=None),
    _case("ratio_1", sampling_ratio=1),
    _case("ratio_2", sampling_ratio=2),
    _case("ratio_3_no_offsets", sampling_ratio=3, offset=None),
    _case(
        "many_samples",
        size=(1, 1, 9, 11),
        count=1,
        pooled=(1, 1),
        image=alike,
        rois=rows_of((0, 4, 4, 30, 30)),
        offset=None,
        sampling_ratio=255,
        why="65025 samples: a single sum in float32 is off by 3e-4",
    ),
    _case("no_boxes", count=0, why="a detector that proposes nothing"),
    _case("no_boxes_no_images", size=(0, 3, 9, 11), count=0, rois=boxes(1, 9, 11)),
    _case("one_box", count=1),
    _case("many_boxes", count=37, size=(3, 2, 6, 7), pooled=(1, 2), why="images in mixed order, more boxes than a warp"),
    _case("one_bin", pooled=(1, 1), why="pools the whole box: the largest grids"),
    _case("seven_by_seven", pooled=(7, 7), count=2),
    _case("wide_bins", pooled=(1, 5)),
    _case("tall_bins", pooled=(4, 1)),
    _case("more_bins_than_pixels", size=(1, 2, 3, 4), pooled=(9, 8), count=2),
    _case("scale_1", rois=boxes(2, 9, 11, 1.0), spatial_scale=1.0),
    _case("scale_1_16th", rois=boxes(2, 9, 11, 0.0625), spatial_scale=0.0625),
    _case("scale_third", rois=boxes(2, 9, 11, 0.3), spatial_scale=0.3, why="a scale that float32 does not hold"),
    _case("gamma_1", gamma=1.0),
    _case("gamma_0", gamma=0.0),
    _case("negative_gamma", gamma=-0.7),
    _case("infinite_gamma", gamma=INF, offset=None, why="an absent offset is one of 0: its move, 0 * infinity, is no position"),
    _case("large_offsets", offset=spread(30.0), why="bins far outside the image"),
    _case("offset_order", offset=lambda rng, shape: np.arange(np.prod(shape)).reshape(shape) * 0.3, why="x before y"),
    _case("non_finite_offsets", offset=choice(NAN, INF, -INF, 1e30, 0.5), why="no position, no sample"),
    _case("one_channel", size=(2, 1, 9, 11)),
    _case("many_channels", size=(1, 70, 4, 5), pooled=(1, 2), count=2, why="several channel blocks, the last one partial"),
    _case("height_1", size=(2, 3, 1, 11)),
    _case("width_1", size=(2, 3, 9, 1)),
    _case("pixel_1x1", size=(2, 3, 1, 1), sampling_ratio=2),
    _case("borders", size=(1, 2, 9, 11), count=28, pooled=(1, 1), rois=rows_of(*BORDERS), offset=None, spatial_scale=1.0, sampling_ratio=1),
    _case(
        "degenerate",
        rois=rows_of((1, 8, 8, 8, 20), (0, 8, 8, 20, 8), (1, 20, 20, 8, 8), (0, 20, 4, 8, 24), (1, 4, 4, 30, 30)),
        why="zero area, inverted, and a sound box behind them",
    ),
    _case(
        "degenerate_ratio_2",
        rois=rows_of((1, 8, 8, 8, 20), (0, 8, 8, 20, 8), (1, 20, 20, 8, 8), (0, 20, 4, 8, 24), (1, 4, 4, 30, 30)),
        sampling_ratio=2,
        why="with a fixed ratio inverted and empty boxes are sampled",
    ),
    _case("outside", rois=rows_of((0, 60, 60, 90, 90), (1, -90, 0, -30, 20), (1, 0, 40, 30, 80))),
    _case(
        "non_finite_boxes",
        rois=rows_of((0, NAN, 0, 9, 9), (1, 0, 0, INF, 9), (0, 0, -INF, 9, 9), (1, INF, INF, INF, INF), (0, 2, 2, 40, 30)),
        offset=None,
    ),
    _case(
        "huge_boxes",
        count=7,
        pooled=(2, 1),
        rois=rows_of(
            (0, -4e4, -4e4, 4e4, 4e4),
            (1, 0, 0, 3e5, 9),
            (0, -1e9, 4, 1e9, 20),
            (1, -2e9, -1e9, 1e9, 2e9),
            (0, -1e30, -1e30, 1e30, 1e30),
            (1, 1e9, 0, -1e9, 20),
            (0, 2, 2, 30, 30),
        ),
        offset=None,
        why="grids of billions of samples: at most 65536 per axis, and only those inside cost time",
    ),
    _case("fractional_batch_index", rois=rows_of((0.75, 2, 2, 30, 30), (1.5, 2, 2, 30, 30), (-0.25, 0, 0, 20, 20)), why="cut, not rounded"),
)
