"""Bilinear interpolation as every deformable operator means it, for the references."""

from __future__ import annotations

import numpy as np


def bilinear(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Sample image (C, H, W) at y, x (...) -> (C, ...); 0 unless -1 < y < H and -1 < x < W; corners outside are 0."""
    _, height, width = image.shape
    inside = (y > -1) & (y < height) & (x > -1) & (x < width)  # False for NaN
    y, x = np.where(inside, y, 0.0), np.where(inside, x, 0.0)
    y0, x0 = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    total = np.zeros((image.shape[0], *y.shape))
    for dy in (0, 1):
        for dx in (0, 1):
            row, column = y0 + dy, x0 + dx
            weight = (1 - np.abs(y - row)) * (1 - np.abs(x - column))
            exists = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            pixel = image[:, np.where(exists, row, 0), np.where(exists, column, 0)]
            total += np.where(exists, weight * np.where(exists, pixel, 0.0), 0.0)
    return total
