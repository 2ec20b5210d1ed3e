"""What follows from the layers alone: points of points, statistics, and a stand-in for the receptive field."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from deploydcn.visual.layers import CONVOLUTIONS, Layer

MOST_LEVELS = 3
"""As in the figures of Dai et al. 2017 and Zhu et al. 2019: 9^3 = 729 points of three 3x3 layers."""

SMALL_MASK = 0.1


@dataclass(frozen=True)
class Trace:
    """Sampling points of one site through one more layer. y, x: pixels of the image, (n,). weight: product of the masks on the way and of
    the shares of their samples that lay inside; share: of the points' own. outside: how many points contribute nothing."""

    layer: str
    y: np.ndarray
    x: np.ndarray
    weight: np.ndarray
    share: np.ndarray

    @property
    def outside(self) -> int:
        return int(np.sum(self.share == 0))

    def to_json(self) -> dict[str, Any]:
        """Rounded to 1/1000; null where a number is not finite."""
        arrays = {name: getattr(self, name).round(3).tolist() for name in ("y", "x", "weight", "share")}
        plain = {name: [value if math.isfinite(value) else None for value in values] for name, values in arrays.items()}
        return {"layer": self.layer, **plain}


def trace(layers: Sequence[Layer], index: int, site: int, *, levels: int = MOST_LEVELS, group: int = 0) -> list[Trace]:
    """Sampling points of a site, then the points that these pixels of the layer before sample, and so on.

    A point becomes the nearest output pixel of the layer that the data comes from (`Layer.parent`), through the image: plain convolutions
    in between shift and scale, but their windows are not followed, as in the papers. Points outside a map sample zeros: they
    end there. Stops early where no deformable layer is left. group: of a layer with fewer, the one of this number modulo theirs.
    """
    layer = layers[index]
    result = [_points_of(layer, np.array([site]), np.ones(1), group)]
    while len(result) < levels and layer.parent is not None:
        layer, last = layers[layer.parent], result[-1]
        alive = last.share > 0
        position = layer.output_grid.from_image(last.y[alive], last.x[alive])
        # Half up, not half to even as np.rint: a page in a browser must find the same pixel.
        near = [np.clip(np.floor(at + 0.5), 0, size - 1).astype(int) for at, size in zip(position, layer.output_size, strict=True)]
        sites = near[0] * layer.output_size[1] + near[1]
        result.append(_points_of(layer, sites, (last.weight * last.share)[alive], group))
    return result


def _points_of(layer: Layer, sites: np.ndarray, weight: np.ndarray, group: int) -> Trace:
    own = group % layer.groups
    y, x = (at[sites, own].ravel() for at in layer.image_points())
    return Trace(layer.name, y, x, (weight[:, None] * layer.points.weight[sites, own]).ravel(), layer.points.share[sites, own].ravel())


def density(traces: Sequence[Trace], image_size: tuple[int, int], sigma: float) -> np.ndarray:
    """The weights of the last trace's points, smoothed by a Gaussian: (H, W), largest 1. Where no gradient can be had, this says where a
    site looks; it knows nothing of the plain convolutions in between."""
    last = traces[-1]
    kept = last.share > 0
    weight = np.nan_to_num(np.abs(last.weight * last.share)[kept])
    bells = [
        np.exp(-0.5 * ((np.arange(size)[:, None] - at[kept]) / sigma) ** 2) for size, at in zip(image_size, (last.y, last.x), strict=True)
    ]
    field = (bells[0] * weight) @ bells[1].T
    return np.asarray(field / max(float(field.max(initial=0)), 1e-30))


@dataclass(frozen=True)
class Statistics:
    """Of one layer on one image. Distances are those of `Points.distance`; shares are parts of all samples.

    outside: samples that fall outside of the map, which are 0. partly: between its border pixels and outside. small_masks: below
    SMALL_MASK; None without a mask. not_finite: offsets that are NaN or infinite, left out of the others.
    """

    mean_distance: float
    median_distance: float
    percentile_95: float
    largest_distance: float
    outside: float
    partly: float
    mean_mask: float | None
    small_masks: float | None
    not_finite: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def statistics(layer: Layer) -> Statistics:
    """Of all sites, groups and points."""
    distance, share = layer.points.distance, layer.points.share
    finite = distance[np.isfinite(distance)]
    distance_of = finite if finite.size else np.zeros(1)
    masked = layer.operator not in CONVOLUTIONS or "mask" in layer.shapes
    middle, high = np.percentile(distance_of, (50, 95))
    return Statistics(
        float(distance_of.mean()),
        float(middle),
        float(high),
        float(distance_of.max()),
        float(np.mean(share == 0)),
        float(np.mean((share > 0) & (share < 1))),
        float(np.nan_to_num(layer.points.weight).mean()) if masked else None,
        float(np.mean(layer.points.weight < SMALL_MASK)) if masked else None,
        int(distance.size - finite.size),
    )


@dataclass(frozen=True)
class HeatMap:
    """A number per site. values: (height, width), for attention (queries,)."""

    label: str
    values: np.ndarray


def heat_maps(layer: Layer) -> tuple[HeatMap, HeatMap]:
    """How far the points of every site are moved, and how their weights are spread."""
    distance, weight = layer.points.distance.mean((1, 2)), layer.points.weight
    where = "distance from the query's mean, px of the image" if layer.is_attention else "mean |offset|, px of the map"
    if layer.operator in CONVOLUTIONS:
        return HeatMap(where, distance.reshape(layer.output_size)), HeatMap("mean mask", weight.mean((1, 2)).reshape(layer.output_size))
    # Behind a softmax the mean is the same everywhere; the largest says whether a site looks at one point or at all.
    largest = weight.max(2).mean(1)
    return HeatMap(where, distance.reshape(layer.output_size)), HeatMap(
        "largest weight, mean of groups", largest.reshape(layer.output_size)
    )
