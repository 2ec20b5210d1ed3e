"""What the pooling operators of regions of interest share: their types, which image a box lies in, and how cases draw boxes."""

from __future__ import annotations

import numpy as np

from deploydcn.errors import InvalidArgument
from deploydcn.ops.case import Fill

TYPE_ROWS = (
    {"T": "float32", "T1": "float32"},
    {"T": "float64", "T1": "float64"},
    {"T": "float64", "T1": "float32"},
    {"T": "float16", "T1": "float16"},
    {"T": "float16", "T1": "float32"},
    {"T": "bfloat16", "T1": "bfloat16"},
    {"T": "bfloat16", "T1": "float32"},
)
"""Boxes may stay in float32 beside half-precision data: float16 resolves positions from 1024 pixels on to a whole pixel only."""

LARGEST_SIDE = 1 << 15
"""Of a pooled grid: float32 arithmetic on its indices is exact far beyond."""

DECISIONS = (
    "The result is discontinuous in the boxes, so every position is computed in float32, in the written order and without fused "
    "multiply-adds, whatever T and T1 are: all backends take the same samples. "
)

MALFORMED = (
    "A batch index is cut to an integer and must name an image of the batch: the CPU kernel and PyTorch refuse the node, naming "
    "the box; the GPU kernel, which cannot refuse, makes that box's output NaN. "
)


def images_of(name: str, rois: np.ndarray, batch: int) -> list[int]:
    """The image each box of rois (R, 5) float32 lies in.

    Raises:
        InvalidArgument: a box names none of the `batch` images.
    """
    images = []
    for number, index in enumerate(rois[:, 0]):
        if not -1 < index < batch:  # NaN too
            raise InvalidArgument(bad_image(name, number, float(index), batch))
        images.append(int(index))
    return images


def bad_image(name: str, number: int, index: float, batch: int) -> str:
    """The message about a box that names no image of the batch."""
    return f"{name} input rois: box {number} has batch index {index:g}; wanted 0 or more and less than N = {batch}; check the boxes"


def boxes(batch: int, height: int, width: int, scale: float = 0.25) -> Fill:
    """Boxes of a third to all of an image, some over its edge, images in mixed order."""

    def fill(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        count, extent = shape[0], np.array([width, height]) / scale
        corner = rng.uniform(-0.2, 0.6, (count, 2)) * extent
        side = rng.uniform(0.3, 0.8, (count, 2)) * extent
        image = rng.permutation(np.arange(count) % batch)
        return np.concatenate([image[:, None], corner, corner + side], axis=1)

    return fill


def rows_of(*rows: tuple[float, ...]) -> Fill:
    """Exactly these boxes, repeated."""
    return lambda rng, shape: np.resize(np.array(rows, np.float64), shape)
