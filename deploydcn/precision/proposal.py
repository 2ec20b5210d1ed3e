"""Which nodes to keep in float32: greedily, what lowers the predicted noise most for each layer given up."""

from __future__ import annotations

from collections.abc import Collection
from glob import escape

import numpy as np

from deploydcn.precision.lowering import Lowering
from deploydcn.precision.noise import Noise

CANDIDATES = 8
"""Of the loudest sources, those that are tried at each step."""


def propose(lowering: Lowering, noise: Noise, allowed: float) -> tuple[str, ...] | None:
    """Patterns for `exclude`, those that help most first, so that the predicted noise is `allowed` or less; None where that takes all.

    allowed: noise power over signal power at the worst output.
    """
    layers = {layer.node for layer in lowering.layers}
    chosen: list[str] = []
    active = lowering.active(())
    while noise.together(active) > allowed:
        best: tuple[float, list[str], frozenset[int]] | None = None
        for index in sorted(active, key=lambda index: noise.outputs[index].max(), reverse=True)[:CANDIDATES]:
            more = [escape(name) for name in sorted(lowering.sources[index].nodes) if escape(name) not in chosen]
            left = lowering.active([*chosen, *more])
            gain = _loudness(noise, active) - _loudness(noise, left)
            benefit = gain / max(1, len(layers & lowering.sources[index].nodes))
            if gain > 0 and (best is None or benefit > best[0]):
                best = benefit, more, left
        if best is None:
            return None
        chosen += best[1]
        active = best[2]
    if chosen and not any(lowering.sources[index].constants for index in active):
        return None
    return _without_needless(lowering, noise, chosen, allowed)


def _loudness(noise: Noise, sources: Collection[int]) -> float:
    """One number for how far outputs are off, every output counted; what is not finite counts more than anything else."""
    return float(np.nan_to_num(noise.outputs[sorted(sources)], posinf=1e30).sum())


def _without_needless(lowering: Lowering, noise: Noise, chosen: list[str], allowed: float) -> tuple[str, ...]:
    """Leave out names without which the prediction is good enough too: what was chosen late may have made them so."""
    for name in list(reversed(chosen)):
        rest = [other for other in chosen if other != name]
        if noise.together(lowering.active(rest)) <= allowed:
            chosen = rest
    return tuple(chosen)
