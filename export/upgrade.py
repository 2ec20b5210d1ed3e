"""Raising a file's opset with onnx's version converter, which knows ONNX's operators only and models of up to 2 GiB."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from deploydcn.errors import ExportError
from deploydcn.export.foreign import is_foreign
from deploydcn.onnx_schema import unchecked_inference

SMALL_TENSOR = 1 << 16
"""Bytes up to which the converter sees a constant (axes, shapes, scales); larger ones wait outside."""

ASIDE = "deploydcn.aside"
"""Domain of nodes without a schema while the converter runs: it stops at those in ONNX's own domain."""


def upgrade(model: ir.Model, opset: int) -> tuple[ir.Model, list[str]]:
    """The model in a newer opset. Nodes of other domains, subgraphs, names and metadata survive.

    Raises:
        ExportError: an operator cannot be upgraded; the message names it.
    """
    before = model.opset_imports.get("", 0)
    metadata = {node.outputs[0].name: dict(node.metadata_props) for node in model.graph.all_nodes() if node.outputs}
    set_aside = [node for node in model.graph.all_nodes() if node.domain == "" and is_foreign(node)]
    for node in set_aside:
        node.domain = ASIDE
        model.opset_imports[ASIDE] = 1
    constants = model.graph.initializers.items()
    large = {name: value for name, value in constants if value.const_value and value.const_value.nbytes > SMALL_TENSOR}
    inputs = list(model.graph.inputs)
    for name, value in large.items():
        del model.graph.initializers[name]
        model.graph.inputs.append(value)
    model.ir_version = max(model.ir_version, 4)  # before 4, constants had to be inputs too
    try:
        with unchecked_inference():  # nodes that break our spec are refused by name later
            proto = onnx.version_converter.convert_version(ir.to_proto(model), opset)
    except Exception as error:  # C++ exceptions of several kinds
        raise ExportError(
            f"opset {before} cannot be raised to {opset}: {_one_line(error)}; export the model again with opset {opset} or later"
        ) from error
    finally:
        del model.graph.inputs[len(inputs) :]
        model.graph.initializers.update(large)
    result = ir.from_proto(proto)
    _restore(result, large, metadata)
    return result, [f"opset {before} raised to {opset}"]


def _restore(model: ir.Model, large: dict[str, ir.Value], metadata: dict[str | None, dict[str, str]]) -> None:
    for value in [value for value in model.graph.inputs if value.name in large]:
        model.graph.inputs.remove(value)
        value.const_value = large[value.name or ""].const_value
        model.graph.register_initializer(value)
    for node in model.graph.all_nodes():
        node.metadata_props.update(metadata.get(node.outputs[0].name, {}) if node.outputs else {})
        if node.domain == ASIDE:
            node.domain = ""
    model.opset_imports.pop(ASIDE, None)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text.rpartition("failed: ")[2][:300]
