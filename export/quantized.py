"""QLinearDeformConv2d <-> DequantizeLinear, DeformConv2d and QuantizeLinear, the form other runtimes and tools know.

A deformable convolution becomes one of integers where X comes from a DequantizeLinear of one scale, W from one of int8 with zero point
0 and a scale or one per output channel, and its result, or that of a fused activation, goes to one QuantizeLinear of one scale and of X's
type; all scales constant, offsets and mask float32. Whatever else uses X or W keeps its own DequantizeLinear.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from deploydcn.export.builder import OpBuilder
from deploydcn.export.graph import constant, input_at, new_initializer, node_name, nodes_of, only_consumer, replace
from deploydcn.export.portable.node import SpecNode
from deploydcn.export.standard import activate
from deploydcn.onnx_schema import DOMAIN, VERSION
from deploydcn.ops.deform_conv2d import SPEC as DEFORM_CONV2D
from deploydcn.ops.qlinear_deform_conv2d import SPEC
from deploydcn.ops.qlinear_deform_conv2d.spec import MOST_PRODUCTS

ROUNDING = "QLinearDeformConv2d rounds samples to 8 bits, DeformConv2d between Q and DQ does not: results differ by single units"
BYTES: dict[ir.DataType | None, np.dtype[Any]] = {ir.DataType.UINT8: np.dtype(np.uint8), ir.DataType.INT8: np.dtype(np.int8)}


# --------------------------------------------------------------------------------------------------------- to Q and DQ nodes
def to_qdq(model: ir.Model) -> list[str]:
    """QLinearDeformConv2d -> DequantizeLinear, DeformConv2d, its activation, QuantizeLinear."""
    nodes = list(nodes_of(model, SPEC.name, DOMAIN))
    for node in nodes:
        _lower(model, node, SpecNode(SPEC, node))
    return [f"{len(nodes)} {SPEC.name} written with QuantizeLinear and DequantizeLinear: {ROUNDING}"] if nodes else []


def _lower(model: ir.Model, node: ir.Node, read: SpecNode) -> None:
    op, inputs, real = OpBuilder(ir.DataType.FLOAT), read.inputs, ir.TensorType(ir.DataType.FLOAT)
    x = op.DequantizeLinear(inputs["X"], inputs["x_scale"], inputs["x_zero_point"])
    weight = op.DequantizeLinear(inputs["W"], inputs["w_scale"], axis=0)
    bias = None
    if "B" in inputs:  # no DequantizeLinear: TensorRT has none for 32 bits
        parts = [constant(inputs[name]) for name in ("B", "w_scale", "x_scale")]
        known = [part.astype(np.float64) for part in parts if part is not None]
        if len(known) == len(parts):
            bias = new_initializer(model, np.prod(np.broadcast_arrays(*known), axis=0).astype(np.float32), f"{node.name}.bias")
        else:
            bias = op.Mul(op.Cast(inputs["B"], to=ir.DataType.FLOAT), op.Mul(inputs["w_scale"], inputs["x_scale"]))
            bias.type, bias.shape = real, inputs["B"].shape
    window = {name: attr.value for name, attr in node.attributes.items() if name != "activation"}
    y = op.own("DeformConv2d", x, weight, inputs["offset"], bias, inputs.get("mask"), **window)
    op.nodes[-1].name = node.name
    for value, like in ((x, inputs["X"]), (weight, inputs["W"]), (y, node.outputs[0])):
        value.type, value.shape = real, like.shape
    result = op.QuantizeLinear(activate(op, y, read.attributes["activation"]), inputs["y_scale"], inputs["y_zero_point"])
    replace([node], op.nodes, [result])


def suit_tensorrt(model: ir.Model) -> list[str]:
    """Constant biases of 32 bits as real numbers: TensorRT's DequantizeLinear takes 8 bits and fewer. A note where it refuses the file."""
    changed = 0
    for node in nodes_of(model, "DequantizeLinear"):
        real = _dequantized_bias(node) if node.inputs[0] is not None and node.inputs[0].dtype == ir.DataType.INT32 else None
        if real is not None and not node.outputs[0].is_graph_output():
            made = new_initializer(model, real.astype(np.float32), f"{node.inputs[0].name}.real")  # type: ignore[union-attr]
            ir.convenience.replace_all_uses_with(node.outputs[0], made)
            changed += 1
    notes = [f"{changed} biases of 32 bits written as float32, as TensorRT wants"] if changed else []
    zero_points = [constant(input_at(node, 2)) for node in nodes_of(model, "QuantizeLinear")]
    if any(zero is None or zero.dtype != np.int8 or np.any(zero) for zero in zero_points):
        notes.append("TensorRT refuses activations that are not int8 around 0; quantize the float32 file for target tensorrt")
    return notes


