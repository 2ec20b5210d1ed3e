"""QLinearDeformConv2d <-> DequantizeLinear, DeformConv2d and QuantizeLinear, the form other runtimes and tools know."""

from __future__ import annotations

import onnx_ir as ir

from deploydcn.export.builder import OpBuilder
from deploydcn.export.graph import nodes_of, replace
from deploydcn.export.portable.node import SpecNode
from deploydcn.export.standard import activate
from deploydcn.onnx_schema import DOMAIN
from deploydcn.ops.qlinear_deform_conv2d import SPEC


def to_qdq(model: ir.Model) -> list[str]:
    """QLinearDeformConv2d -> DequantizeLinear, DeformConv2d, its activation, QuantizeLinear."""
    nodes = list(nodes_of(model, SPEC.name, DOMAIN))
    for node in nodes:
        _lower(node, SpecNode(SPEC, node))
    return [f"{len(nodes)} {SPEC.name} written with QuantizeLinear and DequantizeLinear: {ROUNDING}"] if nodes else []


ROUNDING = "that one rounds its samples to 8 bits, these do not; outputs may differ by a few units"


def _lower(node: ir.Node, read: SpecNode) -> None:
    op, inputs, real = OpBuilder(ir.DataType.FLOAT), read.inputs, ir.TensorType(ir.DataType.FLOAT)
    x = op.DequantizeLinear(inputs["X"], inputs["x_scale"], inputs["x_zero_point"])
    weight = op.DequantizeLinear(inputs["W"], inputs["w_scale"], axis=0)
    bias = None
    if "B" in inputs:  # no DequantizeLinear: TensorRT has none for 32 bits
        bias = op.Mul(op.Cast(inputs["B"], to=ir.DataType.FLOAT), op.Mul(inputs["w_scale"], inputs["x_scale"]))
        bias.type, bias.shape = real, inputs["B"].shape
    window = {name: attr.value for name, attr in node.attributes.items() if name != "activation"}
    y = op.own("DeformConv2d", x, weight, inputs["offset"], bias, inputs.get("mask"), **window)
    op.nodes[-1].name = node.name
    for value, like in ((x, inputs["X"]), (weight, inputs["W"]), (y, node.outputs[0])):
        value.type, value.shape = real, like.shape
    result = op.QuantizeLinear(activate(op, y, read.attributes["activation"]), inputs["y_scale"], inputs["y_zero_point"])
    replace([node], op.nodes, [result])
