"""The statistics of all models for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from deploydcn.serving.model import ServedModel
from deploydcn.serving.service import Service
from deploydcn.serving.statistics import BUCKETS

_LABELS = ("model", "version")
_COUNTERS: tuple[tuple[str, str, Callable[[ServedModel], float]], ...] = (
    ("requests_success", "Requests answered.", lambda model: model.statistics.success.count),
    ("requests_failed", "Requests that failed, timed out or were abandoned.", lambda model: model.statistics.fail.count),
    ("requests_rejected", "Requests refused because the queue was full.", lambda model: model.statistics.rejected),
    ("inferences", "Items inferred: a request of batch 4 counts as 4.", lambda model: model.statistics.inferences),
    ("executions", "Runs of the model.", lambda model: model.statistics.executions),
    ("queue_seconds", "Time that requests waited.", lambda model: model.statistics.queue.ns / 1e9),
    ("compute_seconds", "Time that requests' runs took.", lambda model: model.statistics.phases.compute_infer.ns / 1e9),
)


class _ModelCollector(Collector):
    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        models = list(self._service.repository.loaded())
        for name, text, value in _COUNTERS:
            counter = CounterMetricFamily(f"deploydcn_{name}", text, labels=_LABELS)
            for model in models:
                counter.add_metric(_labels(model), value(model))
            yield counter
        waiting = GaugeMetricFamily("deploydcn_requests_waiting", "Requests in the queue now.", labels=_LABELS)
        latency = HistogramMetricFamily("deploydcn_request_seconds", "From a request's checks to its answer.", labels=_LABELS)
        for model in models:
            waiting.add_metric(_labels(model), model.queued)
            counts = accumulate(model.statistics.latencies)
            buckets = list(zip([*map(str, BUCKETS), "+Inf"], map(float, counts), strict=True))
            latency.add_metric(_labels(model), buckets, sum_value=model.statistics.success.ns / 1e9)
        yield waiting
        yield latency


def render(service: Service) -> bytes:
    """The text that Prometheus scrapes."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_ModelCollector(service))
    return generate_latest(registry)


def _labels(model: ServedModel) -> list[str]:
    return [model.name, str(model.version)]
