"""Graph rewrites on onnx_ir models. Each returns notes on what it did that a user may want to know."""

from __future__ import annotations

import ast
import re
from collections.abc import Container, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import onnx_ir as ir

from deploydcn.errors import InvalidArgument, InvalidModel
from deploydcn.onnx_schema import DOMAIN, NAME_SCOPES, OUTPUT_SCOPES
from deploydcn.ops import OPS, op_named
from deploydcn.spec import OpSpec

# Our convolutions, and which of their inputs are the last stage's weight and bias.
CONVOLUTIONS = {"DeformConv2d": (1, 3), "GroupedConv2d": (1, 2), "SeparableConv2d": (2, 4)}

EXTERNAL_DATA_THRESHOLD = 1_800_000_000
"""Bytes of weights beyond which they go to a file of their own: a protobuf message holds at most 2 GiB."""


# ---------------------------------------------------------------------------------------------------------- helpers
def nodes_of(model: ir.Model, op_type: str, domain: str = "") -> Iterator[ir.Node]:
    """All nodes of one operator, subgraphs included; safe against edits while iterating."""
    found = [node for node in model.graph.all_nodes() if node.op_type == op_type and node.domain == domain]
    yield from found


def operator_name(node: ir.Node) -> str:
    """ "DeformConv", or "deploydcn::DeformConv2d"."""
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def node_name(node: ir.Node) -> str:
    """A node's name; its output's where it has none."""
    return node.name or node.outputs[0].name or ""


def nodes_named(nodes: Sequence[ir.Node], patterns: Sequence[str], layers: Container[tuple[str, str]]) -> set[ir.Node]:
    """The nodes that names, or patterns such as head.*, mean. layers: the operators of which a message lists the names.

    Raises:
        InvalidArgument: a name or pattern that no node has.
    """
    found: set[ir.Node] = set()
    for pattern in patterns:
        # What was one node in the source may be several: layer1 is layer1/Conv_0 and layer1/Relu_1.
        matching = {node for node in nodes if fnmatchcase(node_name(node), pattern) or f"{node_name(node)}/".startswith(f"{pattern}/")}
        if not matching:
            named = [node_name(node) for node in nodes if (node.domain, node.op_type) in layers]
            raise InvalidArgument(f"no node is named {pattern!r}; wanted one of {', '.join(named[:20])}{' ...' if len(named) > 20 else ''}")
        found |= matching
    return found


def save(model: ir.Model, path: Path, *, keep_external: bool = False) -> bool:
    """Write a model, its weights in `<path>.data` where they are too large for one file.

    keep_external: weights that lie in files of the source stay there, unless the others are too large. Returns whether the
    written file refers to them.
    """
    weights = [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]
    elsewhere = [weight for weight in weights if keep_external and isinstance(weight, ir.ExternalTensor)]
    size = sum(weight.nbytes for weight in weights) - sum(weight.nbytes for weight in elsewhere)
    if elsewhere and size <= EXTERNAL_DATA_THRESHOLD:
        path.write_bytes(ir.to_proto(model).SerializeToString())
        return True
    ir.external_data.load_to_model(model)
    ir.save(model, str(path), external_data=f"{path.name}.data" if size > EXTERNAL_DATA_THRESHOLD else None)
    return False


def constant(value: ir.Value | None) -> np.ndarray | None:
    """A value known before running, as an array."""
    if value is None or value.const_value is None:
        return None
    return np.asarray(value.const_value.numpy())


def only_consumer(value: ir.Value) -> ir.Node | None:
    """The node that alone uses a value; None when there are several, none, one in a subgraph, or the value is a graph output."""
    uses = list(value.uses())
    alone = len(uses) == 1 and not value.is_graph_output() and value.producer() is not None
    return uses[0].node if alone and uses[0].node.graph is value.producer().graph else None  # type: ignore[union-attr]


