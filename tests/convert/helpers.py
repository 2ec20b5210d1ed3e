"""Small files of other exporters, made by hand, and plain onnxruntime to run the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

ELEMENTS = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "float16": TensorProto.FLOAT16, "int32": TensorProto.INT32}
ELEMENTS |= {"int64": TensorProto.INT64, "bool": TensorProto.BOOL}


def drawn(*shape: int, scale: float = 1.0, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    return (np.random.default_rng([seed, *shape]).standard_normal(shape) * scale).astype(dtype)


def write(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Sequence[str],
    constants: Mapping[str, np.ndarray],
    *,
    opset: int = 20,
    types: Mapping[str, str] | None = None,
    domains: Sequence[str] = (),
    output_type: str = "float32",
    external: bool = False,
) -> Path:
    """A model with float32 inputs unless `types` says otherwise, and outputs of unknown shape."""
    types = types or {}
    graph = helper.make_graph(
        list(nodes),
        "made_by_hand",
        [helper.make_tensor_value_info(name, ELEMENTS[types.get(name, "float32")], list(shape)) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, ELEMENTS[output_type], None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    imports = [helper.make_opsetid("", opset), *[helper.make_opsetid(domain, 1) for domain in domains]]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    onnx.save(model, path, save_as_external_data=external, location=f"{path.name}.weights", size_threshold=0)
    return path


def run_plain(path: Path, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """In onnxruntime as it comes, without our library."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, dict(inputs))]


def operators(path: Path) -> set[str]:
    """Operator names, subgraphs included."""

    def visit(graph: onnx.GraphProto) -> set[str]:
        names = set()
        for node in graph.node:
            names.add(f"{node.domain}::{node.op_type}" if node.domain else node.op_type)
            for attribute in node.attribute:
                names |= visit(attribute.g) if attribute.type == onnx.AttributeProto.GRAPH else set()
        return names

    return visit(onnx.load(path, load_external_data=False).graph)


def node(op_type: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, outputs, **attributes)
