"""Fair timing: candidates take turns in shuffled order, so that clocks and temperature drift for all alike."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Measure = Callable[[int], float]
"""Runs a candidate so many times; milliseconds altogether."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one run. rounds: one figure per round, in the order of the rounds."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, relative to the median."""
        low, _, high = statistics.quantiles(self.rounds, n=4)
        return (high - low) / 2 / self.median

    def ratio_to(self, other: Timing) -> float:
        """Median of the ratios of the same rounds: what drifts between rounds drops out."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.rounds, other.rounds, strict=True))


def interleaved(candidates: Mapping[str, Measure], *, rounds: int = 15, target_ms: float = 20.0, seed: int = 0) -> dict[str, Timing]:
    """Time the candidates: warmed up, each run often enough for target_ms a round."""
    repeats = {name: _repeats(measure, target_ms) for name, measure in candidates.items()}
    order, figures = random.Random(seed), {name: [] for name in candidates}  # type: dict[str, list[float]]
    for _ in range(rounds):
        for name in order.sample(list(candidates), len(candidates)):
            figures[name].append(candidates[name](repeats[name]) / repeats[name])
    return {name: Timing(tuple(values)) for name, values in figures.items()}


def _repeats(measure: Measure, target_ms: float) -> int:
    measure(2)  # the first runs choose algorithms and fill caches
    once = measure(5) / 5
    return max(1, min(2000, round(target_ms / once))) if once > 0 else 2000