# ------------------------------------------------------------------------------------------------------- from Q and DQ nodes
class _Unfit(Exception):
    """Why a deformable convolution stays one of real numbers."""


@dataclass(frozen=True)
class _Scaled:
    """8-bit data and its constants. scale and zero_point: of one element, or one per slice of `axis`."""

    data: ir.Value
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int


def from_qdq(model: ir.Model) -> list[str]:
    """DeformConv2d between DequantizeLinear and QuantizeLinear -> QLinearDeformConv2d; notes name those that cannot be."""
    formed, notes = 0, []
    for node in nodes_of(model, "DeformConv2d", DOMAIN):
        around = [value.producer() for value in node.inputs[:2] if value is not None]
        if not any(producer is not None and producer.op_type == "DequantizeLinear" for producer in around):
            continue
        try:
            _raise(model, SpecNode(DEFORM_CONV2D, node))
            formed += 1
        except _Unfit as reason:
            notes.append(f"{node_name(node)} stays in float32 between its Q and DQ nodes: {reason}")
    return [*([f"{formed} deformable convolutions run on 8-bit integers; {ROUNDING}"] if formed else []), *notes]


def _raise(model: ir.Model, read: SpecNode) -> None:
    node, inputs = read.node, read.inputs
    x, weight = _dequantized(inputs["X"], "X"), _dequantized(inputs["W"], "W")
    quantize = only_consumer(node.outputs[0])
    if quantize is None or quantize.op_type != "QuantizeLinear":
        raise _Unfit("its result is used as real numbers, not by one QuantizeLinear alone")
    y_scale, y_zero_point = _parameters(quantize, "Y")
    _require_fit(x, weight, y_scale, y_zero_point)
    for name in ("offset", "mask"):
        if name in inputs and inputs[name].dtype != ir.DataType.FLOAT:
            raise _Unfit(f"{name} is {inputs[name].dtype}; wanted FLOAT")
    sizes = [size for size in weight.data.shape or () if isinstance(size, int)]
    if len(sizes) != 4:
        raise _Unfit("W has no fixed shape")
    if math.prod(sizes[1:]) > MOST_PRODUCTS:
        raise _Unfit(f"it adds up more than {MOST_PRODUCTS} products for one output")
    w_scale = np.broadcast_to(weight.scale.reshape(-1), (sizes[0],)).astype(np.float32)
    name = read.node.name or "deform_conv"

    def scalar(array: np.ndarray, what: str) -> ir.Value:
        return new_initializer(model, array.reshape(()), f"{name}.{what}")

    values: dict[str, ir.Value | None] = {
        "X": x.data,
        "x_scale": scalar(x.scale, "x_scale"),
        "x_zero_point": scalar(x.zero_point, "x_zero_point"),
        "W": weight.data,
        "w_scale": new_initializer(model, w_scale, f"{name}.w_scale"),
        "y_scale": scalar(y_scale, "y_scale"),
        "y_zero_point": scalar(y_zero_point, "y_zero_point"),
        "offset": inputs["offset"],
    }
    if "B" in inputs:
        bias = _bias(inputs["B"], float(x.scale.reshape(())) * w_scale.astype(np.float64))
        values["B"] = new_initializer(model, bias, f"{name}.bias")
    if "mask" in inputs:
        values["mask"] = inputs["mask"]
    order = [values.get(tensor.name) for tensor in SPEC.inputs]
    while order[-1] is None:
        order.pop()
    made = ir.node(SPEC.name, order, attributes=dict(node.attributes), domain=DOMAIN, version=VERSION, name=node.name)
    replace([node, quantize], [made], made.outputs)


