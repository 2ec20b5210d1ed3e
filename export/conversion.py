"""The steps of a conversion: read, import foreign nodes, raise the opset, rewrite for the target, check, compare, write."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass, RemoveInitializersFromInputsPass, ShapeInferencePass

from deploydcn.errors import ExportError, InternalError, InvalidArgument, InvalidModel
from deploydcn.export import graph
from deploydcn.export.api import DEFAULT_OPSET
from deploydcn.export.compare import QUANTIZED, compare_with_source
from deploydcn.export.convert import ConvertReport, NodeMapping
from deploydcn.export.finish import IR_VERSION, check_model, deformable_operators, finish, tensor_info
from deploydcn.export.foreign import Imported, import_foreign, is_foreign, paddle
from deploydcn.export.graph import node_name
from deploydcn.export.inspection import FoundNode
from deploydcn.export.portable.node import SpecNode
from deploydcn.export.standard import from_standard
from deploydcn.export.targets import TARGETS
from deploydcn.export.upgrade import ASIDE, upgrade
from deploydcn.files import replace_on_success
from deploydcn.onnx_schema import DOMAIN, register_schemas, unchecked_inference
from deploydcn.ops import OPS
from deploydcn.parity.tolerance import PRECISION

SPECS = {op.spec.name: op.spec for op in OPS}


def run(
    source: Path, result: Path, target: str, *, check: bool, inputs: Mapping[str, Any] | None, shapes: Mapping[str, Sequence[int]] | None
) -> ConvertReport:
    """See `deploydcn.convert`."""
    start = time.perf_counter()
    with replace_on_success(result) as temporary:
        model, mapping, notes, source_opset = rewritten(source, target)
        graph.save(model, temporary)
        _check(model, temporary)
        reference, checks, more = compare_with_source(source, temporary, inputs, shapes, _precision(model)) if check else ("", (), [])
        notes += more
    return ConvertReport(
        path=result,
        source=source,
        target=target,
        source_opset=source_opset,
        opset=model.opset_imports[""],
        inputs=tuple(tensor_info(value) for value in model.graph.inputs),
        outputs=tuple(tensor_info(value) for value in model.graph.outputs),
        nodes=sum(1 for _ in model.graph.all_nodes()),
        operators=dict(deformable_operators(model)),
        mapping=tuple(mapping),
        reference=reference,
        checks=checks,
        seconds=time.perf_counter() - start,
        notes=tuple(notes),
    )


def rewritten(source: Path, target: str) -> tuple[ir.Model, list[NodeMapping], list[str], int]:
    """The model as the target wants it, what became of its nodes, notes, and the source's opset."""
    model = read(source)
    source_opset = model.opset_imports.get("", 0)
    notes = []
    found = {item.node: item.inputs for item in deformable_or_foreign(model)}
    known = [_unchanged(node) for node in model.graph.all_nodes() if node.domain == DOMAIN or node.op_type == "DeformConv"]
    imported = [*known, *import_foreign(model)]
    _refuse_family(imported, target)
    oldest = TARGETS[target].oldest_opset
    if source_opset < oldest:
        model, more = upgrade(model, DEFAULT_OPSET)
        notes += more
    infer(model)
    notes += paddle.complete(model)
    from_standard(model)
    check_own_nodes(model)
    opset = model.opset_imports[""]
    notes += [*TARGETS[target].rewrite(model), *_foreign_notes(imported)]
    model.ir_version = max(model.ir_version, IR_VERSION)
    finish(model, opset)
    mapping = [NodeMapping(item.node, item.operator, found[item.node], _form(item, target), item.reason) for item in imported]
    return model, mapping, notes, source_opset


def read(path: Path) -> ir.Model:
    """The model, local functions inlined, constants as initializers; its weights are read when they are needed.

    Raises:
        InvalidModel: no file, not ONNX, or its external data is missing.
    """
    if not path.is_file():
        raise InvalidModel(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; wanted an ONNX file")
    try:
        proto = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError has no typed home
        raise InvalidModel(f"{path} is not a readable ONNX file, or is truncated: {error}") from error
    if not proto.graph.node and not proto.graph.output:
        raise InvalidModel(f"{path} holds no graph; wanted an ONNX file; it may be truncated, or not ONNX")
    if not any(entry.domain in ("", "ai.onnx") for entry in proto.opset_import):
        raise InvalidModel(f"{path} declares no opset of ONNX's operators; wanted one in opset_import; export the model again")
    try:
        model = ir.load(str(path))
        weights = [value.const_value for value in model.graph.initializers.values()]
        missing = [weight.path for weight in weights if isinstance(weight, ir.ExternalTensor) and not Path(weight.path).is_file()]
    except Exception as error:  # onnx_ir raises whatever it meets
        raise InvalidModel(f"{path} is not a valid ONNX file: {str(error).strip().splitlines()[0]}") from error
    if missing:
        raise InvalidModel(f"{path} keeps weights in {Path(missing[0]).name!r}, which is not in {path.parent}; put it beside the model")
    for value in model.graph.inputs:
        if value.shape is None and value.name not in model.graph.initializers:
            raise InvalidModel(
                f"{path}: input {value.name!r} has no shape; wanted one, with names for sizes that vary; export the model again"
            )
    InlinePass()(model)
    RemoveInitializersFromInputsPass()(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)  # one place where rewrites look for them
    return model


def deformable_or_foreign(model: ir.Model) -> tuple[FoundNode, ...]:
    """The nodes that a conversion looks at."""
    infer(model)
    nodes = [node for node in model.graph.all_nodes() if node.domain == DOMAIN or node.op_type == "DeformConv" or is_foreign(node)]
    return tuple(
        FoundNode(node_name(node), graph.operator_name(node), tuple(tensor_info(value) for value in node.inputs if value is not None))
        for node in nodes
    )


def infer(model: ir.Model) -> None:
    """Types and shapes as far as they follow from the inputs; nodes of ours that break their spec are left to `check_own_nodes`."""
    register_schemas()
    with unchecked_inference():
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)


