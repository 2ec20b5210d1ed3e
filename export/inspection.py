"""What an ONNX file holds and what a conversion would make of it; importing this needs no onnx_ir."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploydcn._lazy import lazy_import
from deploydcn.errors import ExportError, InvalidArgument, InvalidModel
from deploydcn.export.convert import NodeMapping
from deploydcn.export.targets import TARGETS
from deploydcn.runners import TensorInfo


@dataclass(frozen=True)
class FoundNode:
    """A deformable or foreign node: operator with its domain, and its inputs as far as they are known."""

    node: str
    operator: str
    inputs: tuple[TensorInfo, ...]


@dataclass(frozen=True)
class TargetPlan:
    """What a conversion to one target would do. error: why it would be refused, else ""."""

    target: str
    mapping: tuple[NodeMapping, ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class InspectReport:
    """bytes: of the file and its external data. domains: operator set versions, "" being ONNX's own."""

    path: Path
    bytes: int
    ir_version: int
    producer: str
    domains: Mapping[str, int]
    nodes: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    found: tuple[FoundNode, ...]
    plans: tuple[TargetPlan, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "path": str(self.path),
            "bytes": self.bytes,
            "ir_version": self.ir_version,
            "producer": self.producer,
            "domains": dict(self.domains),
            "nodes": self.nodes,
            "inputs": [str(info) for info in self.inputs],
            "outputs": [str(info) for info in self.outputs],
            "found": [{"node": item.node, "operator": item.operator, "inputs": [str(info) for info in item.inputs]} for item in self.found],
            "plans": [
                {
                    "target": plan.target,
                    "error": plan.error,
                    "mapping": [item.to_json() for item in plan.mapping],
                    "notes": list(plan.notes),
                }
                for plan in self.plans
            ],
        }


def inspect(path: str | os.PathLike[str], *, targets: Sequence[str] = tuple(TARGETS)) -> InspectReport:
    """Describe an ONNX file, and convert it for each target in memory to see what would become of its nodes.

    Raises:
        InvalidArgument: an unknown target.
        InvalidModel: the file cannot be read.
        MissingDependency: onnx_ir is not installed.
    """
    for target in targets:
        if target not in TARGETS:
            raise InvalidArgument(f"target is {target!r}; wanted some of {', '.join(TARGETS)}")
    ir = lazy_import("onnx_ir", extra="export")
    from deploydcn.export import conversion
    from deploydcn.export.finish import tensor_info

    file = Path(path)
    model = conversion.read(file)
    nodes = list(model.graph.all_nodes())
    external = {weight.path for value in model.graph.initializers.values() if isinstance(weight := value.const_value, ir.ExternalTensor)}
    return InspectReport(
        path=file,
        bytes=file.stat().st_size + sum(Path(data).stat().st_size for data in external),
        ir_version=model.ir_version,
        producer=" ".join(filter(None, (model.producer_name, model.producer_version))),
        domains=dict(model.opset_imports),
        nodes=len(nodes),
        inputs=tuple(tensor_info(value) for value in model.graph.inputs),
        outputs=tuple(tensor_info(value) for value in model.graph.outputs),
        found=conversion.deformable_or_foreign(model),
        plans=tuple(_plan(file, target) for target in targets),
    )


def _plan(path: Path, target: str) -> TargetPlan:
    from deploydcn.export import conversion

    try:
        _, mapping, notes, _ = conversion.rewritten(path, target)
    except (ExportError, InvalidModel) as error:
        return TargetPlan(target, error=str(error))
    return TargetPlan(target, tuple(mapping), tuple(notes))
