"""Honest times of several candidates in one process: every round runs each of them once, in an order drawn anew.

Loops that repeat one candidate keep its weights and code in the caches and flatter it; rounds do not. The median is
the result, the quartiles its spread.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Call = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds of one candidate: median and quartiles over `rounds` runs."""

    median: float
    low: float
    high: float
    rounds: int

    @property
    def spread(self) -> float:
        """Distance of the quartiles over the median."""
        return (self.high - self.low) / self.median


def measure(calls: Mapping[str, Call], *, seconds: float, seed: int = 0) -> dict[str, Timing]:
    """Time `calls` in shuffled rounds for about `seconds`, in 15 rounds or more.

    The first two rounds warm up and are not counted.
    """
    order, shuffle = list(calls), random.Random(seed).shuffle
    samples: dict[str, list[float]] = {name: [] for name in calls}
    begin, rounds = time.perf_counter(), 0
    while rounds < 17 or time.perf_counter() - begin < seconds:
        shuffle(order)
        for name in order:
            start = time.perf_counter()
            calls[name]()
            samples[name].append(time.perf_counter() - start)
        rounds += 1
    timings = {}
    for name, values in samples.items():
        low, median, high = np.percentile(values[2:], (25, 50, 75))
        timings[name] = Timing(float(median), float(low), float(high), rounds - 2)
    return timings
