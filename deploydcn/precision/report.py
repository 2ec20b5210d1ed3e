"""What a lower precision would cost, in numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class LayerDrift:
    """One layer lowered by itself: its weights and its inputs rounded, all else in float32.

    kept: why it stays in float32 anyway; then the numbers are those of no noise. local_db: signal to noise at its output. output_db: the
    same at the model's output that suffers most. worst: the largest error at its output over the range of the values there. share: its
    part of the noise of all layers.
    """

    node: str
    operator: str
    kept: str
    local_db: float
    output_db: float
    worst: float
    share: float


@dataclass(frozen=True)
class Proposal:
    """A way to lower the model. exclude: patterns of nodes that stay in float32 beside those that always do, most useful first.
    predicted_db, measured_db: signal to noise of the worst output. mismatch: why an output cannot be compared; measured_db is -inf
    then."""

    exclude: tuple[str, ...]
    predicted_db: float
    measured_db: float
    mismatch: str = ""


@dataclass(frozen=True)
class DriftReport:
    """Layers in the order of the model. everything: all layers lowered that can be. proposal: the fewest kept that reach `target_db`; None
    where that was not asked for, or cannot be reached. probes: samples on which each rounding was tried by itself. path: the
    lowered file, where one was written. how_measured: what the lowered file was run as. free_shapes: of the inputs that the file takes in
    any size, not in any number only, the shape of the first sample."""

    source: Path
    dtype: str
    samples: int
    probes: int
    layers: tuple[LayerDrift, ...]
    everything: Proposal
    target_db: float | None
    proposal: Proposal | None
    path: Path | None
    how_measured: str
    seconds: float
    free_shapes: Mapping[str, tuple[int, ...]]

    @property
    def reached(self) -> bool:
        """Whether the target is reached, or none was set."""
        return self.target_db is None or (self.proposal is not None and self.proposal.measured_db >= self.target_db)

    def summary(self) -> str:
        """One line for logs."""
        lowered = sum(not layer.kept for layer in self.layers)
        text = f"{self.source}: {lowered} of {len(self.layers)} layers in {self.dtype}: {self.everything.measured_db:.1f} dB"
        text += f" (predicted {self.everything.predicted_db:.1f}) over {self.samples} samples"
        if self.everything.mismatch:
            text += f"; {self.everything.mismatch}"
        if self.target_db is None:
            return text
        if self.proposal is None:
            return f"{text}; {self.target_db:g} dB cannot be reached: no layer would be left in {self.dtype}"
        verdict = "" if self.reached else f", short of {self.target_db:g}"
        kept = f"{len(self.proposal.exclude)} nodes kept" if self.proposal.exclude else "nothing more kept"
        return f"{text}; {kept}: {self.proposal.measured_db:.1f} dB (predicted {self.proposal.predicted_db:.1f}){verdict}"

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values; infinities become strings, since JSON has none."""
        return {
            "source": str(self.source),
            "dtype": self.dtype,
            "samples": self.samples,
            "probes": self.probes,
            "layers": [_plain(asdict(layer)) for layer in self.layers],
            "everything": _proposal(self.everything),
            "target_db": self.target_db,
            "reached": self.reached,
            "proposal": None if self.proposal is None else _proposal(self.proposal),
            "path": None if self.path is None else str(self.path),
            "how_measured": self.how_measured,
            "seconds": round(self.seconds, 2),
            "free_shapes": {name: list(shape) for name, shape in self.free_shapes.items()},
        }


def _proposal(proposal: Proposal) -> dict[str, Any]:
    return _plain({**asdict(proposal), "exclude": list(proposal.exclude)})


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()}
