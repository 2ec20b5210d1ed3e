"""The images among a model's inputs, and the parts of them worth drawing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from deploydcn.parity import ParityCase, ParityReport
from deploydcn.vision import looks_like_images

SMALLEST = 560
"""Pixels of an image's longer side on a page, at least about that: smaller ones are magnified."""

ROUGHEST = 0.7
"""Mean step between neighbours, of an image's standard deviation: 2 / sqrt(pi) = 1.13 for noise, 0.1 to 0.4 for photographs."""


def images_of(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Every image, (H, W, 3) uint8, in order: of arrays (..., 3 or 1, H, W). Numbers in [0, 1] or [0, 255] are taken for pixels, others,
    normalized ones or noise, are stretched to what can be seen."""
    found = []
    for array in inputs.values():
        if looks_like_images(array):
            found += [_pixels(image) for image in array.reshape(-1, *array.shape[-3:])]
    return found


def is_picture(image: np.ndarray) -> bool:
    """Whether an image shows something: random numbers do not, nor does one colour."""
    values = image.astype(np.float64)
    steps = [np.abs(np.diff(values, axis=axis)).mean() for axis in (0, 1) if values.shape[axis] > 1]
    spread = float(values.std())
    return bool(steps) and 0 < float(np.mean(steps)) < ROUGHEST * spread


def case_to_draw(report: ParityReport) -> ParityCase:
    """The inputs whose outputs differ most, among those with a picture, where there are any: what is drawn over noise tells little. Of
    a report that fails, inputs on which it fails."""
    limit = report.tolerance.relative
    failing = [case for case in report.cases if any(not output.passes(limit) for output in case.outputs)] or list(report.cases)
    shown = [case for case in failing if any(map(is_picture, images_of(case.inputs)))] or failing
    return max(shown, key=lambda case: max(output.worst_channel for output in case.outputs))


def zoom_of(image: np.ndarray) -> int:
    """How often a page repeats every pixel."""
    height, width = image.shape[:2]
    return max(1, round(SMALLEST / int(max(height, width))))


def window_around(image: np.ndarray, points: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the part of an image that holds points (n, 2), (y, x), as far as they lie in it, with room around; at least
    two fifths of the image each way."""
    slices = []
    for axis, size in enumerate(image.shape[:2]):
        inside = np.clip(points[np.isfinite(points[:, axis]), axis], 0, size - 1)
        low, high = (float(inside.min()), float(inside.max())) if inside.size else (0.0, size - 1.0)
        reach = max(0.8 * (high - low), 0.2 * size)
        middle = (low + high) / 2
        slices.append(slice(max(int(middle - reach), 0), min(int(middle + reach) + 1, size)))
    return slices[0], slices[1]


def _pixels(planes: np.ndarray) -> np.ndarray:
    values = np.nan_to_num(planes.astype(np.float64), posinf=0, neginf=0)
    low, high = float(values.min()), float(values.max())
    if planes.dtype.kind == "f" and (low < 0 or high > 255):
        low, high = (float(np.percentile(values, part)) for part in (1, 99))
        values = (values - low) / max(high - low, 1e-30)
        high = 1.0
    scale = 255 if high <= 1 and planes.dtype.kind == "f" else 1
    pixels = np.clip(np.round(values * scale), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
