"""Images: reading, letterboxing, drawing. Reading and drawing need Pillow (extra `report`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploydcn._lazy import lazy_import
from deploydcn.errors import InvalidArgument
from deploydcn.files import replace_on_success
from deploydcn.vision.boxes import Detections

GREY = 114


@dataclass(frozen=True)
class Letterbox:
    """An image fitted into a rectangle: tensor (1, 3, H, W) float32 in [0, 1], RGB; how to get back: original = (x - left) / scale."""

    tensor: np.ndarray
    scale: float
    left: float
    top: float

    def to_original(self, detections: Detections) -> Detections:
        """Boxes in the pixels of the original image."""
        offset = np.array([self.left, self.top, self.left, self.top], np.float32)
        return Detections((detections.boxes - offset) / self.scale, detections.scores, detections.classes)


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """An image file as (H, W, 3) uint8, RGB.

    Raises:
        InvalidArgument: missing, or not an image.
    """
    pillow = lazy_import("PIL.Image", extra="report")
    if not Path(path).is_file():
        raise InvalidArgument(f"{path} does not exist; wanted an image file")
    try:
        with pillow.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # whatever Pillow's plugins raise, or packages that put a loader of their own in its place
        raise InvalidArgument(f"{path} is not a readable image: {error}") from error


def looks_like_images(array: np.ndarray) -> bool:
    """Whether an array (..., channels, H, W) has the shape and type of colour or grey images."""
    return array.ndim >= 3 and array.shape[-3] in (1, 3) and array.size > 0 and array.dtype.kind in "fu"


def letterbox(image: np.ndarray, size: tuple[int, int]) -> Letterbox:
    """Fit image (H, W, 3) uint8 into size (height, width), keeping its proportions, grey around it.

    Raises:
        InvalidArgument: not an (H, W, 3) uint8 image.
    """
    _check(image)
    scale = min(size[0] / image.shape[0], size[1] / image.shape[1])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    resized = _resized(image, (height, width))
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    canvas = np.full((*size, 3), GREY, np.uint8)
    canvas[top : top + height, left : left + width] = resized
    return Letterbox(_tensor(canvas), scale, left, top)


def stretch(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Image (H, W, 3) uint8 brought to size (height, width), whatever its proportions: (1, 3, height, width) float32 in [0, 1].

    Raises:
        InvalidArgument: not an (H, W, 3) uint8 image.
    """
    _check(image)
    return _tensor(_resized(image, size))


def _check(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InvalidArgument(f"image is {image.dtype}{list(image.shape)}; wanted uint8 (height, width, 3)")


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    pillow = lazy_import("PIL.Image", extra="report")
    return np.asarray(pillow.fromarray(image).resize((size[1], size[0]), pillow.Resampling.BILINEAR))


def _tensor(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None].astype(np.float32) / 255)


def draw_detections(image: np.ndarray, detections: Detections, path: str | os.PathLike[str], *, names: Sequence[str] | None = None) -> None:
    """Write image (H, W, 3) with boxes, class names and scores to a PNG file."""
    pillow = lazy_import("PIL.Image", extra="report")
    drawing = lazy_import("PIL.ImageDraw", extra="report")
    canvas = pillow.fromarray(image)
    draw = drawing.Draw(canvas)
    width = max(2, min(image.shape[:2]) // 300)
    for box, score, kind in zip(detections.boxes, detections.scores, detections.classes, strict=True):
        draw_box(draw, box, f"{names[int(kind)] if names else int(kind)} {score:.2f}", _colour(int(kind)), width)
    with replace_on_success(path) as temporary:
        canvas.save(temporary, format="PNG")


def draw_box(draw: Any, box: np.ndarray, label: str, colour: Any, width: int) -> None:
    """A box (x1, y1, x2, y2) with its label on what Pillow draws with; colour: any of Pillow's, dark enough for white text."""
    x1, y1, x2, y2 = (float(value) for value in box)
    draw.rectangle((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), outline=colour, width=width)
    place = (max(0.0, x1), max(0.0, y1 - 12))
    draw.rectangle(draw.textbbox(place, label), fill=colour)
    draw.text(place, label, fill="white")


def _colour(kind: int) -> tuple[int, int, int]:
    """Distinct, dark enough for white text."""
    red, green, blue = (int(90 + 110 * abs(np.sin(kind * step + 0.5))) for step in (1.3, 2.1, 3.7))
    return red, green, blue
