"""What is in one tensor, told so that nothing hides: NaN and infinities apart from the numbers, denormals and zeros counted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
BINS = 40


@dataclass(frozen=True)
class TensorStatistics:
    """One tensor. min, max, mean, std, percentiles and histogram are of its finite elements, in float64; None where there are none.

    nan, positive_infinities, negative_infinities, zeros, denormals: how many elements. first: the index of the first element of each of
    these kinds that occurs. histogram: counts of 40 bins of equal width between min and max.
    """

    shape: tuple[int, ...]
    dtype: str
    min: float | None
    max: float | None
    mean: float | None
    std: float | None
    percentiles: Mapping[int, float]
    nan: int
    positive_infinities: int
    negative_infinities: int
    zeros: int
    denormals: int
    first: Mapping[str, tuple[int, ...]]
    histogram: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        values = asdict(self)
        return {**values, "first": {kind: list(index) for kind, index in self.first.items()}}

    def __str__(self) -> str:
        sizes = "x".join(map(str, self.shape)) or "scalar"
        if self.min is None or self.max is None or self.mean is None or self.std is None:
            text = f"{self.dtype}[{sizes}] without a finite element"
        else:
            text = f"{self.dtype}[{sizes}] {self.min:.4g} to {self.max:.4g}, mean {self.mean:.4g}, std {self.std:.4g}"
        counts = {"NaN": self.nan, "+inf": self.positive_infinities, "-inf": self.negative_infinities, "denormal": self.denormals}
        return text + "".join(f", {count} {kind}" for kind, count in counts.items() if count)


def statistics(array: np.ndarray) -> TensorStatistics:
    """Describe an array of numbers or booleans; of complex numbers, their magnitudes."""
    values = np.abs(array) if array.dtype.kind == "c" else array
    wide = values.astype(np.float64)
    finite = np.isfinite(wide)
    kinds = {
        "nan": np.isnan(wide),
        "positive_infinities": np.isposinf(wide),
        "negative_infinities": np.isneginf(wide),
        "zeros": wide == 0,
        "denormals": (wide != 0) & (np.abs(wide) < smallest_normal(values.dtype)),
    }
    numbers = wide[finite]
    some = numbers.size > 0
    return TensorStatistics(
        shape=array.shape,
        dtype=array.dtype.name,
        min=float(numbers.min()) if some else None,
        max=float(numbers.max()) if some else None,
        mean=float(numbers.mean()) if some else None,
        std=float(numbers.std()) if some else None,
        percentiles=dict(zip(PERCENTILES, map(float, np.percentile(numbers, PERCENTILES)), strict=True)) if some else {},
        **{kind: int(np.count_nonzero(mask)) for kind, mask in kinds.items()},
        first={kind: first_index(mask) for kind, mask in kinds.items() if mask.any()},
        histogram=_histogram(numbers) if some else (),
    )


def smallest_normal(dtype: np.dtype[Any]) -> float:
    """The smallest positive number of a type that is not denormal; 0 for types without denormals."""
    return float(np.finfo(dtype).tiny) if dtype.kind == "f" else 0.0


def first_index(mask: np.ndarray) -> tuple[int, ...]:
    """Where the first true element of a mask stands, in C order."""
    return tuple(int(axis) for axis in np.unravel_index(int(np.argmax(mask)), mask.shape))


def _histogram(numbers: np.ndarray) -> tuple[int, ...]:
    low, high = float(numbers.min()), float(numbers.max())
    if low == high or not math.isfinite(high - low):
        return (numbers.size,)  # all alike, or so far apart that their distance overflows
    return tuple(int(count) for count in np.histogram(numbers, bins=BINS, range=(low, high))[0])
