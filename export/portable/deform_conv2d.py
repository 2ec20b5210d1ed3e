"""DeformConv2d: sample every tap of every pixel, then multiply by the weights."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from deploydcn.export.builder import OpBuilder, Size
from deploydcn.export.portable.node import SpecNode
from deploydcn.export.portable.sampling import Coordinate, coordinate, corners, pixel_table, weighted_rows
from deploydcn.export.standard import activate


def deform_conv2d(op: OpBuilder, node: SpecNode) -> list[ir.Value]:
    """Y (N, M, OH, OW); see the spec of DeformConv2d."""
    a = node.attribute_axes()
    outputs, channels, kernel_h, kernel_w = node.known_sizes("W")  # channels: of a group
    groups, offset_groups, taps = a["G"], a["OG"], kernel_h * kernel_w
    sampled_channels = channels * groups // offset_groups  # those that share offsets
    batch, _, height, width = op.sizes(node.inputs["X"], 4)
    _, _, out_h, out_w = op.sizes(node.inputs["offset"], 4)
    pixels, positions = op.product(height, width), op.product(out_h, out_w)
    samples = batch, offset_groups, op.product(positions, taps)

    # Where each tap samples: (N, OG, OH*OW*K).
    offset = op.reshape(op.to_real(node.inputs["offset"]), batch, offset_groups, taps, 2, out_h, out_w)
    offset = op.Transpose(offset, perm=[0, 1, 4, 5, 2, 3])
    row, column = np.divmod(np.arange(taps), kernel_w)
    base_y = op.Add(op.Mul(op.indices(out_h, 1, 1), a["SH"]), row * a["DH"] - a["PT"])  # (OH, 1, K)
    base_x = op.Add(op.Mul(op.indices(out_w, 1), a["SW"]), column * a["DW"] - a["PL"])  # (OW, K)
    y, x = (coordinate(op, op.Gather(offset, axis, axis=-1)) for axis in (0, 1))
    y, x = (Coordinate(op.Add(at.whole, base), at.fraction) for at, base in ((y, base_y), (x, base_x)))
    y, x = (Coordinate(op.reshape(at.whole, *samples), op.reshape(at.fraction, *samples)) for at in (y, x))

    # Row (n*OG + offset group)*H*W + pixel of the table holds the channels of one offset group.
    image = op.reshape(op.to_real(node.inputs["X"]), batch, offset_groups, sampled_channels, pixels)
    rows = op.product(batch, offset_groups, pixels)
    table = pixel_table(op, op.Transpose(image, perm=[0, 1, 3, 2]), rows, sampled_channels)
    first = op.Mul(op.reshape(op.indices(op.product(batch, offset_groups)), batch, offset_groups, 1, 1), pixels)
    at, weights = corners(op, y, x, height, width, first, rows)
    if "mask" in node.inputs:
        mask = op.reshape(op.to_real(node.inputs["mask"]), batch, offset_groups, taps, positions)
        weights = op.Mul(weights, op.reshape(op.Transpose(mask, perm=[0, 1, 3, 2]), *samples, 1))
    sampled = weighted_rows(op, table, at, weights)  # (N, OG, OH*OW*K, 1, C/OG)

    # From offset groups to groups: blocks of channels that share both. Then (N, G, OH*OW, K*C/G) x (G, K*C/G, M/G).
    blocks = math.lcm(groups, offset_groups)
    split = (batch, offset_groups, positions, taps, blocks // offset_groups, channels * groups // blocks)
    sampled = _transposed(op, sampled, split, (0, 1, 4, 2, 3, 5), axis=4)  # (N, blocks, OH*OW, K, C/blocks)
    nested = (batch, groups, blocks // groups, positions, taps, channels * groups // blocks)
    sampled = _transposed(op, sampled, nested, (0, 1, 3, 4, 2, 5), axis=2)
    matrix = op.reshape(op.to_real(node.inputs["W"]), groups, outputs // groups, channels, taps)
    matrix = op.reshape(op.Transpose(matrix, perm=[0, 3, 2, 1]), groups, taps * channels, outputs // groups)
    result = op.MatMul(op.reshape(sampled, batch, groups, positions, taps * channels), matrix)
    result = op.reshape(op.Transpose(result, perm=[0, 1, 3, 2]), batch, outputs, out_h, out_w)
    if "B" in node.inputs:
        result = op.Add(result, op.reshape(op.to_real(node.inputs["B"]), outputs, 1, 1))
    return [activate(op, result, node.attributes["activation"])]


def _transposed(op: OpBuilder, value: ir.Value, shape: tuple[Size, ...], perm: tuple[int, ...], axis: int) -> ir.Value:
    """Reshape and transpose, unless all that moves is an `axis` of size 1."""
    return value if shape[axis] == 1 else op.Transpose(op.reshape(value, *shape), perm=perm)
