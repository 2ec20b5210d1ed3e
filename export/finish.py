"""The last steps on the way to a file, the same for exports and conversions; needs onnx_ir, but no torch."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from deploydcn.errors import ExportError
from deploydcn.export import graph
from deploydcn.onnx_schema import DOMAIN, VERSION
from deploydcn.runners import TensorInfo

IR_VERSION = 10
"""Older runtimes refuse newer files."""


def finish(model: ir.Model, opset: int) -> None:
    """Remove what nothing uses, declare exactly the operator sets used, and sign."""
    RemoveUnusedNodesPass()(model)  # unused constants too: the weights that folding replaced
    model.producer_name = "deploydcn"
    model.producer_version = version("deploydcn")
    model.graph.name = model.graph.name or "model"
    imports = {"": opset}
    if any(node.domain == DOMAIN for node in model.graph.all_nodes()):
        imports[DOMAIN] = VERSION
    foreign = {node.domain: model.opset_imports.get(node.domain, 1) for node in model.graph.all_nodes()} | {
        function.domain: model.opset_imports.get(function.domain, 1) for function in model.functions.values()
    }
    model.opset_imports.clear()
    model.opset_imports.update({**foreign, **imports})


def check_model(path: Path) -> None:
    """onnx's checker with strict shape inference; our schemas must be registered.

    Raises:
        ExportError: the file is not valid.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the translated model is not valid ONNX: {error}") from error


def deformable_operators(model: ir.Model) -> Counter[str]:
    """How many nodes there are of each deformable or deploydcn operator."""
    counts: Counter[str] = Counter()
    for node in model.graph.all_nodes():
        if node.domain == DOMAIN or node.op_type == "DeformConv":
            counts[graph.operator_name(node)] += 1
    return counts


def tensor_info(value: ir.Value) -> TensorInfo:
    """A graph input or output as runners describe it."""
    shape = None if value.shape is None else tuple(size if isinstance(size, int) else size.value for size in value.shape)
    return TensorInfo(value.name or "", value.dtype.numpy().name if value.dtype else "unknown", shape)
