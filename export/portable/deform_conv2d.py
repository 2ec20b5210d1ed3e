"""DeformConv2d: sample every tap of every pixel, then multiply by the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from deploydcn.export.builder import OpBuilder
from deploydcn.export.portable.node import SpecNode
from deploydcn.export.portable.sampling import Coordinate, coordinate, corners, pixel_table, weighted_rows
from deploydcn.export.standard import activate


def deform_conv2d(op: OpBuilder, node: SpecNode) -> list[ir.Value]:
    """Y (N, M, OH, OW); see the spec of DeformConv2d. Channels are cut into blocks that share weights and offsets."""
    a: Mapping[str, int] = node.attribute_axes()
    outputs, group_channels, kernel_h, kernel_w = node.known_sizes("W")
    groups, offset_groups, taps = a["G"], a["OG"], kernel_h * kernel_w
    blocks = math.lcm(groups, offset_groups)
    channels = group_channels * groups // blocks  # of one block
    shared = blocks // offset_groups  # blocks that share offsets
    batch, _, height, width = op.sizes(node.inputs["X"], 4)
    _, _, out_h, out_w = op.sizes(node.inputs["offset"], 4)
    pixels, positions = op.product(height, width), op.product(out_h, out_w)

    # Where each tap samples, as whole and fraction: (N, OG, 1, OH*OW*K).
    offset = op.reshape(op.to_real(node.inputs["offset"]), batch, offset_groups, taps, 2, out_h, out_w)
    offset = op.Transpose(offset, perm=[0, 1, 4, 5, 2, 3])
    tap_row, tap_column = np.divmod(np.arange(taps), kernel_w)
    base_y = op.Add(op.Mul(op.indices(out_h, 1, 1), a["SH"]), tap_row * a["DH"] - a["PT"])  # (OH, 1, K)
    base_x = op.Add(op.Mul(op.indices(out_w, 1), a["SW"]), tap_column * a["DW"] - a["PL"])  # (OW, K)
    y, x = (
        _moved(op, coordinate(op, op.Gather(offset, axis_index, axis=-1)), base, (batch, offset_groups, 1, op.product(positions, taps)))
        for axis_index, base in ((0, base_y), (1, base_x))
    )

    # The image, one table for all blocks: row ((n * blocks + block) * H*W + pixel).
    image = op.reshape(op.to_real(node.inputs["X"]), batch, blocks, channels, pixels)
    rows = op.product(batch, blocks, pixels)
    table = pixel_table(op, op.Transpose(image, perm=[0, 1, 3, 2]), rows, channels)
    first = op.Mul(op.reshape(op.indices(op.product(batch, blocks)), batch, offset_groups, shared, 1, 1), pixels)
    at, weights = corners(op, y, x, height, width, first, rows)
    if "mask" in node.inputs:
        mask = op.reshape(op.to_real(node.inputs["mask"]), batch, offset_groups, taps, positions)
        mask = op.reshape(op.Transpose(mask, perm=[0, 1, 3, 2]), batch, offset_groups, 1, op.product(positions, taps), 1)
        weights = op.Mul(weights, mask)
    sampled = op.reshape(weighted_rows(op, table, at, weights), batch, blocks, positions, taps * channels)

    # (N, blocks, OH*OW, K*channels) x (blocks, K*channels, M/G), summed over the blocks of a group.
    matrix = op.reshape(op.to_real(node.inputs["W"]), groups, outputs // groups, blocks // groups, channels, taps)
    matrix = op.reshape(op.Transpose(matrix, perm=[0, 2, 4, 3, 1]), blocks, taps * channels, outputs // groups)
    result = op.MatMul(sampled, matrix)
    if blocks > groups:
        result = op.reshape(result, batch, groups, blocks // groups, positions, outputs // groups)
        result = op.ReduceSum(result, [2], keepdims=0)
    result = op.reshape(op.Transpose(result, perm=[0, 1, 3, 2]), batch, outputs, out_h, out_w)
    if "B" in node.inputs:
        result = op.Add(result, op.reshape(op.to_real(node.inputs["B"]), outputs, 1, 1))
    return [activate(op, result, node.attributes["activation"])]


def _moved(op: OpBuilder, offset: Coordinate, base: ir.Value, shape: tuple[int | ir.Value, ...]) -> Coordinate:
    """An offset from an integer position, reshaped."""
    return Coordinate(op.reshape(op.Add(offset.whole, base), *shape), op.reshape(offset.fraction, *shape))
