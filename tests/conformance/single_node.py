"""A model of one deploydcn node, for any operator, any types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from deploydcn.spec import OpSpec

ELEMENT_TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "int32": TensorProto.INT32,
}


def is_constant(name: str) -> bool:
    """Whether an input is a weight or a bias, which exported models keep in the file."""
    return name.rpartition("_")[2] in ("W", "B")


def single_node_model(
    spec: OpSpec,
    shapes: Mapping[str, tuple[int | str | None, ...]],
    attributes: Mapping[str, Any],
    types: Mapping[str, str],
    *,
    constants: Mapping[str, np.ndarray] | None = None,
    op_type: str | None = None,
    domain: str = "deploydcn",
    opset: int = 20,
) -> onnx.ModelProto:
    """A model with one node.

    shapes: of the inputs that are present. types: element type per type parameter. constants: inputs stored in the file.
    bfloat16 tensors enter and leave as float32, since NumPy has no such type.
    """
    constants = constants or {}
    nodes, inputs, names, initializers = [], [], [], []
    for tensor in spec.inputs:
        if tensor.name not in shapes:
            names.append("")
            continue
        dtype = types[tensor.type_param]
        outer = "float32" if dtype == "bfloat16" else dtype
        if tensor.name in constants:
            initializers.append(onnx.numpy_helper.from_array(constants[tensor.name].astype(outer), tensor.name))
        else:
            inputs.append(helper.make_tensor_value_info(tensor.name, ELEMENT_TYPES[outer], list(shapes[tensor.name])))
        names.append(tensor.name)
        if dtype == "bfloat16":
            names[-1] = f"{tensor.name}_bfloat16"
            nodes.append(helper.make_node("Cast", [tensor.name], names[-1:], to=ELEMENT_TYPES[dtype]))
    while names and not names[-1]:
        names.pop()
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in attributes.items()}
    results, inner, casts = [], [], []
    for output in spec.outputs:
        dtype = types[output.type_param]
        outer = "float32" if dtype == "bfloat16" else dtype
        inner.append(f"{output.name}_bfloat16" if dtype == "bfloat16" else output.name)
        if dtype == "bfloat16":
            casts.append(helper.make_node("Cast", inner[-1:], [output.name], to=TensorProto.FLOAT))
        results.append(helper.make_tensor_value_info(output.name, ELEMENT_TYPES[outer], [None] * len(output.axes)))
    nodes += [helper.make_node(op_type or spec.name, names, inner, name="node", domain=domain, **given), *casts]
    graph = helper.make_graph(nodes, "single_node", inputs, results, initializers)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("deploydcn", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)
