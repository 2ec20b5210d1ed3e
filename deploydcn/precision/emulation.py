"""A file in half precision, computed in float32 with every half-precision value rounded.

What GPUs do: products are summed up in float32 and rounded to the type of the output. ONNX Runtime on processors has few kernels for
float16 and none for bfloat16; it computes the others in float32 without rounding in between, so that nothing overflows there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from deploydcn.export.conversion import infer
from deploydcn.export.precision import checked_model

HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def in_float32(path: Path) -> onnx.ModelProto:
    """The model with the numbers of its half-precision types, in float32. The nodes of branches and loops are float32 already.

    Raises:
        InvalidModel: `path` cannot be read, or is not valid ONNX.
    """
    model = checked_model(path)
    infer(model)
    ir.external_data.load_to_model(model)
    for value in list(model.graph.initializers.values()):
        if value.dtype in HALF and value.const_value is not None:
            wide = ir.tensor(np.asarray(value.const_value.numpy()).astype(np.float32), name=value.name)
            value.const_value, value.type = wide, ir.TensorType(ir.DataType.FLOAT)
    for value in model.graph.inputs:
        if value.dtype in HALF:
            value.type = ir.TensorType(ir.DataType.FLOAT)
    for node in list(model.graph):
        for value in node.outputs:
            if value.dtype in HALF:
                _round(model, node, value, value.dtype)
    return ir.to_proto(model)


def _round(model: ir.Model, node: ir.Node, value: ir.Value, half: ir.DataType) -> None:
    """node -> value becomes node -> cast to half -> cast to float32 -> all that read the value. A cast to half needs the second only."""
    uses, nodes = list(value.uses()), []
    source = value
    if node.op_type != "Cast":
        nodes.append(ir.node("Cast", [value], attributes={"to": int(half)}))
        source = nodes[0].outputs[0]
        source.name, value.type = f"{value.name}/half", ir.TensorType(ir.DataType.FLOAT)
    back = ir.node("Cast", [source], attributes={"to": int(ir.DataType.FLOAT)})
    result = back.outputs[0]
    result.name, result.shape, result.type = f"{value.name}/float", value.shape, ir.TensorType(ir.DataType.FLOAT)
    model.graph.insert_after(node, [*nodes, back])
    for user, index in uses:
        user.replace_input_with(index, result)
    for index, output in enumerate(model.graph.outputs):
        if output is value:
            name, value.name = value.name, f"{value.name}/exact"
            result.name, model.graph.outputs[index] = name, result
