"""A photograph as a model's input."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploydcn.errors import InvalidArgument
from deploydcn.runners.base import TensorInfo
from deploydcn.vision import Letterbox, letterbox, read_image

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
DTYPES = ("float16", "float32", "float64", "uint8")
LARGEST, MULTIPLE = 640, 32
"""Where nothing else says a size: the image's own, its longer side at most this, both sides multiples of this."""


@dataclass(frozen=True)
class Photo:
    """What the model sees: canvas (H, W, 3) uint8, the image letterboxed; content: (top, left, height, width) of the image on it; boxed:
    the same in [0, 1], and how to get back to the image's own pixels."""

    canvas: np.ndarray
    content: tuple[int, int, int, int]
    boxed: Letterbox

    @property
    def size(self) -> tuple[int, int]:
        return self.canvas.shape[0], self.canvas.shape[1]


def read_photo(path: str | os.PathLike[str] | np.ndarray, size: tuple[int, int] | None) -> Photo:
    """An image file, or (H, W, 3) uint8 array, letterboxed into size (height, width); None: about its own.

    Raises:
        InvalidArgument: missing, or not an image.
    """
    image = path if isinstance(path, np.ndarray) else read_image(path)
    if size is None:
        scale = min(1.0, LARGEST / max(image.shape[:2]))
        height, width = (max(MULTIPLE, round(side * scale / MULTIPLE) * MULTIPLE) for side in image.shape[:2])
        size = height, width
    boxed = letterbox(image, size)
    top, left = int(boxed.top), int(boxed.left)
    canvas = np.round(boxed.tensor[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    height, width = (max(1, round(side * boxed.scale)) for side in image.shape[:2])
    return Photo(canvas, (top, left, height, width), boxed)


def image_input(infos: Sequence[TensorInfo], shapes: Mapping[str, Sequence[Any]]) -> str:
    """The input that takes the image: the first with 1 or 3 channels before rows and columns. shapes: by name, as far as they are known.

    Raises:
        InvalidArgument: there is none.
    """
    for info in infos:
        shape = shapes.get(info.name) or ()
        if len(shape) >= 3 and shape[-3] in (1, 3) and info.dtype in DTYPES:
            return info.name
    listed = ", ".join(map(str, infos))
    raise InvalidArgument(f"no input takes an image; the model has {listed}; wanted one of (..., 3 or 1, height, width)")


def image_array(photo: Photo, info: TensorInfo, shape: Sequence[Any], mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """The photograph as the model takes it: (pixels / 255 - mean) / std, RGB or, with one channel, its luma; uint8 as it is. It is repeated
    along the axes before the channels, those of unknown size taken as 1."""
    pixels = photo.canvas.astype(np.float32)
    if shape[-3] == 1:
        pixels = (pixels @ LUMA)[..., None]
    planes = np.round(pixels)
    if info.dtype != "uint8":
        planes = (pixels / 255 - _channels(mean, shape[-3], "mean")) / _channels(std, shape[-3], "std")
    leading = [size if isinstance(size, int) else 1 for size in shape[:-3]]
    whole = np.broadcast_to(planes.transpose(2, 0, 1), (*leading, shape[-3], *photo.size))
    return np.ascontiguousarray(whole).astype(info.dtype)


def _channels(values: Sequence[float], channels: int, name: str) -> np.ndarray:
    if len(values) not in (1, channels):
        raise InvalidArgument(f"{name} has {len(values)} numbers; wanted 1 or {channels}, for pixels in [0, 1]")
    if name == "std" and min(values) <= 0:
        raise InvalidArgument(f"std is {list(values)}; wanted numbers above 0")
    return np.array(values, np.float32)