def _dequantized(value: ir.Value, what: str) -> _Scaled:
    node = value.producer()
    if node is None or node.op_type != "DequantizeLinear":
        raise _Unfit(f"{what} comes from no DequantizeLinear")
    data = node.inputs[0]
    if data is None or data.dtype not in BYTES:
        raise _Unfit(f"{what} is {data.dtype if data is not None else 'missing'}; wanted 8 bits")
    scale, zero_point = _parameters(node, what, BYTES[data.dtype])
    return _Scaled(data, scale, zero_point, node.attributes["axis"].as_int() if "axis" in node.attributes else 1)


def _parameters(node: ir.Node, what: str, dtype: np.dtype[Any] = BYTES[ir.DataType.UINT8]) -> tuple[np.ndarray, np.ndarray]:
    """The scale and zero point of a Q or DQ node; a zero point left out is 0 of `dtype`."""
    given = node.inputs[2] if len(node.inputs) > 2 else None
    if "output_dtype" in node.attributes and given is None:
        dtype = ir.DataType(node.attributes["output_dtype"].as_int() or ir.DataType.UINT8).numpy()
    scale, zero_point = constant(node.inputs[1]), np.zeros((), dtype) if given is None else constant(given)
    if scale is None or zero_point is None:
        raise _Unfit(f"the scale or zero point of {what} is not constant")
    if scale.dtype != np.float32 or not np.all(np.isfinite(scale)):
        raise _Unfit(f"the scale of {what} is {scale.dtype}; wanted finite float32")
    if "block_size" in node.attributes and node.attributes["block_size"].as_int():
        raise _Unfit(f"{what} is quantized in blocks")
    return scale, zero_point


def _require_fit(x: _Scaled, weight: _Scaled, y_scale: np.ndarray, y_zero_point: np.ndarray) -> None:
    if x.scale.size != 1 or x.zero_point.size != 1:
        raise _Unfit("X has a scale per channel; wanted one")
    if y_scale.size != 1 or y_zero_point.size != 1:
        raise _Unfit("its result is quantized with a scale per channel; wanted one")
    if y_zero_point.dtype != x.zero_point.dtype:
        raise _Unfit(f"X is {x.zero_point.dtype} and its result {y_zero_point.dtype}; wanted one type")
    if weight.zero_point.dtype != np.int8:
        raise _Unfit(f"W is {weight.zero_point.dtype}; wanted int8")
    if np.any(weight.zero_point):
        raise _Unfit("W has a zero point other than 0")
    if weight.scale.size != 1 and (weight.scale.ndim != 1 or weight.axis not in (0, -4)):
        raise _Unfit(f"W has scales along axis {weight.axis}; wanted one per output channel, along axis 0")


def _dequantized_bias(node: ir.Node) -> np.ndarray | None:
    """What a DequantizeLinear of constants computes, in float64; None where they are none."""
    whole, scale = constant(node.inputs[0]), constant(node.inputs[1])
    zero_point = constant(input_at(node, 2))
    if whole is None or scale is None or whole.ndim != 1 or (zero_point is not None and np.any(zero_point)):
        return None
    return np.asarray(whole.astype(np.float64) * scale)


def _bias(value: ir.Value, unit: np.ndarray) -> np.ndarray:
    """The bias in units of x_scale * w_scale."""
    real = constant(value)
    node = value.producer()
    if real is None and node is not None and node.op_type == "DequantizeLinear":
        real = _dequantized_bias(node)
    if real is None:
        raise _Unfit("its bias is not constant")
    with np.errstate(divide="ignore", invalid="ignore"):
        units = np.rint(np.where(real == 0, 0, real.astype(np.float64) / unit))
    limits = np.iinfo(np.int32)
    if not np.all((units >= limits.min) & (units <= limits.max)):
        raise _Unfit("its bias does not fit 32 bits in units of the scales of X and W")
    return units.astype(np.int32)
