"""Our operators <-> ONNX's own, where the standard has one of the same signature: a change of domain."""

from __future__ import annotations

import onnx_ir as ir

from deploydcn.export.builder import OpBuilder
from deploydcn.export.graph import nodes_of, replace
from deploydcn.onnx_schema import DOMAIN, VERSION
from deploydcn.ops import OPS

BFLOAT16_OPSET = 22
"""The first opset whose Conv and DeformConv take bfloat16."""


def from_standard(model: ir.Model) -> list[str]:
    """DeformConv -> deploydcn::DeformConv2d."""
    changed = 0
    for node in nodes_of(model, "DeformConv"):
        node.domain, node.op_type, node.version = DOMAIN, "DeformConv2d", VERSION
        changed += 1
    if not changed:
        return []
    model.opset_imports[DOMAIN] = VERSION
    return [f"{changed} DeformConv became deploydcn::DeformConv2d, whose offsets may be float32 beside half-precision data"]


def to_standard(model: ir.Model) -> list[str]:
    """deploydcn::DeformConv2d -> DeformConv and so on, with activations as nodes of their own and offsets in the data's type."""
    narrow = model.opset_imports.get("", 0) < BFLOAT16_OPSET
    return [
        note
        for op in OPS
        for node in (nodes_of(model, op.spec.name, DOMAIN) if op.spec.standard_op else ())
        for note in _lower(node, op.spec.standard_op, widen_bfloat16=narrow)
    ]


def activate(op: OpBuilder, value: ir.Value, activation: str) -> ir.Value:
    """The operators of a fused activation. `op.real` is the value's type."""
    if activation == "relu":
        return op.Relu(value)
    if activation == "relu6":
        return op.Clip(value, 0.0, 6.0)
    return op.Mul(value, op.Sigmoid(value)) if activation == "silu" else value


def _lower(node: ir.Node, op_type: str, *, widen_bfloat16: bool) -> list[str]:
    notes, inputs = [], list(node.inputs)
    dtype = next((value.dtype for value in (*inputs[:1], *node.outputs) if value is not None and value.dtype), ir.DataType.FLOAT)
    op = OpBuilder(ir.DataType.FLOAT if dtype == ir.DataType.BFLOAT16 and widen_bfloat16 else dtype)
    if op.real != dtype:
        inputs = [value if value is None else op.to_real(value, dtype) for value in inputs]
        notes.append(f"{node.name}: computed in float32: {op_type} takes bfloat16 from opset {BFLOAT16_OPSET} on")
    elif op_type == "DeformConv" and inputs[2] is not None and inputs[2].dtype not in (None, dtype):
        notes.append(f"{node.name}: offsets cast from {inputs[2].dtype} to {dtype}: the standard DeformConv has one type for both")
        shape = inputs[2].shape
        inputs[2] = op.Cast(inputs[2], to=dtype)
        inputs[2].shape = shape
    attributes = {name: attr.value for name, attr in node.attributes.items() if name != "activation"}
    result = getattr(op, op_type)(*inputs, **attributes)
    result.type, result.shape = ir.TensorType(op.real), node.outputs[0].shape
    op.nodes[-1].name = node.name
    activation = node.attributes["activation"].as_string() if "activation" in node.attributes else ""
    result = activate(op, result, activation)
    replace([node], op.nodes, [result if op.real == dtype else op.Cast(result, to=dtype)])
    return notes
