"""DeformRoIPool: every bin averages a grid of samples; where grids differ from box to box, all are as large as the largest."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploydcn.export.builder import OpBuilder, Size
from deploydcn.export.portable.node import SpecNode
from deploydcn.export.portable.rois import HALF, Samples, boxes, crossed, samples
from deploydcn.export.portable.sampling import corners, pixel_table, weighted_rows

MOST_SAMPLES = np.float32(1 << 16)
"""As in the spec."""


def deform_roi_pool(op: OpBuilder, node: SpecNode) -> list[ir.Value]:
    """output (R, C, PH, PW); see the spec of DeformRoIPool."""
    pooled = int(node.attributes["output_height"]), int(node.attributes["output_width"])
    batch, channels, height, width = op.sizes(node.inputs["input"], 4)
    count = op.sizes(node.inputs["rois"], 2)[0]
    image, (left, top, right, bottom) = boxes(op, node.inputs["rois"], batch, 1, 1, 1)
    index_y, index_x = (np.arange(bins, dtype=np.float32) for bins in pooled)
    y, grid_h, rows_y = _axis(op, node, top, bottom, 1, index_y.reshape(-1, 1, 1), height)
    x, grid_w, rows_x = _axis(op, node, left, right, 0, index_x.reshape(-1, 1), width)

    # Row (n*H + y)*W + x of the table holds a pixel's channels.
    rows = op.product(batch, height, width)
    table = pixel_table(op, op.Transpose(op.to_real(node.inputs["input"]), perm=[0, 2, 3, 1]), rows, channels)
    first = op.Unsqueeze(op.Mul(image, op.product(height, width)), [-1, -2])
    at, weights = corners(op, *crossed(op, y.at, x.at), height, width, first, rows)
    at, weights = (op.reshape(value, count, *pooled, op.product(rows_y, rows_x, 4)) for value in (at, weights))
    total = op.reshape(weighted_rows(op, table, at, weights), count, *pooled, channels)
    mean = op.Div(total, op.to_real(op.Max(op.Mul(grid_h, grid_w), np.float32(1)), ir.DataType.FLOAT))
    return [op.Transpose(mean, perm=[0, 3, 1, 2])]


def _axis(
    op: OpBuilder, node: SpecNode, low: ir.Value, high: ir.Value, channel: int, index: np.ndarray, size: Size
) -> tuple[Samples, ir.Value, Size]:
    """The samples along one axis (R, PH, PW, S), how many each box has, (R, 1, 1, 1) float32, and S.

    low, high: of the boxes, (R, 1, 1, 1). channel: of the offset. index: of the bins, broadcasting to (PH, PW, 1).
    """
    count, pooled = op.sizes(node.inputs["rois"], 2)[0], (int(node.attributes["output_height"]), int(node.attributes["output_width"]))
    scale, gamma = np.float32(node.attributes["spatial_scale"]), np.float32(node.attributes["gamma"])
    low, high = (op.Sub(op.Mul(value, scale), HALF) for value in (low, high))
    extent = op.Sub(high, low)
    side = op.Div(extent, np.float32(index.size))
    offset = op.constant(np.zeros(1, np.float32))  # an absent one is not skipped: 0 * infinity is no position
    if "offset" in node.inputs:
        offset = op.Gather(node.inputs["offset"], channel, axis=1)  # (R, PH, PW)
        offset = op.Unsqueeze(offset if offset.dtype == ir.DataType.FLOAT else op.Cast(offset, to=ir.DataType.FLOAT), [-1])
    start = op.Add(low, op.Mul(op.Mul(extent, gamma), offset))
    start = op.Add(start, op.Mul(side, index))
    ratio = int(node.attributes["sampling_ratio"])
    slots: Size = ratio
    if ratio:
        grid, used = op.constant(np.full((1, 1, 1, 1), ratio, np.float32)), None
        number = op.constant(np.arange(ratio, dtype=np.float32))
    else:
        grid = op.Where(op.Greater(side, np.float32(0)), op.Ceil(op.Min(side, MOST_SAMPLES)), np.float32(0))
        slots, number = _reaching_image(op, start, side, grid, count, size)
        used = op.Less(number, grid)
    position = op.Add(start, op.Div(op.Mul(side, op.Add(number, HALF)), grid))
    return samples(op, op.expand(position, count, *pooled, slots), size, 1.0, used), grid, slots


def _reaching_image(op: OpBuilder, start: ir.Value, side: ir.Value, grid: ir.Value, count: Size, size: Size) -> tuple[ir.Value, ir.Value]:
    """How many samples of a bin to look at, and their numbers (R, PH, PW, S) float32.

    Samples lie at least half a pixel apart unless a bin has one only: at most 2 * size + 2 can touch the image, and those before the
    first of them are passed over, so that memory does not grow with boxes that are larger than the image.
    """
    flat = op.Concat(op.reshape(grid, count), np.ones(1, np.float32), axis=0)
    most = op.Cast(op.ReduceMax(flat, keepdims=1), to=ir.DataType.INT64)
    slots = op.Min(most, op.Add(op.Mul(size, 2), 8))
    before = op.Floor(op.Div(op.Mul(op.Sub(np.float32(-1), start), grid), side))
    before = op.Where(op.Less(op.Abs(before), MOST_SAMPLES), before, np.float32(0))  # false for NaN: such a bin has no samples
    first = op.Max(op.Sub(before, np.float32(3)), np.float32(0))  # 3 to spare for rounding
    return slots, op.Add(first, op.Cast(op.indices(slots), to=ir.DataType.FLOAT))