def check_own_nodes(model: ir.Model) -> None:
    """Check every node of ours against its spec, as far as shapes are known.

    Raises:
        InvalidModel: one breaks it; the message names it.
    """
    for node in [node for node in model.graph.all_nodes() if node.domain == DOMAIN]:
        if node.op_type not in SPECS:
            raise InvalidModel(f"node {node.name!r}: deploydcn has no operator {node.op_type!r}; it has {', '.join(SPECS)}")
        try:
            read_node = SpecNode(SPECS[node.op_type], node)
            for tensor in read_node.spec.inputs:
                if not tensor.optional and tensor.name not in read_node.inputs:
                    raise InvalidArgument(f"{node.op_type} input {tensor.name} is missing; it is required; export the model again")
            shapes = {name: list(value.shape) for name, value in read_node.inputs.items() if value.shape is not None}
            read_node.spec.check_known(shapes, read_node.attributes)
        except InvalidArgument as error:
            raise InvalidModel(f"node {node_name(node)!r}: {error}") from error


def _precision(model: ir.Model) -> str:
    """The lowest precision that anything in the graph is kept in; float32 where there are no numbers; QUANTIZED files are their own."""
    if any(node.op_type in ("QuantizeLinear", "QLinearDeformConv2d") for node in model.graph.all_nodes()):
        return QUANTIZED
    values = (*model.graph.inputs, *(value for node in model.graph.all_nodes() for value in (*node.inputs, *node.outputs)))
    found = {value.dtype.numpy().name for value in values if value is not None and value.dtype not in (None, ir.DataType.UNDEFINED)}
    return min(found & set(PRECISION), key=lambda name: PRECISION[name], default="float32")


def _unchanged(node: ir.Node) -> Imported:
    own = f"{DOMAIN}::DeformConv2d" if node.op_type == "DeformConv" else graph.operator_name(node)
    return Imported(node_name(node), graph.operator_name(node), own)


def _form(item: Imported, target: str) -> str:
    """What a node becomes, for people."""
    if not item.becomes:
        return ""
    spec = SPECS[item.becomes.partition("::")[2]]
    return TARGETS[target].form(spec)


def _refuse_family(imported: Sequence[Imported], target: str) -> None:
    """Files for runtimes without plugins cannot keep a deformable node that we do not know."""
    if not TARGETS[target].plain:
        return
    for item in imported:
        if not item.becomes and item.family:
            raise ExportError(
                f"node {item.node!r} ({item.operator}) has no exact form for target {target}: {item.reason}; "
                "export the model again with another operator, or convert for ort or tensorrt, which keep it"
            )


def _foreign_notes(imported: Sequence[Imported]) -> list[str]:
    changed = Counter((item.operator, item.becomes) for item in imported if item.becomes and item.operator != item.becomes)
    notes = [f"{count} {operator} read as {becomes}" for (operator, becomes), count in changed.items()]
    return notes + [f"{item.node} ({item.operator}) stays as it is: {item.reason}" for item in imported if not item.becomes]


def _check(model: ir.Model, path: Path) -> None:
    """onnx's checker on what it can judge: not on nodes without a schema in ONNX's own domain, nor on outputs without a rank, which
    exporters leave behind such nodes.
    """
    unknown = [node for node in model.graph.all_nodes() if node.domain == "" and is_foreign(node)]
    outputs = list(model.graph.outputs)
    if not unknown and all(value.shape is not None for value in outputs):
        _checked(path)
        return
    model.graph.outputs[:] = [value for value in outputs if value.shape is not None]
    for node in unknown:
        node.domain = ASIDE
        model.opset_imports[ASIDE] = 1
    graph.save(model, path)
    _checked(path)
    for node in unknown:
        node.domain = ""
    model.opset_imports.pop(ASIDE, None)
    model.graph.outputs[:] = outputs
    graph.save(model, path)


def _checked(path: Path) -> None:
    try:
        check_model(path)
    except ExportError as error:
        raise InternalError(str(error)) from error
