"""What a served model has done so far, counted where it happens and read by the statistics calls and by Prometheus."""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import dataclass, field


@dataclass
class Duration:
    """How often, and how long in total in nanoseconds."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        self.count += count
        self.ns += ns

    def to_json(self) -> dict[str, int]:
        return {"count": self.count, "ns": self.ns}


@dataclass
class BatchDurations:
    """The three phases of the runs of one batch size."""

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)

    def add(self, phases: tuple[int, int, int], count: int = 1) -> None:
        for duration, ns in zip((self.compute_input, self.compute_infer, self.compute_output), phases, strict=True):
            duration.add(ns, count)

    def to_json(self) -> dict[str, dict[str, int]]:
        return {name: getattr(self, name).to_json() for name in ("compute_input", "compute_infer", "compute_output")}


BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper ends in seconds of the histogram of request latencies."""


class Statistics:
    """Of one version of a model, under the names of Triton's statistics extension. One thread, the event loop's, writes."""

    def __init__(self) -> None:
        self.last_inference_ms = 0
        self.inferences = 0
        self.executions = 0
        self.rejected = 0
        self.success, self.fail, self.queue = Duration(), Duration(), Duration()
        self.phases = BatchDurations()
        self.batches: dict[int, BatchDurations] = {}
        self.latencies = [0] * (len(BUCKETS) + 1)

    def ran(self, waits: list[int], size: int, phases: tuple[int, int, int]) -> None:
        """A run of `size` inferences, from requests that had waited so many nanoseconds each."""
        self.executions += 1
        self.inferences += size
        self.last_inference_ms = time.time_ns() // 1_000_000
        count = len(waits)
        self.queue.add(sum(waits), count)
        self.phases.add((count * phases[0], count * phases[1], count * phases[2]), count)
        self.batches.setdefault(size, BatchDurations()).add(phases)

    def answered(self, ns: int) -> None:
        """A request succeeded after so many nanoseconds."""
        self.success.add(ns)
        self.latencies[bisect_left(BUCKETS, ns / 1e9)] += 1

    def failed(self, ns: int) -> None:
        """A request failed after so many nanoseconds."""
        self.fail.add(ns)

    def to_json(self) -> dict[str, object]:
        """All but name and version of the protocol's ModelStatistics."""
        nothing = Duration().to_json()
        durations = {name: getattr(self, name).to_json() for name in ("success", "fail", "queue")}
        return {
            "last_inference": self.last_inference_ms,
            "inference_count": self.inferences,
            "execution_count": self.executions,
            "inference_stats": {**durations, **self.phases.to_json(), "cache_hit": nothing, "cache_miss": nothing},
            "batch_stats": [{"batch_size": size, **phases.to_json()} for size, phases in sorted(self.batches.items())],
            "memory_usage": [],
        }
