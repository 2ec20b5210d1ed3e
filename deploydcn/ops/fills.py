"""How conformance rows fill inputs that are not plain standard normal."""

from __future__ import annotations

import numpy as np

from deploydcn.ops.case import Fill


def spread(scale: float) -> Fill:
    """Normal offsets of a given standard deviation, in pixels: fractional almost everywhere."""
    return lambda rng, shape: rng.standard_normal(shape) * scale


def choice(*values: float) -> Fill:
    """Offsets drawn from a few exact values."""
    return lambda rng, shape: np.asarray(rng.choice(np.array(values), shape))


def half_mask(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Modulation in (0, 1), as after a sigmoid."""
    return rng.uniform(0.0, 1.0, shape)


def any_byte(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Every value of an 8-bit type: 0 to 255, which wrap around in int8."""
    return rng.integers(0, 256, shape)


def integers(lowest: int, highest: int) -> Fill:
    """Whole numbers, both ends included."""
    return lambda rng, shape: rng.integers(lowest, highest + 1, shape)


def alike(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Values so alike that a long sum in too few digits drops the same part of each."""
    return rng.uniform(1.0, 1.001, shape)


def nan_pixel(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A channels-last image with one NaN in each."""
    image = rng.standard_normal(shape)
    image[:, shape[1] // 2, shape[2] // 2] = np.nan
    return image


# Offsets that land on the borders of a small image whatever the tap: every multiple of a half from far outside to far outside.
BORDER_STEPS = tuple(step / 2 for step in range(-16, 17))
