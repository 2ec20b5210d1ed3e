"""Statistics of one output against its reference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from deploydcn.errors import InvalidArgument
from deploydcn.parity.detections import align_detections

CHANNEL_FLOOR = 1e-4
"""A channel's scale is at least this part of the whole output's: channels that hold rounding noise only do not count."""


@dataclass(frozen=True)
class OutputComparison:
    """One output, compared. Errors are |candidate - reference|.

    max_abs: largest error. max_relative: the same over the reference's range (max - min). worst_channel: largest error
    over the scale of its own channel (index 1 of 3 or more dimensions): a box coordinate in the hundreds does
    not hide a wrong score. sqnr_db: signal to noise, in decibels; infinite when equal. top1: share of rows
    of a (N, classes) output with the same argmax, else None. mismatch: why the outputs cannot be compared, else "".
    """

    name: str
    shape: tuple[int, ...]
    max_abs: float
    max_relative: float
    worst_channel: float
    cosine: float
    sqnr_db: float
    top1: float | None
    mismatch: str = ""

    def passes(self, tolerance: float) -> bool:
        """True when every element is within tolerance of its channel's scale, and the outputs could be compared."""
        return not self.mismatch and self.worst_channel <= tolerance

    def to_json(self) -> dict[str, Any]:
        """Plain values; infinities become strings, since JSON has none."""
        return {key: str(value) if isinstance(value, float) and not math.isfinite(value) else value for key, value in asdict(self).items()}


def compare(reference: Mapping[str, np.ndarray], candidate: Mapping[str, np.ndarray]) -> list[OutputComparison]:
    """Compare two runs output by output: by name where the names agree, else in order. Detections are compared as a set.

    Raises:
        InvalidArgument: different numbers of outputs, or nothing to compare: an empty comparison is no success.
    """
    if len(reference) != len(candidate):
        raise InvalidArgument(
            f"the reference has {len(reference)} outputs ({', '.join(reference)}), "
            f"the candidate {len(candidate)} ({', '.join(candidate)}); wanted as many"
        )
    by_name = set(reference) == set(candidate)
    if by_name:
        candidate = align_detections(reference, candidate)
    pairs = [
        (name, reference[name], candidate[name] if by_name else other) for name, other in zip(reference, candidate.values(), strict=True)
    ]
    if not any(array.size for _, array, _ in pairs):
        raise InvalidArgument("there is nothing to compare: every output is empty; give inputs that produce some")
    return [compare_arrays(name, expected, got) for name, expected, got in pairs]


def compare_arrays(name: str, reference: np.ndarray, candidate: np.ndarray) -> OutputComparison:
    """Compare one output. NaN and infinities must stand at the same places on both sides."""
    if reference.shape != candidate.shape:
        return _incomparable(name, reference, f"shape {list(candidate.shape)}, wanted {list(reference.shape)}")
    if reference.size == 0:
        return OutputComparison(name, reference.shape, 0.0, 0.0, 0.0, 1.0, math.inf, None)
    if _kind(reference) != _kind(candidate):
        return _incomparable(name, reference, f"type {candidate.dtype}, wanted {reference.dtype}")
    if _kind(reference) in ("whole", "bool"):
        wrong = int(np.sum(reference != candidate))
        if wrong:
            return _incomparable(name, reference, f"{wrong} of {reference.size} whole numbers differ; wanted them equal")
    if _kind(reference) == "complex":
        reference, candidate = (np.stack([array.real, array.imag], -1) for array in (reference, candidate))
    expected, got = reference.astype(np.float64), candidate.astype(np.float64)
    finite = np.isfinite(expected)
    special = ~finite
    if not np.array_equal(np.isfinite(got), finite) or not np.array_equal(got[special], expected[special], equal_nan=True):
        places = int(np.sum(np.isfinite(got) != finite)) or "some"
        return _incomparable(name, reference, f"NaN or infinity at other places ({places} elements)")
    expected, got = np.where(finite, expected, 0.0), np.where(finite, got, 0.0)
    error = np.abs(got - expected)
    spread = float(expected.max() - expected.min()) or float(np.abs(expected).max()) or 1.0
    noise, signal = float(np.sum(error**2)), float(np.sum(expected**2))
    norms = math.sqrt(signal) * float(np.sqrt(np.sum(got**2)))
    return OutputComparison(
        name,
        reference.shape,
        max_abs=float(error.max()),
        max_relative=float(error.max()) / spread,
        worst_channel=_worst_channel(expected, error),
        cosine=float(np.sum(expected * got)) / norms if norms else float(noise == 0),
        sqnr_db=math.inf if noise == 0 else 10 * math.log10(signal / noise) if signal else -math.inf,
        top1=_top1(reference, candidate),
    )


def _kind(array: np.ndarray) -> str:
    """What is compared alike: any floating-point types with each other, whole numbers and booleans exactly."""
    if array.dtype.kind in "iub":
        return "whole" if array.dtype.kind in "iu" else "bool"
    return "complex" if array.dtype.kind == "c" else "real"


def _worst_channel(expected: np.ndarray, error: np.ndarray) -> float:
    axes = tuple(axis for axis in range(expected.ndim) if axis != 1) if expected.ndim >= 3 else None
    low, high = expected.min(axis=axes), expected.max(axis=axes)
    scale = np.maximum(high - low, np.maximum(np.abs(low), np.abs(high)))
    floor = CHANNEL_FLOOR * max(float(np.max(scale)), np.finfo(np.float64).tiny)
    return float(np.max(error.max(axis=axes) / np.maximum(scale, floor)))


def _top1(reference: np.ndarray, candidate: np.ndarray) -> float | None:
    if reference.ndim != 2 or reference.shape[1] < 2 or not np.issubdtype(reference.dtype, np.floating):
        return None
    return float(np.mean(np.argmax(reference, 1) == np.argmax(candidate, 1)))


def _incomparable(name: str, reference: np.ndarray, why: str) -> OutputComparison:
    return OutputComparison(name, reference.shape, math.inf, math.inf, math.inf, 0.0, -math.inf, None, why)
