"""Which pixel of the image does a pixel of a feature map look at?

A feature map's pixels lie on a regular grid over the image: image = scale * pixel + shift, for rows and columns apart, counted between
pixel centres. Every operator that keeps maps as maps moves that grid in a known way: a window's result lies at the window's middle, so
that three 3x3 windows of stride 2 and padding 1 give scale 8 and shift 0, while a patch embedding of 4x4 gives scale 4 and shift 1.5.
The ratio of sizes alone cannot tell these apart; it is used only where the way was lost, and then `exact` is False.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

Pair = tuple[float, float]
Size = tuple[int, int]


@dataclass(frozen=True)
class Grid:
    """Pixels of a feature map in pixels of the image, (y, x): image = scale * pixel + shift."""

    scale: Pair = (1.0, 1.0)
    shift: Pair = (0.0, 0.0)
    exact: bool = True

    @classmethod
    def from_sizes(cls, image: Size, size: Size) -> Grid:
        """Where only sizes are known: both cover the same area."""
        return replace(Grid().resized(image, size), exact=False)

    def to_image(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.scale[0] * y + self.shift[0], self.scale[1] * x + self.shift[1]

    def from_image(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (y - self.shift[0]) / self.scale[0], (x - self.shift[1]) / self.scale[1]

    def composed(self, factor: Sequence[float], start: Sequence[float]) -> Grid:
        """Of a map whose pixel o lies at pixel factor * o + start of this one."""
        scale = (self.scale[0] * factor[0], self.scale[1] * factor[1])
        shift = (self.shift[0] + self.scale[0] * start[0], self.shift[1] + self.scale[1] * start[1])
        return replace(self, scale=scale, shift=shift)

    def window(self, kernel: Sequence[int], stride: Sequence[int], begin: Sequence[int], dilation: Sequence[int]) -> Grid:
        """Of the result of a sliding window; begin: padding (top, left)."""
        return self.composed(stride, [d * (k - 1) / 2 - p for k, p, d in zip(kernel, begin, dilation, strict=True)])

    def transposed_window(self, kernel: Sequence[int], stride: Sequence[int], begin: Sequence[int], dilation: Sequence[int]) -> Grid:
        """Of the result of a transposed convolution: the inverse of `window`."""
        middles = [d * (k - 1) / 2 - p for k, p, d in zip(kernel, begin, dilation, strict=True)]
        return self.composed([1 / s for s in stride], [-middle / s for middle, s in zip(middles, stride, strict=True)])

    def resized(self, before: Size, after: Size, convention: str = "half_pixel") -> Grid:
        """Of a resampled map. convention: where its pixels lie, as ONNX Resize names it: half_pixel, align_corners or asymmetric."""
        if convention == "align_corners":
            return self.composed([(a - 1) / max(b - 1, 1) for a, b in zip(before, after, strict=True)], (0, 0))
        ratio = [a / b for a, b in zip(before, after, strict=True)]
        return self.composed(ratio, (0, 0) if convention == "asymmetric" else [(r - 1) / 2 for r in ratio])


LAYOUTS = ((-2, -1), (-3, -2))
"""Rows and columns of channels-first and channels-last maps, counted from the last axis."""


@dataclass(frozen=True)
class Trail:
    """What is known of a tensor. grid: None where its pixels' places are not known; size: (height, width) of the map; axes: its rows and
    columns, one of LAYOUTS, None while they are flattened; source: the last deformable layer on the way to it, None before the first."""

    grid: Grid | None = None
    size: Size = (0, 0)
    axes: tuple[int, int] | None = None
    source: int | None = None

    @property
    def is_map(self) -> bool:
        return self.grid is not None and self.axes is not None

    def permuted(self, order: Sequence[int]) -> Trail:
        """Behind a permutation of the axes."""
        rank = len(order)
        if self.axes is None or rank < -min(self.axes):
            return self
        axes = tuple(list(order).index(rank + axis) - rank for axis in self.axes)
        return replace(self, axes=axes if axes in LAYOUTS else None)

    def moved(self, grid: Grid, shape: Sequence[int]) -> Trail:
        """The same axes of a tensor of this shape, whose pixels lie elsewhere."""
        return replace(self, grid=grid, size=map_size(shape, self.axes or LAYOUTS[0]))


def map_size(shape: Sequence[int], axes: tuple[int, int]) -> Size:
    """(height, width) of a tensor; zeros where it has no such axes."""
    return (shape[axes[0]], shape[axes[1]]) if len(shape) >= -min(axes) else (0, 0)


def merged(inputs: Iterable[Trail], output: Sequence[int]) -> Trail:
    """Behind an operator of which nothing is known but its inputs' trails and the shape of its output.

    A map of one input's size is taken to lie where that lies, also one that was flattened in between. A map of another size covers the
    same area: true of pixel shuffles, a guess otherwise, and marked as such. Anything else may become a map again.
    """
    known = list(inputs)
    source = max((trail.source for trail in known if trail.source is not None), default=None)
    placed = [trail for trail in known if trail.grid is not None]
    for trail in placed:
        for axes in ([trail.axes] if trail.axes else []) + list(LAYOUTS):
            if len(output) >= 3 and map_size(output, axes) == trail.size:
                return replace(trail, axes=axes, source=source)
    for trail in placed:
        if trail.grid is not None and trail.axes is not None and len(output) == 4:
            after = map_size(output, trail.axes)
            if min(after) > 0:
                return Trail(replace(trail.grid.resized(trail.size, after), exact=False), after, trail.axes, source)
    first = placed[0] if placed else Trail()
    return replace(first, axes=None, source=source)
