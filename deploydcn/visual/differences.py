"""Do two runs of a model look at the same points? For reports of parity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploydcn.visual.layers import Layer


@dataclass(frozen=True)
class SamplingDifference:
    """One layer on both sides. largest: distance of the two positions of a point, in pixels of the image, over all of them; infinite where
    only one of them is finite. share: of points further apart than the tolerance. site: the output pixel or query where it is largest, as
    an index; pixel: the same as (y, x) or (query,). reference, candidate: (n, 2), the site's points of all groups, (y, x) in the image."""

    layer: str
    largest: float
    share: float
    site: int
    pixel: tuple[int, ...]
    reference: np.ndarray
    candidate: np.ndarray

    def to_json(self) -> dict[str, Any]:
        return {"layer": self.layer, "largest": self.largest, "share": self.share, "pixel": list(self.pixel)}


def sampling_differences(reference: Sequence[Layer], candidate: Sequence[Layer], *, tolerance: float = 0.1) -> list[SamplingDifference]:
    """Every layer that both sides have, by name, in the reference's order; those whose outputs have other sizes are left out.

    tolerance: pixels of the image, for `share`.
    """
    others = {layer.name: layer for layer in candidate}
    result = []
    for layer in reference:
        other = others.get(layer.name)
        if other is None or other.points.y.shape != layer.points.y.shape:
            continue
        mine, theirs = (np.stack(side.image_points(), -1) for side in (layer, other))
        with np.errstate(invalid="ignore"):
            apart = np.linalg.norm(mine - theirs, axis=-1)
        both_lost = ~np.isfinite(mine).all(-1) & ~np.isfinite(theirs).all(-1)
        apart = np.where(both_lost, 0.0, np.where(np.isfinite(apart), apart, np.inf))
        site = int(apart.max((1, 2)).argmax())
        pixel = tuple(map(int, np.unravel_index(site, layer.output_size)))
        points = (side[site].reshape(-1, 2) for side in (mine, theirs))
        result.append(SamplingDifference(layer.name, float(apart.max()), float(np.mean(apart > tolerance)), site, pixel, *points))
    return result
