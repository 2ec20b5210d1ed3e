"""What the search for the first divergence found: plain data, no presentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from deploydcn.parity.compare import OutputComparison
from deploydcn.parity.statistics import TensorStatistics
from deploydcn.parity.taps import OnnxPart, Operator, TorchPart

Verdict = Literal["layer", "unobserved", "accumulated", "does not run", "agree", "outputs only"]


@dataclass(frozen=True)
class LayerComparison:
    """A tensor that both models have, and the steps that compute it from the matched tensors before it.

    name: of the tensor in the candidate; reference: in the reference. path: of the module that computes it: of the first step with
    weights, else of the last. matched_by: see Match. accumulated: both
    models ran on the inputs; None where that was not run. local: the candidate's steps ran on the reference's tensors; None where
    that was not run. limit: local error that rounding alone may explain. sources: the matched tensors and inputs that feed it, in the
    candidate.
    """

    name: str
    reference: str
    path: str
    matched_by: str
    accumulated: OutputComparison | None
    local: OutputComparison | None
    limit: float
    choice: bool
    sources: tuple[str, ...]
    operators: tuple[Operator, ...]
    reference_operators: tuple[Operator, ...]

    @property
    def accumulated_error(self) -> float:
        return 0.0 if self.accumulated is None else self.accumulated.worst_channel

    @property
    def local_error(self) -> float:
        return 0.0 if self.local is None else self.local.worst_channel

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "name": self.name,
            "reference": self.reference,
            "path": self.path,
            "matched_by": self.matched_by,
            "accumulated": None if self.accumulated is None else self.accumulated.to_json(),
            "local": None if self.local is None else self.local.to_json(),
            "limit": self.limit,
            "choice": self.choice,
            "sources": list(self.sources),
            "operators": [operator.to_json() for operator in self.operators],
            "reference_operators": [operator.to_json() for operator in self.reference_operators],
        }


@dataclass(frozen=True)
class Evidence:
    """The tensors of one finding, and what computes them.

    inputs: what the candidate's steps were fed with, by the candidate's names: the reference's tensors in the candidate's types.
    expected: the reference's result; got: the candidate's on these inputs, None when it does not run on them; accumulated: the
    candidate's on its own, None when the candidate does not run. part: the candidate's steps.
    """

    inputs: Mapping[str, np.ndarray]
    expected: np.ndarray
    got: np.ndarray | None
    accumulated: np.ndarray | None
    part: OnnxPart | TorchPart


@dataclass(frozen=True)
class Finding:
    """The first layer that computes something else. differences: attributes and parameters that the two sides do not share, one
    sentence each. statistics: of the tensors in `evidence`: "expected", "got", "accumulated". before: accumulated error of each tensor that
    feeds the layer."""

    layer: LayerComparison
    before: Mapping[str, float]
    differences: tuple[str, ...]
    statistics: Mapping[str, TensorStatistics]
    evidence: Evidence = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Everything but the tensors, as plain values."""
        return {
            "layer": self.layer.to_json(),
            "before": {name: error if np.isfinite(error) else str(error) for name, error in self.before.items()},
            "differences": list(self.differences),
            "statistics": {name: value.to_json() for name, value in self.statistics.items()},
        }


@dataclass(frozen=True)
class Location:
    """Where two models part.

    verdict: "layer": `finding` is the first layer whose local error jumps. "unobserved": the difference vanishes while tensors in the
    layer are outputs, as when a runtime fuses operators; `finding` covers what is fused. "accumulated": no layer stands out; see
    `contributors`. "does not run": the candidate, though all of its layers do. "agree": the outputs do. "outputs only": a side shows no
    tensors but its outputs.
    explanation: the same in a sentence or two. label: of the inputs. layers: every matched tensor, in the candidate's order: the
    error along the network. noise: the median local error. unmatched: tensors of the candidate that have no partner. peak_bytes: most
    that was held of both sides' tensors at a time.
    """

    verdict: Verdict
    explanation: str
    label: str
    finding: Finding | None = None
    layers: tuple[LayerComparison, ...] = ()
    noise: float = 0.0
    unmatched: int = 0
    peak_bytes: int = 0

    @property
    def contributors(self) -> tuple[LayerComparison, ...]:
        """The (at most five) layers of the largest local errors, largest first."""
        return tuple(sorted((layer for layer in self.layers if layer.local_error), key=lambda layer: -layer.local_error)[:5])

    def to_json(self) -> dict[str, Any]:
        """Everything but the tensors, as plain values."""
        return {
            "verdict": self.verdict,
            "explanation": self.explanation,
            "label": self.label,
            "finding": None if self.finding is None else self.finding.to_json(),
            "noise": self.noise,
            "unmatched": self.unmatched,
            "peak_bytes": self.peak_bytes,
            "layers": [layer.to_json() for layer in self.layers],
        }
