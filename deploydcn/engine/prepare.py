"""From an ONNX file to one that TensorRT's parser takes: checked, completed, and converted to half precision if asked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from deploydcn.engine.node_checks import OWN, STANDARD, check_nodes, plugin_nodes
from deploydcn.engine.profiles import WORDS, Profile, resolve_profiles
from deploydcn.engine.source import Fact, all_nodes, graph_inputs, infer_facts, read_model, skeleton
from deploydcn.onnx_schema import DOMAIN, VERSION
from deploydcn.runners import TensorInfo
from deploydcn.spec import OpSpec

if TYPE_CHECKING:
    import onnx_ir as ir

_ELEMENTS = {"FLOAT32": "FLOAT", "FLOAT64": "DOUBLE"} | {name: name for name in ("FLOAT16", "BFLOAT16", "INT32", "INT64", "BOOL")}
"""onnx_ir's names for the types that matter here."""


@dataclass(frozen=True)
class PluginNode:
    """A node that our library runs: "deploydcn::DeformConv2d", and the spec's names of the inputs it has and of its outputs."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Prepared:
    """A file for the parser.

    path: the prepared file. base: the file whose folder its external data lies in. plugins: the nodes that our library
    runs, by name. notes: what was changed.
    """

    path: Path
    base: Path
    inputs: tuple[TensorInfo, ...]
    profiles: tuple[Profile, ...]
    plugins: Mapping[str, PluginNode]
    notes: tuple[str, ...]


def prepare(
    source: str | os.PathLike[str],
    folder: Path,
    *,
    profiles: Any,
    dtype: str | None,
    keep_io_types: bool,
    tf32: bool,
    exclude: Sequence[str] = (),
) -> Prepared:
    """Check `source` and write the parser's form of it into `folder`.

    dtype: "float16" or "bfloat16" to convert to; None keeps the file's types. exclude: nodes that stay in float32 then.

    Raises:
        InvalidModel: the file or a node in it is not usable; the message names the node.
        InvalidArgument: the profiles do not fit.
    """
    model = read_model(source)
    bones = skeleton(model)
    facts = infer_facts(bones)
    check_nodes(bones, facts)
    inputs = graph_inputs(model)
    ranges, notes = resolve_profiles(inputs, profiles)
    _check_profiles(bones, ranges)
    name_nodes(model)
    notes += [] if dtype is not None else _lost_offsets(bones, facts)
    converted, changes = _rewrite(model, Path(source), facts, dtype=dtype, keep_io_types=keep_io_types, tf32=tf32, exclude=exclude)
    path = folder / "prepared.onnx"
    from deploydcn.export import graph

    refers = graph.save(converted, path, keep_external=True)
    base = Path(source).absolute() if refers else path
    plugins = {node.name or "": _plugin_node(node) for node in _ours(converted)}
    return Prepared(path, base, inputs, ranges, plugins, (*notes, *changes))


def name_nodes(model: onnx.ModelProto) -> None:
    """Give nodes of ours a name where they have none, or not their own: layers are recognised by it afterwards."""
    ours = [node for node, _ in plugin_nodes(model)]
    taken = {node.name for node in all_nodes(model.graph) if not any(node is own for own in ours)}
    for node in ours:
        base = node.name or f"{node.op_type}_{node.output[0]}"
        count, node.name = 1, base
        while node.name in taken:
            count += 1
            node.name = f"{base}_{count}"
        taken.add(node.name)


def _check_profiles(bones: onnx.ModelProto, profiles: Sequence[Profile]) -> None:
    """The nodes at both ends of every profile: sizes that only meet at some shapes, windows larger than the smallest image."""
    for index, profile in enumerate(profiles):
        for end in (0, 2):
            shapes = {name: span[end] for name, span in profile.items()}
            listing = ", ".join(f"{name}: {'x'.join(map(str, shape))}" for name, shape in shapes.items())
            where = f" at the {WORDS[end]} shapes of profile {index + 1} ({listing})"
            check_nodes(bones, infer_facts(bones, shapes), where=where)


def _rewrite(
    model: onnx.ModelProto,
    source: Path,
    facts: Mapping[str, Fact],
    *,
    dtype: str | None,
    keep_io_types: bool,
    tf32: bool,
    exclude: Sequence[str],
) -> tuple[ir.Model, list[str]]:
    import onnx_ir as ir

    from deploydcn.export import graph
    from deploydcn.export.half import to_half

    converted = ir.from_proto(model)
    ir.external_data.set_base_dir(converted.graph, source.absolute().parent)
    _annotate(converted, facts)
    notes: list[str] = []
    if dtype is not None:
        notes += to_half(converted, dtype, keep_io_types=keep_io_types, exclude=exclude).notes
    notes += graph.add_zero_biases(converted)
    for node in _ours(converted):
        _complete(node, tf32=tf32)
    if any(node.domain == DOMAIN for node in converted.graph.all_nodes()):
        converted.opset_imports.setdefault(DOMAIN, VERSION)
    return converted, notes


def _complete(node: ir.Node, *, tf32: bool) -> None:
    """All attributes spelled out, trailing empty inputs dropped: the parser warns of the one and refuses the other."""
    import onnx_ir as ir

    spec = OWN.get(node.op_type) or STANDARD[node.op_type]
    while node.inputs and node.inputs[-1] is None:
        node.resize_inputs(len(node.inputs) - 1)
    for attr in spec.attributes:
        default: Any = _sizes_from_inputs(spec, node, attr.axes) if attr.default is None else attr.default
        if attr.name in node.attributes or default is None:
            continue
        if attr.kind == "ints":
            node.attributes[attr.name] = ir.AttrInt64s(attr.name, list(default))
        elif attr.kind == "int":
            node.attributes[attr.name] = ir.AttrInt64(attr.name, default)
        elif attr.kind == "float":
            node.attributes[attr.name] = ir.AttrFloat32(attr.name, default)
        elif attr.kind == "string":
            node.attributes[attr.name] = ir.AttrString(attr.name, default)
    node.attributes["allow_tf32"] = ir.AttrInt64("allow_tf32", int(tf32))


def _sizes_from_inputs(spec: OpSpec, node: ir.Node, axes: tuple[str, ...]) -> list[int] | None:
    """What an attribute without a default is read from: the last sizes of an input, a convolution's weight. None where unknown."""
    for tensor, value in zip(spec.inputs, node.inputs, strict=False):
        if tensor.axes[-len(axes) :] == axes and value is not None and value.shape is not None and len(value.shape) == len(tensor.axes):
            sizes = [size for size in value.shape[-len(axes) :] if isinstance(size, int)]
            return sizes if len(sizes) == len(axes) else None
    return None


