"""Two sides of a comparison drawn over an image: detectors' boxes, and deformable layers' sampling points. Needs Pillow."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from deploydcn._lazy import lazy_import
from deploydcn.vision.boxes import Detections, match_detections
from deploydcn.vision.image import draw_box

REFERENCE, CANDIDATE, DIFFERENT = "#0072b2", "#e69f00", "#d55e00"
"""Blue, orange and vermilion of Okabe and Ito: told apart by colour-blind readers."""

PAIRED = ("#0072b2", "#00795a", "#8a4f7d", "#4a5560")
GAP = 8


def draw_detections_side_by_side(
    image: np.ndarray, left: Detections, right: Detections, *, names: Sequence[str] | None = None, iou: float = 0.5
) -> np.ndarray:
    """Both detectors' boxes on copies of image (H, W, 3) uint8: (H, 2*W + GAP, 3) uint8.

    Boxes that match (one class, overlap of at least `iou`) bear the same colour and number on both sides; those without a partner are
    thick, vermilion, and marked "only here".
    """
    pairs = match_detections(left, right, iou=iou)
    sides = []
    for detections, numbers in ((left, {a: n for n, (a, _) in enumerate(pairs)}), (right, {b: n for n, (_, b) in enumerate(pairs)})):
        canvas, draw, width = _canvas(image)
        for index, (box, score, kind) in enumerate(zip(detections.boxes, detections.scores, detections.classes, strict=True)):
            number = numbers.get(index)
            colour = DIFFERENT if number is None else PAIRED[number % len(PAIRED)]
            what = names[int(kind)] if names else str(int(kind))
            label = f"{what} {score:.3f} " + ("only here" if number is None else f"#{number}")
            draw_box(draw, box, label, colour, width * (2 if number is None else 1))
        sides.append(np.asarray(canvas))
    gap = np.full((image.shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([sides[0], gap, sides[1]], axis=1)


def draw_points(image: np.ndarray, reference: np.ndarray, candidate: np.ndarray, *, tolerance: float, zoom: int = 1) -> np.ndarray:
    """Sampling points of two sides over image (H, W, 3) uint8: (H*zoom, W*zoom, 3) uint8.

    Blue discs are the reference's, orange rings the candidate's; where the two of a pair are further apart than `tolerance`, a line joins
    them and both are vermilion. Points outside the image are drawn at its border.

    Args:
        reference, candidate: (n, 2), (y, x) in pixels of the image, in the same order.
        tolerance: pixels of the image. A pair of which one is not finite differs.
        zoom: pixels drawn for one of the image.
    """
    pillow = lazy_import("PIL.Image", extra="report")
    height, width = image.shape[:2]
    large = np.asarray(pillow.fromarray(image).resize((width * zoom, height * zoom), pillow.Resampling.BILINEAR))
    canvas, draw, line = _canvas(_paled(large))
    radius = 2 * line

    def place(point: np.ndarray) -> tuple[float, float]:
        y, x = (float(np.clip(np.nan_to_num(at, nan=-1), 0, size - 1)) for at, size in zip(point, (height, width), strict=True))
        return (x + 0.5) * zoom, (y + 0.5) * zoom

    for first, second in zip(reference, candidate, strict=True):
        same = bool(np.linalg.norm(first - second) <= tolerance)  # False for NaN
        (ax, ay), (bx, by) = place(first), place(second)
        if not same:
            draw.line((ax, ay, bx, by), fill=DIFFERENT, width=line)
        for x, y, reach, look in (
            (ax, ay, radius, {"fill": REFERENCE if same else DIFFERENT}),
            (bx, by, 2 * radius, {"outline": CANDIDATE if same else DIFFERENT, "width": line}),
        ):
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), **look)
    return np.asarray(canvas)


def data_uri(image: np.ndarray, *, kind: str = "JPEG") -> str:
    """An (H, W, 3) uint8 image for a page that holds everything: "data:image/...". kind: JPEG or PNG."""
    pillow = lazy_import("PIL.Image", extra="report")
    buffer = io.BytesIO()
    pillow.fromarray(image).save(buffer, format=kind, **({"quality": 85} if kind == "JPEG" else {"optimize": True}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _paled(image: np.ndarray) -> np.ndarray:
    """What is drawn on it stands out."""
    return np.asarray((0.6 * image + 0.4 * 255).astype(np.uint8))


def _canvas(image: np.ndarray) -> tuple[Any, Any, int]:
    """A Pillow image, what draws on it, and the width of a line."""
    canvas = lazy_import("PIL.Image", extra="report").fromarray(image)
    return canvas, lazy_import("PIL.ImageDraw", extra="report").Draw(canvas), max(1, min(image.shape[:2]) // 240)