def input_at(node: ir.Node, index: int) -> ir.Value | None:
    """A node's input, None when it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def replace(old: Sequence[ir.Node], new: Sequence[ir.Node], outputs: Sequence[ir.Value]) -> None:
    """Put `new` in the place of `old`, whose last node's outputs `outputs` take over, names and metadata included. A node that took in
    another module's records whose output it now computes: parity tools match tensors by that."""
    graph = old[-1].graph
    assert graph is not None
    end = old[-1].metadata_props.get(OUTPUT_SCOPES) or old[-1].metadata_props.get(NAME_SCOPES)
    for before, after in zip(old[-1].outputs, outputs, strict=True):
        after.shape, after.type = before.shape, before.type
    for node in new:
        node.metadata_props.update(old[0].metadata_props)
        node.metadata_props.pop(OUTPUT_SCOPES, None)
    if end is not None and end != old[0].metadata_props.get(NAME_SCOPES):
        for producer in {producer for value in outputs if (producer := value.producer()) is not None}:
            producer.metadata_props[OUTPUT_SCOPES] = end
    names = [value.name for value in old[-1].outputs]
    ir.convenience.replace_nodes_and_values(graph, old[-1], [], new, old[-1].outputs, outputs)
    graph.remove([*old][::-1], safe=True)
    for name, value in zip(names, outputs, strict=True):
        value.name = name


def new_initializer(model: ir.Model, array: np.ndarray, name: str) -> ir.Value:
    """A new constant of the graph; `name` is made unique."""
    taken = model.graph.initializers
    unique, count = name, 1
    while unique in taken:
        count += 1
        unique = f"{name}_{count}"
    tensor = ir.tensor(array, name=unique)
    value = ir.Value(name=unique, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))
    model.graph.register_initializer(value)
    return value


# --------------------------------------------------------------------------------------------------------- rewrites
def adopt_constants(model: ir.Model) -> None:
    """Give the graph the constants that its nodes use and it does not hold: onnxscript's fusion of clips makes several of one name, of
    which the graph keeps the last."""
    nodes = list(model.graph.all_nodes())
    graphs = {id(holder): holder for node in nodes if (holder := node.graph) is not None}
    held = {id(value) for holder in graphs.values() for value in holder.initializers.values()}
    for node in nodes:
        for index, value in enumerate(node.inputs):
            if value is not None and value.const_value is not None and value.producer() is None and id(value) not in held:
                node.replace_input_with(index, new_initializer(model, value.const_value.numpy(), value.name or "constant"))


def fold_batch_norm(model: ir.Model, *, standard: bool = False) -> list[str]:
    """conv -> BatchNormalization with constant parameters: into the convolution's weight and bias.

    W' = W * s, B' = (B - mean) * s + beta with s = gamma / sqrt(var + epsilon), computed in float64. standard: ONNX's Conv too, which
    runtimes otherwise fold themselves.
    """
    foldable = {(DOMAIN, name): where for name, where in CONVOLUTIONS.items()} | ({("", "Conv"): (1, 2)} if standard else {})
    folded = 0
    for norm in nodes_of(model, "BatchNormalization"):
        source = norm.inputs[0]
        conv = source.producer() if source is not None else None
        if conv is None or (conv.domain, conv.op_type) not in foldable or only_consumer(conv.outputs[0]) is not norm:
            continue
        activation = conv.attributes.get("activation")
        weight_index, bias_index = foldable[conv.domain, conv.op_type]
        bias_value = input_at(conv, bias_index)
        weight, bias = constant(conv.inputs[weight_index]), constant(bias_value)
        parameters = [constant(value) for value in norm.inputs[1:]]
        if (activation is not None and activation.as_string()) or weight is None or any(p is None for p in parameters):
            continue
        if bias_value is not None and bias is None:
            continue
        gamma, beta, mean, variance = (np.asarray(p, np.float64) for p in parameters)
        epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else 1e-5
        scale = gamma / np.sqrt(variance + epsilon)
        wide_bias = np.zeros_like(mean) if bias is None else bias.astype(np.float64)
        dtype, name = weight.dtype, conv.inputs[weight_index].name or conv.name or "conv"  # type: ignore[union-attr]
        inputs = list(conv.inputs) + [None] * (bias_index + 1 - len(conv.inputs))
        folded_weight = weight.astype(np.float64) * scale.reshape(-1, *[1] * (weight.ndim - 1))
        inputs[weight_index] = new_initializer(model, folded_weight.astype(dtype), f"{name}.folded")
        inputs[bias_index] = new_initializer(model, ((wide_bias - mean) * scale + beta).astype(dtype), f"{name}.folded_bias")
        node = ir.node(conv.op_type, inputs, attributes=dict(conv.attributes), domain=conv.domain, version=conv.version, name=conv.name)
        replace([conv, norm], [node], node.outputs)
        folded += 1
    return [f"{folded} batch normalizations folded into {'' if standard else 'our '}convolutions"] if folded else []


