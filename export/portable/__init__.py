"""Our operators in core ONNX operators of opset 16 and later, for runtimes that take no plugin.

README.md has what that costs. Half-precision data is computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from deploydcn.errors import ExportError
from deploydcn.export import graph
from deploydcn.export.builder import OpBuilder
from deploydcn.export.portable.dcnv3 import dcnv3, dcnv4
from deploydcn.export.portable.deform_conv2d import deform_conv2d
from deploydcn.export.portable.deform_psroi_pool import deform_psroi_pool
from deploydcn.export.portable.deform_roi_pool import deform_roi_pool
from deploydcn.export.portable.grouped_conv2d import grouped_conv2d
from deploydcn.export.portable.ms_deform_attn import ms_deform_attn
from deploydcn.export.portable.node import SpecNode
from deploydcn.export.portable.separable_conv2d import separable_conv2d
from deploydcn.onnx_schema import DOMAIN
from deploydcn.ops import OPS, Op

Decomposition = Callable[[OpBuilder, SpecNode], list[ir.Value]]

DECOMPOSITIONS: Mapping[str, Decomposition] = {
    "DeformConv2d": deform_conv2d,
    "GroupedConv2d": grouped_conv2d,
    "SeparableConv2d": separable_conv2d,
    "DCNv3": dcnv3,
    "DCNv4": dcnv4,
    "MSDeformAttn": ms_deform_attn,
    "DeformRoIPool": deform_roi_pool,
    "DeformPSRoIPool": deform_psroi_pool,
    # new-op: insert above
}


def decompose(model: ir.Model, ops: Sequence[Op] = OPS) -> list[str]:
    """Replace every node of these operators.

    Raises:
        ExportError: an operator without a portable form.
    """
    counts: dict[str, int] = {}
    for op in ops:
        for node in graph.nodes_of(model, op.spec.name, DOMAIN):
            if op.spec.name not in DECOMPOSITIONS:
                raise ExportError(f"node {node.name!r}: {op.spec.name} has no portable form; wanted one of {', '.join(DECOMPOSITIONS)}")
            _replace(node, SpecNode(op.spec, node))
            counts[op.spec.name] = counts.get(op.spec.name, 0) + 1
    return [
        f"{count} {name} written in core ONNX operators: slower than our kernels, and four samples of every tap lie in memory"
        for name, count in counts.items()
    ]


def _replace(node: ir.Node, spec_node: SpecNode) -> None:
    dtype = next((value.dtype for value in (*node.outputs, *node.inputs) if value is not None and value.dtype), ir.DataType.FLOAT)
    op = OpBuilder(ir.DataType.DOUBLE if dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT)
    results = DECOMPOSITIONS[spec_node.spec.name](op, spec_node)
    outputs = [result if dtype == op.real else op.Cast(result, to=dtype) for result in results]
    graph.replace([node], op.nodes, outputs)
    for index, inner in enumerate(op.nodes):
        inner.name = f"{node.name or spec_node.spec.snake_name}/{inner.op_type}_{index}"
