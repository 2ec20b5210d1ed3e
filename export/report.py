"""What an export did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploydcn.parity import OutputComparison
from deploydcn.runners import TensorInfo


@dataclass(frozen=True)
class ShapeCheck:
    """The file run at one set of input shapes. `note` says where a wider tolerance was used, and why."""

    label: str
    shapes: Mapping[str, tuple[int, ...]]
    outputs: tuple[OutputComparison, ...]
    tolerance: float
    note: str = ""

    @property
    def worst(self) -> float:
        return max(output.worst_channel for output in self.outputs)

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "label": self.label,
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "tolerance": self.tolerance,
            "note": self.note,
            "outputs": [output.to_json() for output in self.outputs],
        }


@dataclass(frozen=True)
class ExportReport:
    """A written file. operators: how many nodes of each deformable or deploydcn operator. notes: what was changed on the way."""

    path: Path
    target: str
    opset: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    nodes: int
    operators: Mapping[str, int]
    checks: tuple[ShapeCheck, ...]
    seconds: float
    notes: tuple[str, ...] = field(default=())

    def summary(self) -> str:
        """One line for logs."""
        counts = ", ".join(f"{count} {name}" for name, count in self.operators.items()) or "no deformable operators"
        proof = f"{len(self.checks)} shapes within {max(check.worst for check in self.checks):.2g}" if self.checks else "unchecked"
        return f"{self.path}: target {self.target}, opset {self.opset}, {self.nodes} nodes ({counts}); {proof}"

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "path": str(self.path),
            "target": self.target,
            "opset": self.opset,
            "inputs": [str(info) for info in self.inputs],
            "outputs": [str(info) for info in self.outputs],
            "nodes": self.nodes,
            "operators": dict(self.operators),
            "seconds": round(self.seconds, 2),
            "notes": list(self.notes),
            "checks": [check.to_json() for check in self.checks],
        }