def fuse_activations(model: ir.Model) -> list[str]:
    """conv -> Relu, Clip(0, 6) or x * Sigmoid(x): into the convolution's `activation`."""
    fused = 0
    for op_type in CONVOLUTIONS:
        for conv in nodes_of(model, op_type, DOMAIN):
            if "activation" in conv.attributes and conv.attributes["activation"].as_string():
                continue
            found = _activation_after(conv)
            if found is None:
                continue
            name, chain = found
            attributes = {**conv.attributes, "activation": ir.AttrString("activation", name)}
            node = ir.node(op_type, list(conv.inputs), attributes=attributes, domain=DOMAIN, version=1, name=conv.name)
            replace([conv, *chain], [node], node.outputs)
            fused += 1
    return [f"{fused} activations fused into our convolutions"] if fused else []


def _activation_after(conv: ir.Node) -> tuple[str, list[ir.Node]] | None:
    """The activation that alone follows a convolution, and its nodes."""
    output = conv.outputs[0]
    if output.is_graph_output():
        return None
    users = [use.node for use in output.uses()]
    if any(user.graph is not conv.graph for user in users):
        return None  # in a branch of an If: it may not run
    if len(users) == 1 and users[0].op_type == "Relu" and users[0].domain == "":
        return "relu", users
    if len(users) == 1 and users[0].op_type == "Clip" and users[0].domain == "":
        low, high = constant(input_at(users[0], 1)), constant(input_at(users[0], 2))
        if low is not None and high is not None and float(low) == 0.0 and float(high) == 6.0:
            return "relu6", users
    if len(users) == 2 and {user.op_type for user in users} == {"Sigmoid", "Mul"} and all(user.domain == "" for user in users):
        sigmoid, product = sorted(users, key=lambda user: user.op_type != "Sigmoid")
        if set(product.inputs) == {output, sigmoid.outputs[0]} and only_consumer(sigmoid.outputs[0]) is product:
            return "silu", [sigmoid, product]
    return None


