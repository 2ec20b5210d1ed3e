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


@dataclass(frozen=True)
class Trail:
    """What is known of a tensor. grid: None once it is no map any more; axes: its rows and columns, counted from the end; source: the last
    deformable layer on the way to it, None before the first."""

    grid: Grid | None
    axes: tuple[int, int] = (-2, -1)
    source: int | None = None

    def size(self, shape: Sequence[int]) -> Size | None:
        """(height, width) of a tensor of this shape; None where it has no such axes."""
        return (shape[self.axes[0]], shape[self.axes[1]]) if len(shape) >= -min(self.axes) else None

    def permuted(self, order: Sequence[int]) -> Trail:
        """Behind a permutation of the axes."""
        rank = len(order)
        axes = [list(order).index(rank + axis) - rank for axis in self.axes] if rank >= -min(self.axes) else None
        return replace(self, grid=None) if axes is None else replace(self, axes=(axes[0], axes[1]))


def merged(inputs: Iterable[tuple[Trail, Sequence[int]]], output: Sequence[int]) -> Trail:
    """Behind an operator of which nothing is known but shapes: (trail, shape) of its inputs, shape of its output.

    A map of one input's size is taken to lie where that lies. A map of another size covers the same area: true of pixel shuffles, a guess
    otherwise, and marked as such. Anything else is no map.
    """
    known = list(inputs)
    source = max((trail.source for trail, _ in known if trail.source is not None), default=None)
    maps = [(trail, size) for trail, shape in known if trail.grid is not None and (size := trail.size(shape))]
    for trail, size in maps:
        if trail.size(output) == size:
            return replace(trail, source=source)
    for trail, size in maps:
        after = trail.size(output)
        if trail.grid is not None and after and len(output) == 4 and min(after) > 0:
            return Trail(replace(trail.grid.resized(size, after), exact=False), trail.axes, source)
    return Trail(None, source=source)
