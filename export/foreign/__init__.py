"""Nodes of other frameworks -> ours, recognised by operator name in any domain but ONNX's and ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from deploydcn.export import graph
from deploydcn.export.builder import OpBuilder
from deploydcn.export.foreign import convolutions, others
from deploydcn.export.foreign.node import ForeignNode, NoEquivalentError
from deploydcn.onnx_schema import DOMAIN, VERSION
from deploydcn.ops import OPS

Importer = Callable[[OpBuilder, ForeignNode], ir.Value]

IMPORTERS: Mapping[str, Importer] = {
    "MMCVDeformConv2d": convolutions.mmcv_deform_conv,
    "MMCVModulatedDeformConv2d": convolutions.modulated_deform_conv,
    "DCNv2": convolutions.modulated_deform_conv,
    "ModulatedDeformConv2d": convolutions.tensorrt_modulated_deform_conv,
    "Plugin": convolutions.plugin_dcnv2,
    "TRTDCNv3": others.trt_dcnv3,
    "MMCVMultiScaleDeformableAttention": others.mmcv_deform_attn,
    "MultiscaleDeformableAttnPlugin_TRT": others.tensorrt_deform_attn,
    "MMCVDeformRoIPool": others.mmcv_deform_roi_pool,
}

KNOWN = {op.spec.name for op in OPS}

FAMILY = re.compile(r"deform|dcn", re.IGNORECASE)
"""Names that promise a deformable operator."""


@dataclass(frozen=True)
class Imported:
    """A node that is neither ONNX's nor ours. becomes: our operator, "" where it stays; reason: why it stays; family: deformable."""

    node: str
    operator: str
    becomes: str = ""
    reason: str = ""
    family: bool = True


def import_foreign(model: ir.Model) -> list[Imported]:
    """Replace every node that one of our operators computes exactly; all others stay, with the reason.

    Raises:
        InvalidModel: a node of a known kind is malformed.
    """
    return [_import(model, node) for node in list(model.graph.all_nodes()) if is_foreign(node)]


def is_foreign(node: ir.Node) -> bool:
    """Whether a node is of no operator set that onnx or we define."""
    return node.domain != DOMAIN and not onnx.defs.has(node.op_type, node.domain)


def _import(model: ir.Model, node: ir.Node) -> Imported:
    name, operator = graph.node_name(node), graph.operator_name(node)
    importer = IMPORTERS.get(node.op_type)
    plugin = node.attributes["name"].value if node.op_type == "Plugin" and "name" in node.attributes else ""
    family = FAMILY.search(f"{node.op_type} {plugin}") is not None
    if importer is None:
        return Imported(name, operator, reason="it is of neither ONNX nor deploydcn, and not known here", family=family)
    dtype = next((value.dtype for value in node.inputs if value is not None and value.dtype), ir.DataType.FLOAT)
    op = OpBuilder(dtype)
    try:
        result = importer(op, ForeignNode(node))
        (own,) = (inner for inner in op.nodes if inner.domain == DOMAIN)
        if own.op_type not in KNOWN:
            raise NoEquivalentError(f"this deploydcn has no {own.op_type}")
    except NoEquivalentError as error:
        for inner in op.nodes:  # they would stay among the users of their inputs
            for index in range(len(inner.inputs)):
                inner.replace_input_with(index, None)
        return Imported(name, operator, reason=str(error), family=family)
    own.name = node.name
    graph.replace([node], op.nodes, [result])
    model.opset_imports[DOMAIN] = VERSION
    return Imported(name, operator, f"{DOMAIN}::{own.op_type}")
