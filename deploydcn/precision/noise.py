"""The noise of every source, measured one at a time; of several together, predicted as the sum of their powers.

Roundings of different numbers are as good as independent, and small: to first order the powers of what they do to an output add up.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from deploydcn.errors import InvalidArgument
from deploydcn.precision.lowering import Lowering
from deploydcn.precision.switches import SwitchedModel


@dataclass(frozen=True)
class Noise:
    """Noise power over signal power. outputs: (sources, outputs of the model). local: layer -> {source that it reads: at the layer's own
    output}. worst: layer -> the largest error there over the range of the values. Infinite where something is not finite any more."""

    outputs: np.ndarray
    local: Mapping[str, Mapping[int, float]]
    worst: Mapping[str, float]

    def together(self, sources: Collection[int]) -> float:
        """Of several sources, at the output that suffers most."""
        return float(self.outputs[sorted(sources)].sum(axis=0).max(initial=0.0))


def measure(lowering: Lowering, model: SwitchedModel, samples: Iterable[Mapping[str, np.ndarray]]) -> Noise:
    """Run every source by itself on every sample.

    Raises:
        InvalidArgument: an output of the float32 model is not finite, or none is made of real numbers or has a signal.
    """
    count = len(lowering.sources)
    noise = np.zeros((count, len(model.outputs)))
    signal = np.zeros(len(model.outputs))
    readers = {index: [layer.node for layer in lowering.layers if index in layer.reads] for index in range(count)}
    local: dict[str, dict[int, float]] = {layer.node: dict.fromkeys(layer.reads, 0.0) for layer in lowering.layers if not layer.kept}
    local_signal, worst = dict.fromkeys(local, 0.0), dict.fromkeys(local, 0.0)
    for sample, feeds in enumerate(samples):
        reference = model.run(feeds, ())
        for at, name in enumerate(model.outputs):
            if reference[name].dtype.kind == "f":
                signal[at] += _power(reference[name])
        if not np.all(np.isfinite(signal)):
            raise InvalidArgument(f"the float32 model's outputs are not finite on sample {sample}; wanted finite values; check the sample")
        for node in local:
            local_signal[node] += _power(reference[model.local[node]])
        for index in range(count):
            got = model.run(feeds, (index,))
            for at, name in enumerate(model.outputs):
                noise[index, at] += _difference(reference[name], got[name])
            for node in readers[index]:
                name = model.local[node]
                local[node][index] += _difference(reference[name], got[name])
                worst[node] = max(worst[node], _largest(reference[name], got[name]))
    if not signal.any():
        raise InvalidArgument("no output of the model has real numbers other than zero; wanted some to compare")
    compared = signal > 0
    return Noise(
        noise[:, compared] / signal[compared],
        {node: {index: _ratio(power, local_signal[node]) for index, power in powers.items()} for node, powers in local.items()},
        worst,
    )


def decibels(ratio: float) -> float:
    """Signal to noise of a noise over a signal."""
    return math.inf if ratio == 0 else -10 * math.log10(ratio) if math.isfinite(ratio) else -math.inf


def _ratio(noise: float, signal: float) -> float:
    return noise / signal if signal else (math.inf if noise else 0.0)


def _power(array: np.ndarray) -> float:
    return float(np.sum(np.square(array, dtype=np.float64)))


def _difference(wanted: np.ndarray, got: np.ndarray) -> float:
    """The power of the error; infinite where the two cannot be compared. Whole numbers are not."""
    if wanted.dtype.kind != "f":
        return 0.0
    if wanted.shape != got.shape:
        return math.inf
    with np.errstate(invalid="ignore"):
        power = _power(np.subtract(got, wanted, dtype=np.float64))
    return power if math.isfinite(power) else math.inf


def _largest(wanted: np.ndarray, got: np.ndarray) -> float:
    """The largest error over the range of the values."""
    if wanted.shape != got.shape:
        return math.inf
    if not wanted.size:
        return 0.0
    with np.errstate(invalid="ignore"):
        error = float(np.abs(np.subtract(got, wanted, dtype=np.float64)).max())
    return _ratio(error, float(wanted.max() - wanted.min())) if math.isfinite(error) else math.inf
