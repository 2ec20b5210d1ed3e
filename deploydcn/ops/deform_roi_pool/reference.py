"""DeformRoIPool in NumPy: positions in float32, as the spec says, values in float64. It shares no code with any kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deploydcn.ops.deform_roi_pool.spec import MOST_SAMPLES, SPEC
from deploydcn.ops.rois import images_of

HALF = np.float32(0.5)


def reference(inputs: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> list[np.ndarray]:
    """Compute [output] in float64 from input (N, C, H, W), rois (R, 5) and optional offset (R, 2, PH, PW).

    Raises:
        InvalidArgument: a box names no image of the batch.
    """
    attrs: dict[str, Any] = SPEC.complete_attributes(attributes)
    a = SPEC.bind({name: value.shape for name, value in inputs.items()}, attributes)
    features, rois = inputs["input"].astype(np.float64), inputs["rois"].astype(np.float32)
    offset = inputs["offset"].astype(np.float32) if "offset" in inputs else np.zeros((a["R"], 2, a["PH"], a["PW"]), np.float32)
    scale, gamma = np.float32(attrs["spatial_scale"]), np.float32(attrs["gamma"])
    output = np.zeros((a["R"], a["C"], a["PH"], a["PW"]))
    with np.errstate(over="ignore", invalid="ignore"):
        for r, image in enumerate(images_of(SPEC.name, rois, a["N"])):
            left, top, right, bottom = rois[r, 1:] * scale - HALF
            width, height = right - left, bottom - top
            bin_height, bin_width = height / np.float32(a["PH"]), width / np.float32(a["PW"])
            grid_h, grid_w = (attrs["sampling_ratio"] or _samples(side) for side in (bin_height, bin_width))
            for ph in range(a["PH"]):
                for pw in range(a["PW"]):
                    shift_x, shift_y = gamma * width * offset[r, 0, ph, pw], gamma * height * offset[r, 1, ph, pw]
                    y = _positions(top + shift_y, ph, bin_height, grid_h)
                    x = _positions(left + shift_x, pw, bin_width, grid_w)
                    y, x = y[(y >= -1) & (y <= a["H"])], x[(x >= -1) & (x <= a["W"])]  # False for NaN
                    total = _bilinear(features[image], y, x).sum(axis=(1, 2))
                    output[r, :, ph, pw] = total / max(grid_h * grid_w, 1)
    return [output]


def _samples(side: np.float32) -> int:
    """Samples along one side of a bin: about one per pixel; none for NaN and sides of no extent."""
    return int(np.ceil(min(side, np.float32(MOST_SAMPLES)))) if side > 0 else 0


def _positions(start: np.float32, index: int, side: np.float32, grid: int) -> np.ndarray:
    """Where the `grid` samples of bin `index` lie along one axis, in float32."""
    steps = np.arange(grid, dtype=np.float32) + HALF
    return np.asarray(start + np.float32(index) * side + steps * side / np.float32(grid))


def _bilinear(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Sample image (C, H, W) at all pairs of rows y (P) and columns x (Q) in [-1, size] -> (C, P, Q)."""
    _, height, width = image.shape
    y, x = np.clip(y.astype(np.float64), 0, height - 1), np.clip(x.astype(np.float64), 0, width - 1)
    y0, x0 = y.astype(np.int64), x.astype(np.int64)
    y1, x1 = np.minimum(y0 + 1, height - 1), np.minimum(x0 + 1, width - 1)
    wy, wx = (y - y0)[:, None], (x - x0)[None, :]
    upper = image[:, y0[:, None], x0] * (1 - wx) + image[:, y0[:, None], x1] * wx
    lower = image[:, y1[:, None], x0] * (1 - wx) + image[:, y1[:, None], x1] * wx
    return np.asarray(upper * (1 - wy) + lower * wy)
