"""MSDeformAttn: all levels lie in one table of rows, so that one gather serves them all."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploydcn.export.builder import OpBuilder
from deploydcn.export.portable.node import SpecNode
from deploydcn.export.portable.sampling import Coordinate, coordinate, corners, pixel_table, weighted_rows


def ms_deform_attn(op: OpBuilder, node: SpecNode) -> list[ir.Value]:
    """output (N, Q, M*D); see the spec of MSDeformAttn."""
    batch, pixels, heads, channels = op.sizes(node.inputs["value"], 4)
    _, queries, _, levels, points, _ = op.sizes(node.inputs["sampling_locations"], 6)
    height, width = (op.reshape(op.Gather(node.inputs["spatial_shapes"], axis, axis=1), levels, 1) for axis in (0, 1))

    double = ir.DataType.DOUBLE  # the product in float32 would lose 3e-5 of a pixel on a level 900 wide

    def position(axis: int, size: ir.Value) -> Coordinate:
        located = op.Gather(node.inputs["sampling_locations"], axis, axis=-1)  # (N, Q, M, L, P)
        exact = op.Mul(op.Cast(located, to=double), op.Cast(size, to=double))
        return coordinate(op, op.Sub(exact, np.array(0.5)), double)

    y, x = position(1, height), position(0, width)

    # Row (n*S + level's start + y*W + x)*M + m of the table holds the channels of one head at one pixel.
    rows = op.product(batch, pixels, heads)
    table = pixel_table(op, op.to_real(node.inputs["value"]), rows, channels)
    start = op.Add(op.Mul(op.indices(batch, 1, 1, 1, 1, 1), pixels), op.reshape(node.inputs["level_start_index"], levels, 1, 1))
    first = op.Add(op.Mul(start, heads), op.indices(heads, 1, 1, 1))
    at, weights = corners(op, y, x, op.Unsqueeze(height, [-1]), op.Unsqueeze(width, [-1]), first, rows, stride=heads)
    weights = op.Mul(weights, op.Unsqueeze(op.to_real(node.inputs["attention_weights"]), [-1]))
    samples = op.product(levels, points, 4)
    at, weights = (op.reshape(value, batch, queries, heads, samples) for value in (at, weights))
    return [op.reshape(weighted_rows(op, table, at, weights), batch, queries, op.product(heads, channels))]
