"""Conformance rows of DeformPSRoIPool."""

from __future__ import annotations

from typing import Any

import numpy as np

from deploydcn.ops.case import Case, Fill, normal
from deploydcn.ops.fills import alike, choice, spread
from deploydcn.ops.rois import boxes, rows_of

NAN, INF = float("nan"), float("inf")


MOVES = spread(1.0)


def _case(
    name: str,
    *,
    images: tuple[int, int, int] = (2, 9, 11),
    count: int = 4,
    dim: int = 2,
    group: int = 1,
    pooled: int = 3,
    part: int | None = None,
    classes: int = 1,
    image: Fill = normal,
    rois: Fill | None = None,
    offset: Fill | None = MOVES,
    why: str = "",
    **attributes: Any,
) -> Case:
    """images: (N, H, W). offset: how it is drawn; None leaves it out."""
    part = pooled if part is None else part
    sizes = {"output_dim": dim, "group_size": group, "pooled_size": pooled, "part_size": part, "classes": classes}
    attributes = {"spatial_scale": 0.25, "sample_per_part": 2, "trans_std": 0.1, **sizes, **attributes}
    n, height, width = images
    shapes: dict[str, tuple[int, ...]] = {"input": (n, dim * group * group, height, width), "rois": (count, 5)}
    fills = {"input": image, "rois": rois or boxes(n, height, width)}
    if offset is not None:
        shapes["offset"], fills["offset"] = (count, 2 * classes, part, part), offset
    return Case(name, shapes, attributes, fills, why)


# With spatial_scale 1, one bin and one sample per part: a sample at x - 0.5, y - 0.5.
BORDERS = tuple((0.0, x, y, x + 2, y + 2) for x in (-1.0, 0.0, 1.0, 10.0, 11.0, 12.0) for y in (-1.0, 0.0, 5.0, 9.0, 10.0))

CASES: tuple[Case, ...] = (
    _case("offsets"),
    _case("no_offsets", offset=None),
    _case("groups_2", group=2, pooled=2),
    _case("groups_3", group=3, sample_per_part=3),
    _case("groups_2_of_5_bins", group=2, pooled=5, part=3, why="bins that do not divide into groups or parts"),
    _case("groups_7_one_part", group=7, pooled=7, part=1, dim=1, count=2),
    _case("more_groups_than_bins", group=3, pooled=2),
    _case("more_parts_than_bins", pooled=2, part=7),
    _case("one_bin", pooled=1),
    _case("two_classes", dim=4, classes=2),
    _case("three_classes_groups_2", dim=3, classes=3, group=2, pooled=2),
    _case("class_order", dim=4, classes=2, offset=lambda rng, shape: np.arange(np.prod(shape)).reshape(shape) * 0.2, why="x before y"),
    _case("parts_23", images=(1, 5, 6), count=1, dim=1, pooled=23, sample_per_part=1, why="floor(7/23*23) is 6 in float32"),
    _case("one_sample", sample_per_part=1),
    _case("four_samples", sample_per_part=4),
    _case("five_samples", sample_per_part=5, why="sub-bins that float32 does not hold"),
    _case("scale_1", rois=boxes(2, 9, 11, 1.0), spatial_scale=1.0),
    _case("scale_1_16th", rois=boxes(2, 9, 11, 0.0625), spatial_scale=0.0625),
    _case("scale_third", rois=boxes(2, 9, 11, 0.3), spatial_scale=0.3),
    _case("trans_std_0", trans_std=0.0),
    _case("trans_std_2", trans_std=2.0, why="bins far outside: samples that do not count"),
    _case("negative_trans_std", trans_std=-0.3),
    _case("non_finite_offsets", offset=choice(NAN, INF, -INF, 1e30, 0.5)),
    _case(
        "many_samples",
        images=(1, 9, 11),
        count=1,
        dim=1,
        pooled=1,
        image=alike,
        rois=rows_of((0, 4, 4, 30, 30)),
        offset=None,
        sample_per_part=255,
        why="65025 samples: a single sum in float32 is off by 3e-4",
    ),
    _case("no_boxes", count=0),
    _case("no_boxes_no_images", images=(0, 9, 11), count=0, rois=boxes(1, 9, 11)),
    _case("many_boxes", images=(3, 6, 7), count=37, pooled=2, dim=1, why="images in mixed order, more boxes than a warp"),
    _case("many_channels", images=(1, 4, 5), dim=70, pooled=1, count=2),
    _case("height_1", images=(2, 1, 11)),
    _case("width_1", images=(2, 9, 1)),
    _case("pixel_1x1", images=(2, 1, 1)),
    _case("borders", images=(1, 9, 11), count=30, pooled=1, rois=rows_of(*BORDERS), offset=None, spatial_scale=1.0, sample_per_part=1),
    _case(
        "halves",
        rois=rows_of((1, 8.5, 7.5, 20.5, 21.5), (0, -0.5, -1.5, 12.5, 13.5), (0, 0.49999997, 2.5, 11.5, 14.49999905), (1, 3, 3, 19, 20)),
        why="C's round: halves away from zero",
    ),
    _case("degenerate", rois=rows_of((1, 8, 8, 8, 20), (0, 20, 20, 8, 8), (1, 20, 4, 8, 24), (0, 4, 4, 30, 30)), why="0.1 long at least"),
    _case("outside", rois=rows_of((0, 60, 60, 90, 90), (1, -90, 0, -30, 20), (1, 0, 40, 30, 80), (0, 0, 0, 30, 30))),
    _case(
        "non_finite_boxes",
        count=5,
        rois=rows_of((0, NAN, 0, 9, 9), (1, 0, 0, INF, 9), (0, 0, -INF, 9, 9), (1, 0, 0, NAN, 9), (0, 2, 2, 40, 30)),
        offset=None,
    ),
    _case("huge_boxes", rois=rows_of((0, -4e4, -4e4, 4e4, 4e4), (1, -2e9, -1e9, 1e9, 2e9), (0, -1e30, 0, 1e30, 20), (1, 2, 2, 40, 30))),
    _case("fractional_batch_index", rois=rows_of((0.75, 2, 2, 30, 30), (1.5, 2, 2, 30, 30), (-0.25, 0, 0, 20, 20))),
)
