"""Ranges from many samples: what a histogram that widens keeps, and where each method cuts."""

from __future__ import annotations

import numpy as np
import pytest

from deploydcn.quantization.ranges import BINS, COVERED, METHODS, Observer, entropy, minmax, percentile


def seen(*parts: np.ndarray) -> Observer:
    observer = Observer()
    for part in parts:
        observer.observe(part.astype(np.float32), histogram=True)
    return observer


def test_every_value_is_counted_however_the_range_grows() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal(1000) * scale for scale in (0.01, 1.0, 37.0, 0.5)]
    observer = seen(*parts)
    assert observer.counts.sum() == 4000
    values = np.concatenate(parts).astype(np.float32)
    assert minmax(observer) == (values.min(), values.max())
    centres = (np.arange(BINS) + 0.5) * 2 * observer.edge / BINS - observer.edge
    spread = np.sqrt(np.average(centres**2, weights=observer.counts))
    assert spread == pytest.approx(values.std(), rel=0.01)  # bins are 0.1 % of the range


@pytest.mark.parametrize("method", METHODS)
def test_zero_is_in_every_range(method: str) -> None:
    """Padding is 0 and must have an exact value."""
    for values in (np.linspace(3, 5, 100), np.linspace(-5, -3, 100), np.zeros(10), np.zeros(0)):
        low, high = METHODS[method](seen(values))
        assert low <= 0 <= high
        assert low >= min(0, values.min(initial=0))
        assert high <= max(0, values.max(initial=0))


def test_percentile_leaves_the_rarest_values_out() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(200_000)
    low, high = percentile(seen(values, np.array([90.0])))
    tail = (1 - COVERED) / 2
    width = 2 * 2 * (2 * 90 / BINS)  # two bins; the range was doubled until it held 90
    assert low == pytest.approx(np.quantile(values, tail), abs=width)
    assert high == pytest.approx(np.quantile(values, 1 - tail), abs=width)


def test_entropy_cuts_an_outlier_and_keeps_an_even_distribution() -> None:
    rng = np.random.default_rng(0)
    _, cut = entropy(seen(rng.standard_normal(200_000), np.array([40.0])))
    assert 2.5 < cut < 8
    low, high = entropy(seen(rng.uniform(-3, 3, 200_000)))
    assert high > 2.8
    assert low < -2.8


def test_samples_may_come_in_any_order() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal(5000) * scale for scale in (1.0, 8.0, 2.0)]
    for method in METHODS.values():
        first, second = method(seen(*parts)), method(seen(*parts[::-1]))
        assert first == pytest.approx(second, rel=0.05)  # the histograms' edges differ by less than a factor of 2
