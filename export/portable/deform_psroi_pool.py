"""DeformPSRoIPool: as DeformRoIPool, but every bin reads channels of its own, and only samples inside the image count."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploydcn.export.builder import OpBuilder, Size
from deploydcn.export.portable.node import SpecNode
from deploydcn.export.portable.rois import HALF, Samples, boxes, crossed, samples
from deploydcn.export.portable.sampling import corners, pixel_table, weighted_rows

SHORTEST = np.float32(0.1)


def deform_psroi_pool(op: OpBuilder, node: SpecNode) -> list[ir.Value]:
    """output and count (R, OD, PS, PS); see the spec of DeformPSRoIPool."""
    a = node.attribute_axes()
    bins, classes, per_class, planes = a["PS"], a["CLS"], a["OD"] // a["CLS"], a["GS"] * a["GS"]
    batch, _, height, width = op.sizes(node.inputs["input"], 4)
    count, pixels = op.sizes(node.inputs["rois"], 2)[0], op.product(height, width)
    image, (left, top, right, bottom) = boxes(op, node.inputs["rois"], batch, 1, 1, 1, 1)
    index = np.arange(bins, dtype=np.float32)
    y = _axis(op, node, top, bottom, 1, index.reshape(-1, 1, 1), height)
    x = _axis(op, node, left, right, 0, index.reshape(-1, 1), width)

    # Row ((n*CLS + class)*GS*GS + group)*H*W + pixel of the table holds the channels of one class.
    rows = op.product(batch, classes * planes, pixels)
    maps = op.reshape(op.to_real(node.inputs["input"]), batch, classes, per_class, planes, pixels)
    table = pixel_table(op, op.Transpose(maps, perm=[0, 1, 3, 4, 2]), rows, per_class)
    group = np.minimum((index * np.float32(a["GS"]) / np.float32(bins)).astype(np.int64), a["GS"] - 1)
    plane = (group[:, None] * a["GS"] + group[None, :])[..., None]  # (PS, PS, 1)
    first = op.Add(op.Mul(image, classes), np.arange(classes).reshape(-1, 1, 1, 1))
    first = op.Unsqueeze(op.Mul(op.Add(op.Mul(first, planes), plane), pixels), [-1, -2])
    at, weights = corners(op, *crossed(op, y.at, x.at), height, width, first, rows)
    samples_of_bin = 4 * int(node.attributes["sample_per_part"]) ** 2
    at, weights = (op.reshape(value, count, classes, bins, bins, samples_of_bin) for value in (at, weights))
    total = op.reshape(weighted_rows(op, table, at, weights), count, classes, bins, bins, per_class)
    valid = op.Mul(*(op.ReduceSum(op.Cast(axis.valid, to=op.real), [-1], keepdims=1) for axis in (y, x)))
    mean = op.Div(total, op.Max(valid, 1.0))
    counts = op.expand(valid, count, classes, bins, bins, per_class)
    return [op.reshape(op.Transpose(value, perm=[0, 1, 4, 2, 3]), count, a["OD"], bins, bins) for value in (mean, counts)]


def _axis(op: OpBuilder, node: SpecNode, low: ir.Value, high: ir.Value, channel: int, index: np.ndarray, size: Size) -> Samples:
    """The samples along one axis, (R, CLS, PS, PS, S). low, high: of the boxes, (R, 1, 1, 1, 1); index: of the bins, to (PS, PS, 1)."""
    a, per_axis = node.attribute_axes(), int(node.attributes["sample_per_part"])
    scale, strength = np.float32(node.attributes["spatial_scale"]), np.float32(node.attributes["trans_std"])
    start = op.Sub(op.Mul(_rounded(op, low), scale), HALF)
    extent = op.Sub(op.Sub(op.Mul(op.Add(_rounded(op, high), np.float32(1)), scale), HALF), start)
    extent = op.Where(op.Less(extent, SHORTEST), SHORTEST, extent)
    side = op.Div(extent, np.float32(a["PS"]))
    position = op.Add(op.Mul(side, index), start)
    count = op.sizes(node.inputs["rois"], 2)[0]
    if "offset" in node.inputs:
        part = (np.arange(a["PS"], dtype=np.float32) / np.float32(a["PS"]) * np.float32(a["PT"])).astype(np.int64)
        offset = op.Gather(op.Gather(node.inputs["offset"], part, axis=2), part, axis=3)
        offset = op.Gather(op.reshape(offset, count, a["CLS"], 2, a["PS"], a["PS"]), channel, axis=2)
        offset = offset if offset.dtype == ir.DataType.FLOAT else op.Cast(offset, to=ir.DataType.FLOAT)
        position = op.Add(position, op.Mul(op.Unsqueeze(op.Mul(offset, strength), [-1]), extent))
    steps = np.arange(per_axis, dtype=np.float32)
    position = op.Add(position, op.Mul(op.Div(side, np.float32(per_axis)), steps))
    return samples(op, op.expand(position, count, a["CLS"], a["PS"], a["PS"], per_axis), size, 0.5)


def _rounded(op: OpBuilder, value: ir.Value) -> ir.Value:
    """To the nearest whole number, halves away from zero; ONNX's Round takes halves to the even one."""
    size = op.Abs(value)
    whole = op.Floor(size)
    up = op.Cast(op.GreaterOrEqual(op.Sub(size, whole), HALF), to=ir.DataType.FLOAT)
    return op.Mul(op.Sign(value), op.Add(whole, up))
