"""ONNX -> ONNX: files of any exporter, for any target; importing this needs no onnx_ir."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploydcn._lazy import lazy_import
from deploydcn.errors import InvalidArgument
from deploydcn.export.report import ShapeCheck
from deploydcn.export.targets import TARGETS
from deploydcn.runners import TensorInfo


@dataclass(frozen=True)
class NodeMapping:
    """A deformable or foreign node of the source. becomes: its operator in the target, "" where it stays as it is; reason: why."""

    node: str
    operator: str
    inputs: tuple[TensorInfo, ...]
    becomes: str
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "node": self.node,
            "operator": self.operator,
            "inputs": [str(info) for info in self.inputs],
            "becomes": self.becomes,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class ConvertReport:
    """A converted file.

    mapping: what became of every deformable or foreign node. checks: outputs of `reference` and of the file compared, one entry per
    set of input shapes; empty when nothing could be compared, and then a note says why.
    """

    path: Path
    source: Path
    target: str
    source_opset: int
    opset: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    nodes: int
    operators: Mapping[str, int]
    mapping: tuple[NodeMapping, ...]
    reference: str
    checks: tuple[ShapeCheck, ...]
    seconds: float
    notes: tuple[str, ...] = field(default=())

    def summary(self) -> str:
        """One line for logs."""
        counts = ", ".join(f"{count} {name}" for name, count in self.operators.items()) or "no deformable operators"
        worst = max((check.worst for check in self.checks), default=0.0)
        proof = f"{len(self.checks)} shapes within {worst:.2g} of {self.reference}" if self.checks else "not compared"
        return f"{self.path}: target {self.target}, opset {self.opset}, {self.nodes} nodes ({counts}); {proof}"

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "path": str(self.path),
            "source": str(self.source),
            "target": self.target,
            "source_opset": self.source_opset,
            "opset": self.opset,
            "inputs": [str(info) for info in self.inputs],
            "outputs": [str(info) for info in self.outputs],
            "nodes": self.nodes,
            "operators": dict(self.operators),
            "mapping": [mapping.to_json() for mapping in self.mapping],
            "reference": self.reference,
            "checks": [check.to_json() for check in self.checks],
            "notes": list(self.notes),
            "seconds": round(self.seconds, 2),
        }


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    target: str,
    check: bool = True,
    inputs: Mapping[str, Any] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> ConvertReport:
    """Convert an ONNX file for a target.

    Understood are our own operators, the standard DeformConv (Paddle's and PyTorch's exports), and the nodes of mmcv, mmdeploy, TensorRT's
    plugins and DCNv2 forks (see `deploydcn.export.foreign`). Files older than the target's operators are raised to opset 20; subgraphs
    and external data are followed; local functions are inlined. Nodes that nothing here knows stay as they are, and a note says
    so. The file is checked by onnx.checker with strict shape inference, compared with the source in ONNX Runtime, and appears only when
    complete.

    Args:
        src: the file to read.
        dst: the file to write; another one. Models beyond 2 GB get their weights in `<dst>.data`.
        target: "ort", "standard", "portable" or "tensorrt"; see `deploydcn.export.TARGETS`.
        check: compare the outputs of source and result. Where the source does not run in ONNX Runtime, its nodes as
            deploydcn's operators are the reference; the report says so.
        inputs: arrays by name for that comparison; random ones at two sizes when None.
        shapes: of dynamic inputs, by name, for random inputs; sensible ones are tried when None.

    Returns:
        What was written, what became of each node, and how close the results are.

    Raises:
        InvalidArgument: an unknown target, `dst` is `src`, or inputs or shapes that do not fit.
        InvalidModel: `src` cannot be read, is not valid ONNX, or one of its nodes is malformed.
        ExportError: a deformable node has no exact equivalent for the target, the opset cannot be raised, or results differ: no file
            is written.
        MissingDependency: onnx_ir or, for the check, onnxruntime is not installed.
    """
    if not isinstance(target, str) or target not in TARGETS:
        raise InvalidArgument(f"target is {target!r}; wanted one of {', '.join(TARGETS)}")
    for name, path in (("src", src), ("dst", dst)):
        if not isinstance(path, str | os.PathLike):
            raise InvalidArgument(f"{name} is {path!r}; wanted a file name")
    source, result = Path(src), Path(dst)
    if source.resolve() == result.resolve():
        raise InvalidArgument(
            f"{source} is to be read and written; wanted another file to write, as in {source.with_suffix(f'.{target}.onnx')}"
        )
    lazy_import("onnx_ir", extra="export")
    if check:
        lazy_import("onnxruntime", extra="cpu")
    from deploydcn.export.conversion import run

    return run(source, result, target, check=check, inputs=inputs, shapes=shapes)
