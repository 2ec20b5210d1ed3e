"""GroupedConv2d: ONNX has it."""

from __future__ import annotations

import onnx_ir as ir

from deploydcn.export.builder import OpBuilder
from deploydcn.export.portable.node import SpecNode
from deploydcn.export.standard import activate


def grouped_conv2d(op: OpBuilder, node: SpecNode) -> list[ir.Value]:
    """Y (N, M, OH, OW)."""
    window = {name: value for name, value in node.attributes.items() if name != "activation" and value is not None}
    inputs = [op.to_real(node.inputs[name]) if name in node.inputs else None for name in ("X", "W", "B")]
    return [activate(op, op.Conv(*inputs, **window), node.attributes["activation"])]