def use_grouped_conv(model: ir.Model) -> list[str]:
    """Conv -> GroupedConv2d where that is faster (see `grouped_is_faster`), and in float64.

    Convolutions of quantized data stay: ONNX Runtime makes QLinearConv of them and the Q and DQ nodes around.
    """
    changed = 0
    for conv in nodes_of(model, "Conv"):
        weight = conv.inputs[1]
        shape = weight.shape if weight is not None else None
        group = conv.attributes["group"].as_int() if "group" in conv.attributes else 1
        automatic = "auto_pad" in conv.attributes and conv.attributes["auto_pad"].as_string() not in ("", "NOTSET")
        sizes = [size for size in shape or () if isinstance(size, int)]
        quantized = weight is not None and (maker := weight.producer()) is not None and maker.op_type == "DequantizeLinear"
        if len(sizes) != 4 or automatic or quantized:
            continue
        missing = conv.outputs[0].dtype == ir.DataType.DOUBLE  # ONNX Runtime's CPU provider has no Conv in float64
        if not missing and not grouped_is_faster(group, sizes[0] // group, sizes[1]):
            continue
        attributes = {name: attr for name, attr in conv.attributes.items() if name != "auto_pad"}
        node = ir.node("GroupedConv2d", list(conv.inputs), attributes=attributes, domain=DOMAIN, version=1, name=conv.name)
        replace([conv], [node], node.outputs)
        changed += 1
    return [f"{changed} convolutions run as GroupedConv2d"] if changed else []


def grouped_is_faster(group: int, outputs_per_group: int, channels_per_group: int) -> bool:
    """Whether a model gets faster with our GroupedConv2d in the place of ONNX Runtime's Conv.

    Measured with onnxruntime 1.31.1, float32, one AVX-512 core, 3x3. Alone, up to 256 products per group take 0.3 of its time in 32
    groups of 4 or 8 channels and 0.85 depthwise. In whole models it keeps a layout of its own between its convolutions, which
    ours leave and enter again: depthwise networks lose by that, and so do groups of 16 and 32 channels, for which it has blocked
    kernels (RegNetX-800MF: 1.3 times slower). Groups of other sizes gain: RegNetY-400MF (8) 0.73, ResNeXt-50 (4 and 8) 0.93.
    """
    narrow = channels_per_group >= 2 and channels_per_group * outputs_per_group <= 256
    middling = 8 <= channels_per_group <= 24 and outputs_per_group >= 8
    return group > 1 and channels_per_group % 16 != 0 and (narrow or middling)


def add_zero_biases(model: ir.Model) -> list[str]:
    """A bias of zeros where another input follows a missing one: TensorRT's parser takes no empty input before another."""
    added = 0
    specs = {(DOMAIN, op.spec.name): op.spec for op in OPS} | {("", "DeformConv"): op_named("DeformConv2d").spec}
    for (domain, op_type), spec in specs.items():
        for node in nodes_of(model, op_type, domain):
            last = max((index for index, value in enumerate(node.inputs) if value is not None), default=0)
            for index, tensor in enumerate(spec.inputs[:last]):
                if node.inputs[index] is None and tensor.optional and len(tensor.axes) == 1:
                    node.replace_input_with(index, _zero_bias(model, node, spec, tensor.axes[0]))
                    added += 1
    return [f"{added} convolutions without a bias given one of zeros, as TensorRT's parser wants"] if added else []


def _zero_bias(model: ir.Model, node: ir.Node, spec: OpSpec, axis: str) -> ir.Value:
    """Zeros of the size that the weight which bears this axis has."""
    index = next(index for index, tensor in enumerate(spec.inputs) if tensor.axes[0] == axis and len(tensor.axes) > 1)
    weight = node.inputs[index]
    size = weight.shape[0] if weight is not None and weight.shape is not None else None
    if weight is None or not isinstance(size, int):
        raise InvalidModel(f"node {node.name!r} ({node.op_type}): its weight has no fixed shape; wanted one; export the model with it")
    zeros = np.zeros(size, (weight.dtype or ir.DataType.FLOAT).numpy())
    return new_initializer(model, zeros, f"{weight.name or node.name}.zero_bias")


# ------------------------------------------------------------------------------------------------------------ names
def rename_dimensions(model: ir.Model, names: dict[str, str]) -> None:
    """Rename symbolic sizes everywhere, also inside expressions such as `s77//2`."""
    pattern = re.compile("|".join(rf"\b{re.escape(old)}\b" for old in names)) if names else None
    if pattern is None:
        return
    graph = model.graph
    values = [*graph.inputs, *graph.outputs, *(output for node in graph.all_nodes() for output in node.outputs)]
    for value in values:
        if value.shape is None:
            continue
        value.shape = ir.Shape(
            pattern.sub(lambda match: names[match.group(0)], dimension.value)
            if isinstance(dimension, ir.SymbolicDim) and dimension.value is not None
            else dimension
            for dimension in value.shape
        )


def name_inputs(model: ir.Model, names: Sequence[str]) -> None:
    """Name the graph's inputs, in order; a clash with another value's name gives way."""
    _make_room(model, names)
    for value, name in zip(model.graph.inputs, names, strict=True):
        value.name = name


def name_outputs(model: ir.Model, names: Sequence[str]) -> None:
    """Name the graph's outputs, in order. An output that is also an input, a constant or another output gets an Identity."""
    graph = model.graph
    _make_room(model, names)
    seen: set[ir.Value] = set()
    for index, (value, name) in enumerate(zip(list(graph.outputs), names, strict=True)):
        if value in seen or value.is_graph_input() or value.producer() is None:
            copy = ir.node("Identity", [value])
            copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
            graph.append(copy)
            graph.outputs[index] = value = copy.outputs[0]
        seen.add(value)
        value.name = name


def _make_room(model: ir.Model, names: Sequence[str]) -> None:
    graph = model.graph
    wanted = set(names)
    inner = [*graph.inputs, *graph.initializers.values(), *(output for node in graph.all_nodes() for output in node.outputs)]
    for value in inner:
        if value.name in wanted:
            value.name = f"{value.name}_value"


def name_nodes_by_module(model: ir.Model) -> None:
    """Name deformable and deploydcn nodes after the module they come from: `backbone.layer2.conv`, in errors and profiles."""
    taken = {node.name for node in model.graph.all_nodes()}
    for node in model.graph.all_nodes():
        scopes = node.metadata_props.get(NAME_SCOPES)
        if scopes is None or not (node.domain == DOMAIN or node.op_type == "DeformConv"):
            continue
        paths = [path for path in ast.literal_eval(scopes)[:-1] if path]
        base = name = paths[-1] if paths else node.op_type
        count = 1
        while name in taken:
            count += 1
            name = f"{base}_{count}"
        taken.add(name)
        node.name = name


def strip_private_metadata(model: ir.Model) -> None:
    """Remove stack traces and graph dumps: they carry the user's source lines and paths. Module paths stay, for parity tools."""
    for node in model.graph.all_nodes():
        for key in ("pkg.torch.onnx.stack_trace", "pkg.torch.onnx.fx_node", "pkg.onnxscript.rewriter.rule_name"):
            node.metadata_props.pop(key, None)
