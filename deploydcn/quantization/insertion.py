"""Write a selection into a model: weights and biases as integers, Q and DQ nodes around activations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploydcn.errors import InvalidModel
from deploydcn.export.graph import constant, input_at, new_initializer, node_name
from deploydcn.quantization.selection import Selection, Weights

INT32_MAX = 2**31 - 1


@dataclass(frozen=True)
class Scheme:
    """activations: "uint8", with a zero point anywhere, or "int8", symmetric around 0, as TensorRT wants it. weight_limit: the largest
    magnitude of an int8 weight."""

    activations: str
    weight_limit: int

    def parameters(self, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
        """Scale and zero point of a range that contains 0, which has an exact value."""
        if self.activations == "int8":
            scale, zero_point = np.float32(max(-low, high) / 127), np.int8(0)
            return np.array(scale or np.float32(1)), np.array(zero_point)
        scale = np.float32((high - low) / 255)
        if not scale:
            return np.array(np.float32(1)), np.array(np.uint8(0))
        return np.array(scale), np.array(np.clip(np.rint(-low / float(scale)), 0, 255).astype(np.uint8))


Scales = dict[ir.Value, tuple[ir.Value, ir.Value]]
"""The scale and zero point of an activation, as constants of the graph."""


def insert(model: ir.Model, selection: Selection, ranges: Mapping[ir.Value, tuple[float, float]], scheme: Scheme) -> None:
    """Quantize in place. ranges: of every activation with a scale of its own; what is constant has its own extremes."""
    scales: Scales = {}
    for value, shared in selection.activations.items():
        if shared is not None:
            continue
        array = constant(value)
        low, high = ranges[value] if array is None else (float(min(array.min(initial=0), 0)), float(max(array.max(initial=0), 0)))
        scale, zero_point = scheme.parameters(low, high)
        scales[value] = new_initializer(model, scale, f"{value.name}.scale"), new_initializer(model, zero_point, f"{value.name}.zero_point")
    for value, shared in selection.activations.items():
        if shared is not None:
            scales[value] = scales[shared]
    for node, where in selection.layers.items():
        _quantize_weights(model, node, where, scales, scheme)
    for value, parameters in scales.items():
        _round(model, value, *parameters)


def _quantize_weights(model: ir.Model, node: ir.Node, where: Weights, scales: Scales, scheme: Scheme) -> None:
    """One scale per output. A bias in units of x_scale * w_scale must fit 32 bits: where it would not, the weights' scale grows."""
    x, weight = node.inputs[0], node.inputs[where.weight]
    bias = input_at(node, where.bias) if where.bias > 0 else None
    array, real_bias, x_scale = constant(weight), constant(bias), constant(scales[x][0]) if x is not None else None
    assert weight is not None
    assert array is not None
    assert x_scale is not None
    for name, values in (("weight", array), ("bias", real_bias)):
        if values is not None and not np.all(np.isfinite(values)):
            raise InvalidModel(f"node {node_name(node)!r}: its {name} has values that are not finite; wanted numbers; or exclude the node")
    bias_limit = None if real_bias is None else np.abs(real_bias) / (float(x_scale) * INT32_MAX) * 1.001
    whole, scale = whole_weights(array, where.axis, scheme.weight_limit, at_least=bias_limit)
    name = weight.name or node_name(node)
    made = [new_initializer(model, whole, f"{name}.int8"), new_initializer(model, scale, f"{name}.scale")]
    made.append(new_initializer(model, np.zeros(scale.shape, np.int8), f"{name}.zero_point"))
    _dequantize_before(node, where.weight, made, where.axis, weight)
    if bias is not None and real_bias is not None:
        unit = (float(x_scale) * scale.astype(np.float64)).astype(np.float32)
        units = np.clip(np.rint(real_bias / unit.astype(np.float64)), -INT32_MAX, INT32_MAX).astype(np.int32)
        made = [new_initializer(model, units, f"{bias.name}.int32"), new_initializer(model, unit, f"{bias.name}.scale")]
        _dequantize_before(node, where.bias, made, 0, bias)


def whole_weights(array: np.ndarray, axis: int, limit: int, *, at_least: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Weights as int8, symmetric, and a float32 scale per index of `axis`. limit: the largest magnitude. at_least: of the scales."""
    others = tuple(other for other in range(array.ndim) if other != axis)
    scale = np.abs(array).max(axis=others, initial=0).astype(np.float64) / limit
    if at_least is not None:
        scale = np.maximum(scale, at_least)
    scale = np.where(scale > np.finfo(np.float32).tiny, scale, 1).astype(np.float32)
    return np.clip(np.rint(array / along(scale, axis, array.ndim)), -limit, limit).astype(np.int8), scale


def along(scale: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """Scales in a shape that broadcasts over weights."""
    return scale.reshape([-1 if other == axis else 1 for other in range(rank)])


def _dequantize_before(node: ir.Node, index: int, inputs: list[ir.Value], axis: int, like: ir.Value) -> None:
    made = ir.node("DequantizeLinear", inputs, attributes={"axis": axis}, name=f"{inputs[0].name}/dequantize")
    made.outputs[0].name = f"{inputs[0].name}.dequantized"
    made.outputs[0].type, made.outputs[0].shape = like.type, like.shape
    assert node.graph is not None
    node.graph.insert_before(node, made)
    node.replace_input_with(index, made.outputs[0])


def _round(model: ir.Model, value: ir.Value, scale: ir.Value, zero_point: ir.Value) -> None:
    """Everybody who uses a value gets it rounded to 8 bits, the graph's outputs too: what makes it has one user, the Q node."""
    uses = list(value.uses())
    quantize = ir.node("QuantizeLinear", [value, scale, zero_point], name=f"{value.name}/quantize")
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], scale, zero_point], name=f"{value.name}/dequantize")
    result = dequantize.outputs[0]
    quantize.outputs[0].name, result.name = f"{value.name}.quantized", f"{value.name}.dequantized"
    result.type, result.shape = value.type, value.shape
    quantize.outputs[0].type, quantize.outputs[0].shape = ir.TensorType(zero_point.dtype or ir.DataType.UINT8), value.shape
    graph, producer = model.graph, value.producer()
    if producer is not None:
        graph.insert_after(producer, [quantize, dequantize])
    else:
        graph.insert_before(graph[0], [quantize, dequantize])
    for user, index in uses:
        user.replace_input_with(index, result)
    if value.is_graph_output() and producer is not None:
        name, value.name = value.name, f"{value.name}.real"
        result.name = name
        for index, output in enumerate(graph.outputs):
            if output is value:
                graph.outputs[index] = result
