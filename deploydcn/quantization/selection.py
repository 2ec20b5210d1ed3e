"""Which layers compute with 8 bits, and which activations are rounded to 8 bits between them.

Layers are the convolutions, deformable ones too, and products with constant weights. In float32 stay those that make offsets, masks and
other sampling positions (an 8-bit offset is off by whole pixels), and the arithmetic behind the last layer: boxes in pixels and scores
in [0, 1], joined in one output, have no scale in common. Between layers, what ONNX Runtime computes or moves in 8 bits follows its inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import onnx_ir as ir

from deploydcn.export.graph import constant, input_at, node_name, nodes_named, only_consumer, operator_name
from deploydcn.export.half_rules import OFFSETS, POSITIONS, walk_back
from deploydcn.onnx_schema import DOMAIN


class Weights(NamedTuple):
    """Which inputs of a layer are its weight and its bias, and along which axis of the weight the outputs lie."""

    weight: int
    bias: int
    axis: int


LAYERS = {
    ("", "Conv"): Weights(1, 2, 0),
    ("", "Gemm"): Weights(1, 2, 1),
    ("", "MatMul"): Weights(1, -1, 1),
    (DOMAIN, "DeformConv2d"): Weights(1, 3, 0),
}
NO_KERNEL = {("", "ConvTranspose"), ("", "DeformConv")}
"""Layers that nothing runs with 8 bits."""

MOVEMENT = frozenset(["Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Resize", "Slice", "Squeeze", "Transpose", "Unsqueeze"])
"""Of whose outputs every value is one of the input's, or lies between some: they share its scale."""
ARITHMETIC = frozenset(["Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid"])
"""What ONNX Runtime computes in 8 bits; each output has a scale of its own."""


@dataclass
class Selection:
    """layers: with where their weights are. kept: layers that stay in float32, and why. activations: values to round to 8 bits -> the value
    whose scale they share, or None for one of their own."""

    layers: dict[ir.Node, Weights] = field(default_factory=dict)
    kept: dict[ir.Node, str] = field(default_factory=dict)
    activations: dict[ir.Value, ir.Value | None] = field(default_factory=dict)


def select(model: ir.Model, exclude: Sequence[str]) -> Selection:
    """Decide for a model whose sizes are known as far as they follow from its inputs.

    Args:
        exclude: names of nodes, or patterns such as head.*, that stay in float32.

    Raises:
        InvalidArgument: a name or pattern that no node has.
    """
    nodes = list(model.graph)
    named = nodes_named(nodes, exclude, LAYERS)
    positions = _positions(model)
    selection = Selection()
    for node in model.graph.all_nodes():
        kind = (node.domain, node.op_type)
        if kind not in LAYERS and kind not in NO_KERNEL:
            continue
        reason = "excluded by name" if node in named else positions.get(node, "") or _unfit(node, model)
        if reason:
            selection.kept[node] = reason
        else:
            selection.layers[node] = _weights(node)
    _choose_activations(nodes, selection, named | set(positions))
    return selection


def _positions(model: ir.Model) -> dict[ir.Node, str]:
    """All that computes sampling positions and masks, back to and including the layer that makes them."""
    kept: dict[ir.Node, str] = {}
    for node in model.graph.all_nodes():
        rules = list(POSITIONS.get((node.domain, node.op_type), ()))
        if (node.domain, node.op_type) == (DOMAIN, "DeformConv2d"):
            rules.append((4, True, OFFSETS))
        for index, inclusive, _ in rules:
            for maker in walk_back(input_at(node, index), inclusive=inclusive):
                kept.setdefault(maker, f"makes sampling positions or masks of {node_name(node)}")
    return kept


def _weights(node: ir.Node) -> Weights:
    where = LAYERS[node.domain, node.op_type]
    if node.op_type == "Gemm" and "transB" in node.attributes and node.attributes["transB"].as_int():
        return where._replace(axis=0)
    return where


