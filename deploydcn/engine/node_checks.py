"""Checks of deploydcn's and the standard DeformConv nodes against their specs, before any TensorRT code sees them.

TensorRT reports a plugin's refusal as a return code, truncates 64-bit attributes without a word, and ends the process on
some malformed nodes; here every such defect is one sentence that names the node and the fix.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import onnx
from onnx import helper

from deploydcn.engine.source import Fact, all_nodes, node_label
from deploydcn.errors import InvalidArgument, InvalidModel
from deploydcn.onnx_schema import DOMAIN
from deploydcn.ops import OPS
from deploydcn.spec import OpSpec

INT32 = range(-(2**31), 2**31)

OWN = {op.spec.name: op.spec for op in OPS}
STANDARD = {spec.standard_op: spec for spec in OWN.values() if spec.standard_op == "DeformConv"}
"""Standard operators that TensorRT's parser knows only through our library."""


def plugin_nodes(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, OpSpec]]:
    """The nodes that our plugin library runs.

    Raises:
        InvalidModel: an unknown operator in our domain.
    """
    for node in all_nodes(model.graph):
        if node.domain == DOMAIN:
            if node.op_type not in OWN:
                raise InvalidModel(
                    f"{node_label(node)}: deploydcn has no operator {node.op_type!r}; it has {', '.join(OWN)}; "
                    "install the deploydcn that wrote this file"
                )
            if not OWN[node.op_type].gpu:
                raise InvalidModel(
                    f"{node_label(node)}: {node.op_type} runs on CPUs only; convert the file with deploydcn convert --target tensorrt"
                )
            yield node, OWN[node.op_type]
        elif node.domain in ("", "ai.onnx") and node.op_type in STANDARD:
            yield node, STANDARD[node.op_type]


def check_nodes(model: onnx.ModelProto, facts: Mapping[str, Fact], *, where: str = "") -> None:
    """Check every node of ours. where: which input shapes the facts hold for, for messages.

    Raises:
        InvalidModel: a node breaks its spec; the message names it.
    """
    for node, spec in plugin_nodes(model):
        try:
            _check_node(node, spec, facts)
        except InvalidArgument as error:
            raise InvalidModel(f"{node_label(node)}{where}: {error}") from error


def _check_node(node: onnx.NodeProto, spec: OpSpec, facts: Mapping[str, Fact]) -> None:
    attributes = attributes_of(node)
    for name, value in spec.complete_attributes(attributes).items():
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, int) and item not in INT32:
                raise InvalidArgument(
                    f"{spec.name} attribute {name} is {item}; wanted a value that fits 32 bits, as TensorRT cuts the rest off; "
                    "correct the model"
                )
    inputs = {tensor.name: name for tensor, name in zip(spec.inputs, node.input, strict=False) if name}
    for tensor in spec.inputs:
        if not tensor.optional and tensor.name not in inputs:
            raise InvalidArgument(f"{spec.name} input {tensor.name} is missing; it is required; export the model again")
    known = {tensor: facts[name] for tensor, name in inputs.items() if name in facts}
    spec.check_known({tensor: fact.shape for tensor, fact in known.items() if fact.shape is not None}, attributes)
    _check_types(spec, {tensor: fact.dtype for tensor, fact in known.items() if fact.dtype != "unknown"})


def _check_types(spec: OpSpec, dtypes: Mapping[str, str]) -> None:
    """A row of the spec's types must fit, and one that a GPU has: all but float64."""
    for tensor in spec.inputs:
        if dtypes.get(tensor.name) == "float64":
            raise InvalidArgument(
                f"{spec.name} input {tensor.name} is float64; wanted float32, float16 or bfloat16: TensorRT has no double precision; "
                "export the model in float32"
            )
    for tensor in spec.inputs:
        allowed = spec.type_values(tensor.type_param)
        if dtypes.get(tensor.name, allowed[0]) not in allowed:
            raise InvalidArgument(f"{spec.name} input {tensor.name} is {dtypes[tensor.name]}; wanted one of {', '.join(allowed)}; cast it")
    for row in spec.type_rows:
        if all(dtypes.get(tensor.name, row[tensor.type_param]) == row[tensor.type_param] for tensor in spec.inputs):
            return
    got = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
    rows = " or ".join("/".join(dict.fromkeys(row.values())) for row in spec.type_rows if "float64" not in row.values())
    raise InvalidArgument(f"{spec.name} has inputs {got}; wanted {'/'.join(spec.type_rows[0])} = {rows}; cast the odd one")


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
