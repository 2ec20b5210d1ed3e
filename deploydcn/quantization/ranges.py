"""The range of an activation over many samples, in bounded memory: its extremes and a histogram that widens as it must."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

BINS = 4096
LEVELS = 128
"""Magnitudes that 8 bits tell apart."""
COVERED = 0.9999
"""Share of an activation's values that the percentile method's range covers."""


@dataclass
class Observer:
    """What was seen of one activation. edge: the histogram covers [-edge, edge] in BINS equal bins."""

    low: float = 0.0
    high: float = 0.0
    edge: float = 0.0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def observe(self, values: np.ndarray, *, histogram: bool) -> None:
        """Add the values of one sample; all finite. 0 is always in the range: padding must have an exact value."""
        if values.size == 0:
            return
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        if not histogram:
            return
        self._widen(max(-self.low, self.high))
        width = 2 * self.edge / BINS
        bins = np.clip((values.reshape(-1) + self.edge) / width, 0, BINS - 1).astype(np.int64) if width else np.full(values.size, BINS // 2)
        self.counts += np.bincount(bins, minlength=BINS)

    def _widen(self, largest: float) -> None:
        """Double the histogram's range until it holds `largest`: each pair of bins becomes one."""
        if self.edge == 0.0:
            self.edge = largest
            return
        while self.edge < largest:
            inner = self.counts.reshape(BINS // 2, 2).sum(axis=1)
            self.counts = np.pad(inner, BINS // 4)
            self.edge *= 2


def minmax(seen: Observer) -> tuple[float, float]:
    """All values."""
    return seen.low, seen.high


def percentile(seen: Observer) -> tuple[float, float]:
    """All but the rarest values: COVERED of them, as many left out at either end."""
    total = int(seen.counts.sum())
    if not total or not seen.edge:
        return seen.low, seen.high
    outside, edges = (1 - COVERED) / 2 * total, np.linspace(-seen.edge, seen.edge, BINS + 1)
    below = np.cumsum(seen.counts)
    low = edges[int(np.searchsorted(below, outside, side="right"))]
    high = edges[int(np.searchsorted(below, total - outside, side="left")) + 1]
    return max(seen.low, min(float(low), 0.0)), min(seen.high, max(float(high), 0.0))


def entropy(seen: Observer) -> tuple[float, float]:
    """The magnitude to cut at whose quantized distribution loses least information (Kullback-Leibler divergence), as in TensorRT's
    calibration (Migacz, "8-bit inference with TensorRT", 2017)."""
    magnitudes = seen.counts[BINS // 2 :] + seen.counts[: BINS // 2][::-1]
    if not seen.edge or not magnitudes[1:].any():
        return seen.low, seen.high
    magnitudes = magnitudes.astype(np.float64)
    magnitudes[0] = magnitudes[1]  # exact zeros, of which a rectifier makes many, cost nothing at any range
    candidates = range(LEVELS, len(magnitudes) + 1, LEVELS // 8)
    best = min(candidates, key=lambda count: _divergence(magnitudes, count))
    cut = seen.edge * best / len(magnitudes)
    return max(seen.low, -cut), min(seen.high, cut)


def _divergence(magnitudes: np.ndarray, count: int) -> float:
    """Of the distribution cut after `count` bins from the same in LEVELS levels."""
    kept = magnitudes[:count]
    wanted = kept.copy()
    wanted[-1] += magnitudes[count:].sum()
    starts = np.arange(LEVELS) * count // LEVELS
    sizes = np.diff(np.append(starts, count))
    filled = (kept > 0).astype(np.float64)
    mean = np.add.reduceat(kept, starts) / np.maximum(np.add.reduceat(filled, starts), 1)
    got = np.repeat(mean, sizes) * filled
    wanted, got = wanted / wanted.sum(), got / max(got.sum(), 1e-300)
    present = wanted > 0
    return float(np.sum(wanted[present] * np.log(wanted[present] / np.maximum(got[present], 1e-9))))


METHODS: dict[str, Callable[[Observer], tuple[float, float]]] = {"minmax": minmax, "percentile": percentile, "entropy": entropy}