def _unfit(node: ir.Node, model: ir.Model) -> str:
    """Why a layer cannot compute with 8 bits, "" if it can."""
    if (node.domain, node.op_type) in NO_KERNEL:
        return f"{operator_name(node)} has no kernel for 8 bits"
    if node.graph is not model.graph:
        return "in a branch or loop"
    where = _weights(node)
    x, weight, bias = input_at(node, 0), input_at(node, where.weight), input_at(node, where.bias) if where.bias > 0 else None
    if x is None or weight is None or x.dtype != ir.DataType.FLOAT or weight.dtype != ir.DataType.FLOAT:
        return "not float32"
    if x.const_value is not None or weight.const_value is None or (bias is not None and bias.const_value is None):
        return "its weight or bias is not constant"
    if weight.shape is None or weight.shape[where.axis] == 1:
        return "one output channel: nothing to gain"
    if node.op_type == "MatMul" and len(weight.shape) != 2:
        return "a stack of matrices"
    if node.op_type == "Gemm":
        plain = all(node.attributes[name].as_float() == 1 for name in ("alpha", "beta") if name in node.attributes)
        turned = "transA" in node.attributes and node.attributes["transA"].as_int()
        if turned or not plain or (bias is not None and tuple(bias.shape or ()) != (weight.shape[where.axis],)):
            return "a Gemm of another form than x * W + b"
    return ""


# -------------------------------------------------------------------------------------------------------------- activations
def _choose_activations(nodes: Sequence[ir.Node], selection: Selection, barred: set[ir.Node]) -> None:
    chosen = selection.activations
    feeding = _feeding(nodes, selection, barred)
    for node in nodes:
        if node in selection.layers:
            x = node.inputs[0]
            assert x is not None
            chosen.setdefault(x, None)
            result = _result(node)
            # ONNX Runtime's matrix products return real numbers too: nothing is lost where no layer follows.
            if node.op_type not in ("Gemm", "MatMul") or result in feeding:
                chosen.setdefault(result, None)
        elif node not in barred and _passes(node) and node.outputs[0] in feeding:
            data = [value for value in _data_inputs(node) if value.const_value is None]
            if data and all(value in chosen for value in data):
                for value in _data_inputs(node):
                    chosen.setdefault(value, None)
                chosen.setdefault(_result(node), _root(chosen, data[0]) if node.op_type in MOVEMENT else None)


def _root(chosen: dict[ir.Value, ir.Value | None], value: ir.Value) -> ir.Value:
    """The value that has the scale of its own."""
    while (other := chosen[value]) is not None:
        value = other
    return value


def _feeding(nodes: Sequence[ir.Node], selection: Selection, barred: set[ir.Node]) -> set[ir.Value]:
    """Values that reach an 8-bit layer through what can be computed with 8 bits."""
    feeding: set[ir.Value] = set()
    for node in reversed(nodes):
        if node in selection.layers:
            feeding.update(value for value in node.inputs[:1] if value is not None)
        elif node not in barred and (_passes(node) or _is_clamp(node)) and node.outputs[0] in feeding:
            feeding.update(_data_inputs(node))
    return feeding


def _passes(node: ir.Node) -> bool:
    if node.domain != "" or node.op_type not in MOVEMENT | ARITHMETIC or node.outputs[0].dtype != ir.DataType.FLOAT:
        return False
    if node.op_type == "Resize":  # cubic interpolation overshoots
        return "mode" not in node.attributes or node.attributes["mode"].as_string() in ("nearest", "linear")
    return True


def _data_inputs(node: ir.Node) -> list[ir.Value]:
    """The inputs that hold activations: sizes, indices and axes are no such thing."""
    inputs = node.inputs if node.op_type in ("Add", "Concat", "Mul") else node.inputs[:1]
    return [value for value in inputs if value is not None]


def _is_clamp(node: ir.Node) -> bool:
    """Relu, or Clip to constants: a range of 8 bits does what they do."""
    if node.domain != "" or node.op_type not in ("Relu", "Clip"):
        return False
    return all(value is None or constant(value) is not None for value in node.inputs[1:])


def _result(node: ir.Node) -> ir.Value:
    """A node's output, behind the clamp that alone uses it."""
    follower = only_consumer(node.outputs[0])
    return follower.outputs[0] if follower is not None and _is_clamp(follower) else node.outputs[0]