def _lost_offsets(bones: onnx.ModelProto, facts: Mapping[str, Fact]) -> list[str]:
    """A note on files whose offsets are in half precision already."""
    deformable = [node for node, spec in plugin_nodes(bones) if spec.name == "DeformConv2d"]
    lossy = [node for node in deformable if node.input[2] in facts and facts[node.input[2]].dtype in ("float16", "bfloat16")]
    if not lossy:
        return []
    return [
        f"{len(lossy)} deformable convolutions take offsets in half precision, as the file has them, {lossy[0].name!r} first: sampling "
        "positions are rounded; converting the float32 model here (fp16) keeps them in float32"
    ]


def _annotate(model: ir.Model, facts: Mapping[str, Fact]) -> None:
    """Types and shapes that inference found, on the values that have none."""
    import onnx_ir as ir

    for node in model.graph.all_nodes():
        for value in node.outputs:
            fact = facts.get(value.name or "")
            if fact is None:
                continue
            if value.type is None and fact.dtype.upper() in _ELEMENTS:
                value.type = ir.TensorType(ir.DataType[_ELEMENTS[fact.dtype.upper()]])
            if value.shape is None and fact.shape is not None:
                value.shape = ir.Shape(fact.shape)


def _ours(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph.all_nodes() if node.domain == DOMAIN or (node.domain == "" and node.op_type in STANDARD)]


def _plugin_node(node: ir.Node) -> PluginNode:
    spec = OWN.get(node.op_type) or STANDARD[node.op_type]
    present = tuple(tensor.name for tensor, value in zip(spec.inputs, node.inputs, strict=False) if value is not None)
    outputs = tuple(tensor.name for tensor in spec.outputs)
    return PluginNode(f"{node.domain}::{node.op_type}" if node.domain else node.op_type, present, outputs)
