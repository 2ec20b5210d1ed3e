"""Where the deformable layers of two models look, on one set of inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from deploydcn.errors import UserError
from deploydcn.parity import ParityCase
from deploydcn.visual import Layer, SamplingDifference, sampling_differences
from deploydcn.visual.sources import Source

TOLERANCE = 0.1
"""Pixels of the image: less moves no sample's value by what could be seen."""


@dataclass(frozen=True)
class Sampling:
    """Every deformable layer that both sides have, in order, on one set of inputs; notes on what could not be watched."""

    case: ParityCase
    layers: tuple[SamplingDifference, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def different(self) -> tuple[SamplingDifference, ...]:
        """Those that have points further apart than TOLERANCE."""
        return tuple(layer for layer in self.layers if layer.share > 0)

    def to_json(self) -> dict[str, Any]:
        """Everything but the points, as plain values."""
        layers = [{**layer.to_json(), "largest": layer.largest if np.isfinite(layer.largest) else "inf"} for layer in self.layers]
        return {"label": self.case.label, "tolerance": TOLERANCE, "layers": layers, "notes": list(self.notes)}


def compare_sampling(models: tuple[Any, Any], case: ParityCase) -> Sampling:
    """Watch both models on one set of inputs. What cannot be watched, an engine or a model without an image, is a note and no error.

    Args:
        models: reference and candidate: ONNX files, torch modules, (module, example), or factories' names.
        case: the inputs.
    """
    sides, notes = [], []
    for model in models:
        try:
            source = Source.of(model)
            sides.append(source.watch(_feeds(source, case.inputs)))
            notes += source.notes
        except UserError as error:
            return Sampling(case, notes=(f"where deformable layers sample cannot be told: {error}",))
    reference, candidate = sides
    if not {layer.name for layer in reference} & {layer.name for layer in candidate} and _alike(reference, candidate):
        candidate = [replace(layer, name=other.name) for layer, other in zip(candidate, reference, strict=True)]
        notes += ["the two sides name their deformable layers differently; they are paired in order"] if reference else []
    found = sampling_differences(reference, candidate, tolerance=TOLERANCE)
    missing = [layer.name for layer in reference if layer.name not in {item.layer for item in found}]
    if missing:
        notes.append(f"without a partner of its size in the candidate: {', '.join(missing)}")
    return Sampling(case, tuple(found), tuple(dict.fromkeys(notes)))


def _feeds(source: Source, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By the model's own names: the same ones, or in order."""
    names = [info.name for info in source.infos]
    return dict(inputs) if set(names) == set(inputs) else dict(zip(names, inputs.values(), strict=False))


def _alike(reference: Sequence[Layer], candidate: Sequence[Layer]) -> bool:
    return [layer.output_size for layer in reference] == [layer.output_size for layer in candidate]
