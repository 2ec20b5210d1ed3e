"""Statistics of one output against its reference."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from deploydcn.errors import InvalidArgument
from deploydcn.parity.detections import align_detections
from deploydcn.parity.statistics import first_index, smallest_normal

CHANNEL_FLOOR = 1e-4
"""A channel's scale is at least this part of the whole output's: channels that hold rounding noise only do not count."""


@dataclass(frozen=True)
class OutputComparison:
    """One output, compared. Errors are |candidate - reference|.

    max_abs: largest error. max_relative: the same over the reference's range (max - min). worst_channel: largest error
    over the scale of its own channel (index 1 of 3 or more dimensions): a box coordinate in the hundreds does
    not hide a wrong score. sqnr_db: signal to noise, in decibels; infinite when equal. top1: share of rows
    of a (N, classes) output with the same argmax, else None. mismatch: why the outputs cannot be compared, else "". worst_index: where the
    error that counts most stands, or the first place that cannot be compared; None when nothing differs.

    Denormal float32 and float64 numbers count as zero: whether a processor keeps them is no property of a model.
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
    worst_index: tuple[int, ...] | None = None

    @property
    def empty(self) -> bool:
        """True when neither side has an element."""
        return 0 in self.shape and not self.mismatch

    def passes(self, tolerance: float) -> bool:
        """True when every element is within tolerance of its channel's scale, and the outputs could be compared."""
        return not self.mismatch and self.worst_channel <= tolerance

    def to_json(self) -> dict[str, Any]:
        """Plain values; infinities become strings, since JSON has none."""
        return {key: str(value) if isinstance(value, float) and not math.isfinite(value) else value for key, value in asdict(self).items()}


def compare(reference: Mapping[str, np.ndarray], candidate: Mapping[str, np.ndarray]) -> list[OutputComparison]:
    """Compare two runs output by output; see `pair_outputs` for how they are paired.

    Raises:
        InvalidArgument: different numbers of outputs, or nothing to compare: an empty comparison is no success.
    """
    compared = [compare_arrays(name, expected, got) for name, expected, got in pair_outputs(reference, candidate)]
    refuse_empty(compared)
    return compared


def refuse_empty(compared: Iterable[OutputComparison]) -> None:
    """Raise InvalidArgument where no element was compared: that is no success."""
    if all(output.empty for output in compared):
        raise InvalidArgument("there is nothing to compare: every output is empty on both sides; give inputs that produce some")


def pair_outputs(reference: Mapping[str, np.ndarray], candidate: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(the reference's name, its output, the candidate's): by name where the names agree, else in order. Detections are brought into the
    reference's order.

    Raises:
        InvalidArgument: different numbers of outputs, or none at all.
    """
    if not reference and not candidate:
        raise InvalidArgument("there is nothing to compare: the models have no outputs")
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
    return pairs


def compare_arrays(name: str, reference: np.ndarray, candidate: np.ndarray, *, floor: float = CHANNEL_FLOOR) -> OutputComparison:
    """Compare one output. NaN and infinities must stand at the same places on both sides. floor: see CHANNEL_FLOOR."""
    if reference.shape != candidate.shape:
        return incomparable(name, reference.shape, f"shape {list(candidate.shape)}, wanted {list(reference.shape)}")
    if reference.size == 0:
        return OutputComparison(name, reference.shape, 0.0, 0.0, 0.0, 1.0, math.inf, None)
    if _kind(reference) != _kind(candidate):
        return incomparable(name, reference.shape, f"type {candidate.dtype}, wanted {reference.dtype}")
    if _kind(reference) in ("whole", "bool"):
        wrong = reference != candidate
        if wrong.any():
            what = f"{int(wrong.sum())} of {reference.size} whole numbers differ; wanted them equal"
            return incomparable(name, reference.shape, what, wrong)
    if _kind(reference) == "complex":
        reference, candidate = (np.stack([array.real, array.imag], -1) for array in (reference, candidate))
    expected, got = reference.astype(np.float64), candidate.astype(np.float64)
    finite = np.isfinite(expected)
    misplaced = ~((expected == got) | (np.isnan(expected) & np.isnan(got)) | (finite & np.isfinite(got)))
    if misplaced.any():
        return incomparable(name, reference.shape, f"NaN or infinity at other places ({int(misplaced.sum())} elements)", misplaced)
    lowest = max(smallest_normal(array.dtype) if array.dtype.itemsize >= 4 else 0.0 for array in (reference, candidate))
    expected, got = (np.where(finite & (np.abs(array) >= lowest), array, 0.0) for array in (expected, got))
    error = np.abs(got - expected)
    spread = float(expected.max() - expected.min()) or float(np.abs(expected).max()) or 1.0
    noise, signal = float(np.sum(error**2)), float(np.sum(expected**2))
    norms = math.sqrt(signal) * float(np.sqrt(np.sum(got**2)))
    parts = error / _scale(expected, got, floor)
    return OutputComparison(
        name,
        reference.shape,
        max_abs=float(error.max()),
        max_relative=float(error.max()) / spread,
        worst_channel=float(parts.max()),
        cosine=float(np.sum(expected * got)) / norms if norms else float(noise == 0),
        sqnr_db=math.inf if noise == 0 else 10 * math.log10(signal / noise) if signal else -math.inf,
        top1=_top1(reference, candidate),
        worst_index=first_index(parts == parts.max())[: len(reference.shape)] if noise else None,
    )


def _kind(array: np.ndarray) -> str:
    """What is compared alike: any floating-point types with each other, whole numbers and booleans exactly."""
    if array.dtype.kind in "iub":
        return "whole" if array.dtype.kind in "iu" else "bool"
    return "complex" if array.dtype.kind == "c" else "real"


def _scale(expected: np.ndarray, got: np.ndarray, floor: float) -> np.ndarray:
    """Of every channel, in a shape that broadcasts. A reference of zeros only has none: then the candidate's counts, and any
    difference is one of 100 %."""
    axes = tuple(axis for axis in range(expected.ndim) if axis != 1) if expected.ndim >= 3 else None
    low, high = (reduce(expected, axis=axes, keepdims=True) for reduce in (np.min, np.max))
    scale = np.maximum(high - low, np.maximum(np.abs(low), np.abs(high)))
    largest = float(np.max(scale)) or float(np.max(np.abs(got))) or 1.0
    return np.asarray(np.maximum(scale, floor * largest if scale.any() else largest))


def _top1(reference: np.ndarray, candidate: np.ndarray) -> float | None:
    if reference.ndim != 2 or reference.shape[1] < 2 or not np.issubdtype(reference.dtype, np.floating):
        return None
    return float(np.mean(np.argmax(reference, 1) == np.argmax(candidate, 1)))


def incomparable(name: str, shape: tuple[int, ...], why: str, wrong: np.ndarray | None = None) -> OutputComparison:
    """The verdict on what cannot be compared, or must be equal and is not. wrong: mask of the elements at fault."""
    where = None if wrong is None else first_index(wrong)
    return OutputComparison(name, shape, math.inf, math.inf, math.inf, 0.0, -math.inf, None, why, where)
