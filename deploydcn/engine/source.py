"""Reading an ONNX file: complete, valid, and what onnx's shape inference knows about it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, inliner
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from deploydcn.errors import InvalidModel
from deploydcn.onnx_schema import register_schemas, unchecked_inference
from deploydcn.runners import TensorInfo

SMALL_TENSOR = 1 << 16
"""Bytes up to which a constant may matter to shape inference (the shape of a Reshape); larger ones are left out of it."""


@dataclass(frozen=True)
class Fact:
    """What is known of a tensor. shape: None when the rank is unknown; sizes as in TensorInfo."""

    dtype: str
    shape: tuple[int | str | None, ...] | None


def read_model(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """The model, valid by onnx's checker, local functions inlined; large external tensors stay references.

    Raises:
        InvalidModel: no file, not ONNX, not valid, or its external data is missing.
    """
    file = Path(path)
    if not file.is_file():
        state = "is a folder" if file.is_dir() else "does not exist"
        raise InvalidModel(f"{file} {state}; wanted an ONNX file")
    try:
        model = onnx.load(str(file), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError has no typed home
        raise InvalidModel(f"{file} is not a readable ONNX file, or is truncated: {error}") from error
    if not model.graph.node and not model.graph.output:
        raise InvalidModel(f"{file} holds no graph; wanted an ONNX file; it may be truncated, or not ONNX")
    _require_external_data(model, file)
    register_schemas()
    try:
        onnx.checker.check_model(str(file))
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, OSError) as error:
        raise InvalidModel(f"{file} is not valid ONNX: {_one_line(error)}") from error
    if model.functions:
        model = inliner.inline_local_functions(model)
    for tensor in model.graph.initializer:
        if uses_external_data(tensor) and _bytes(tensor) <= SMALL_TENSOR:
            load_external_data_for_tensor(tensor, str(file.parent))
    return model


def graph_inputs(model: onnx.ModelProto) -> tuple[TensorInfo, ...]:
    """The inputs a caller feeds, in order."""
    constants = {tensor.name for tensor in model.graph.initializer}
    facts = ((value.name, _fact(value)) for value in model.graph.input if value.name not in constants)
    return tuple(TensorInfo(name, fact.dtype, fact.shape) for name, fact in facts)


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those of subgraphs included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs:
                yield from all_nodes(inner)


def node_label(node: onnx.NodeProto) -> str:
    """ "node 'backbone.conv' (DeformConv)", or by its output when it has no name."""
    operator = f"{node.domain}::{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
    return f"node {node.name or node.output[0]!r} ({operator})" if not node.name else f"node {node.name!r} ({operator})"


def skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without large constants, which become inputs: all that shape inference needs, and quick to hand to it."""
    result = onnx.ModelProto()
    result.ir_version = model.ir_version
    result.opset_import.extend(model.opset_import)
    graph, source = result.graph, model.graph
    graph.name = source.name or "model"
    graph.node.extend(source.node)
    graph.output.extend(source.output)
    graph.value_info.extend(source.value_info)
    constants = {tensor.name for tensor in source.initializer}
    graph.input.extend(value for value in source.input if value.name not in constants)
    for tensor in source.initializer:
        if _bytes(tensor) <= SMALL_TENSOR:
            graph.initializer.append(tensor)
        else:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return result


def infer_facts(bones: onnx.ModelProto, input_shapes: Mapping[str, Sequence[int]] | None = None) -> dict[str, Fact]:
    """Types and shapes of all tensors, as far as onnx's shape inference knows them; optionally at given input shapes."""
    model = bones
    if input_shapes is not None:
        model = onnx.ModelProto()
        model.CopyFrom(bones)
        del model.graph.value_info[:]  # at other sizes they may say something else
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")
        for value in model.graph.input:
            if value.name in input_shapes:
                _set_shape(value, input_shapes[value.name])
    try:
        with unchecked_inference():
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # Python schema functions and C++ let several classes through; nothing is known then
        inferred = model
    return dict(_facts(inferred.graph))


def _facts(graph: onnx.GraphProto) -> Iterator[tuple[str, Fact]]:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _facts(attribute.g)
    for value in (*graph.value_info, *graph.output, *graph.input):
        if value.type.HasField("tensor_type"):
            yield value.name, _fact(value)
    for tensor in graph.initializer:
        yield tensor.name, Fact(_dtype_name(tensor.data_type), tuple(tensor.dims))


def _fact(value: onnx.ValueInfoProto) -> Fact:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return Fact(_dtype_name(tensor.elem_type), None)
    sizes = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in tensor.shape.dim]
    # Negative and zero sizes are how some exporters write a dynamic one.
    return Fact(_dtype_name(tensor.elem_type), tuple(None if isinstance(size, int) and size < 0 else size for size in sizes))


def _dtype_name(element_type: int) -> str:
    if element_type == TensorProto.UNDEFINED:
        return "unknown"
    return np.dtype(helper.tensor_dtype_to_np_dtype(element_type)).name if element_type != TensorProto.STRING else "string"


def _set_shape(value: onnx.ValueInfoProto, sizes: Sequence[int]) -> None:
    shape = value.type.tensor_type.shape
    del shape.dim[:]
    for size in sizes:
        shape.dim.add().dim_value = size


def _require_external_data(model: onnx.ModelProto, file: Path) -> None:
    for tensor in model.graph.initializer:
        if uses_external_data(tensor):
            location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            if not (file.parent / location).is_file():
                raise InvalidModel(
                    f"{file} keeps its weights in {location!r}, which is not in {file.parent}; put that file beside the model"
                )


def _bytes(tensor: onnx.TensorProto) -> int:
    try:
        size = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
    except (KeyError, TypeError):
        size = 8
    return int(np.prod(tensor.dims, dtype=np.int64)) * size


def _one_line(error: Exception) -> str:
    """A checker's message without its C++ source lines and graph dumps."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("==>")]
    return " ".join(lines[:2])[:400]
