"""SeparableConv2d: two convolutions of ONNX."""

from __future__ import annotations

import onnx_ir as ir

from deploydcn.export.builder import OpBuilder
from deploydcn.export.portable.node import SpecNode
from deploydcn.export.standard import activate


def separable_conv2d(op: OpBuilder, node: SpecNode) -> list[ir.Value]:
    """Y (N, M, OH, OW); see the spec of SeparableConv2d."""
    names = ("X", "depthwise_W", "pointwise_W", "depthwise_B", "pointwise_B")
    x, depthwise, pointwise, depthwise_bias, bias = (op.to_real(node.inputs[name]) if name in node.inputs else None for name in names)
    channels = node.known_size("X", 1)
    window = {name: node.attributes[name] for name in ("strides", "pads", "dilations")}
    inner = activate(op, op.Conv(x, depthwise, depthwise_bias, group=channels, **window), node.attributes["depthwise_activation"])
    return [activate(op, op.Conv(inner, pointwise, bias), node.attributes["activation"])]
