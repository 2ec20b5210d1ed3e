"""DCNv3 and DCNv4: channels-last sampling without weights, one set of taps per group of channels."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploydcn.export.builder import OpBuilder, Size
from deploydcn.export.portable.node import SpecNode
from deploydcn.export.portable.sampling import Coordinate, coordinate, corners, pixel_table, weighted_rows


def dcnv3(op: OpBuilder, node: SpecNode) -> list[ir.Value]:
    """output (N, OH, OW, C); see the spec of DCNv3."""
    a, taps = node.attribute_axes(), len(_taps(node)[0])
    sizes = op.sizes(node.inputs["offset"], 4)[:3]
    offset = op.reshape(op.to_real(node.inputs["offset"]), *sizes, a["G"], taps, 2)
    mask = op.reshape(op.to_real(node.inputs["mask"]), *sizes, a["G"], taps)
    return [_sampled(op, node, offset, mask, sizes)]


def dcnv4(op: OpBuilder, node: SpecNode) -> list[ir.Value]:
    """output (N, OH, OW, C); see the spec of DCNv4: offsets and mask of a group lie side by side, the rest is padding."""
    a, taps = node.attribute_axes(), len(_taps(node)[0])
    sizes = op.sizes(node.inputs["offset_mask"], 4)[:3]
    used = op.Slice(op.to_real(node.inputs["offset_mask"]), [0], [3 * a["G"] * taps], [3])
    groups = op.reshape(used, *sizes, a["G"], 3 * taps)
    offset = op.reshape(op.Slice(groups, [0], [2 * taps], [4]), *sizes, a["G"], taps, 2)
    mask = op.Slice(groups, [2 * taps], [3 * taps], [4])
    return [_sampled(op, node, offset, op.Softmax(mask, axis=-1) if node.attributes["softmax"] else mask, sizes)]


def _taps(node: SpecNode) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of every tap: column by column, without the centre where it is removed."""
    a = node.attribute_axes()
    column, row = np.divmod(np.arange(a["KW"] * a["KH"]), a["KH"])
    kept = (row != a["KH"] // 2) | (column != a["KW"] // 2) if node.attributes["remove_center"] else np.full(row.shape, True)
    return row[kept], column[kept]


def _sampled(op: OpBuilder, node: SpecNode, offset: ir.Value, mask: ir.Value, sizes: list[Size]) -> ir.Value:
    """offset: (N, OH, OW, G, P, 2) as (x, y); mask: (N, OH, OW, G, P); sizes: N, OH, OW."""
    a, scale = node.attribute_axes(), float(node.attributes["offset_scale"])
    groups = a["G"]
    batch, height, width, all_channels = op.sizes(node.inputs["input"], 4)
    channels = op.quotient(all_channels, groups)
    row, column = _taps(node)

    def position(axis: int, tap: np.ndarray, kernel: int, dilation: int, origin: ir.Value) -> Coordinate:
        """origin + reach + (tap*dilation - reach + offset) * scale, whole numbers apart: (N, OH, OW, G, P)."""
        reach = dilation * (kernel - 1) // 2
        fixed = (tap * dilation - reach) * scale
        whole = np.floor(fixed)
        moved = coordinate(op, op.Add(op.Mul(op.Gather(offset, axis, axis=-1), scale), (fixed - whole).astype(op.real.numpy())))
        return Coordinate(op.Add(moved.whole, op.Add(origin, whole.astype(np.int64) + reach)), moved.fraction)

    y_origin = op.Sub(op.Mul(op.indices(sizes[1], 1, 1, 1), a["SH"]), a["PT"])  # (OH, 1, 1, 1)
    x_origin = op.Sub(op.Mul(op.indices(sizes[2], 1, 1), a["SW"]), a["PL"])  # (OW, 1, 1)
    y = position(1, row, a["KH"], a["DH"], y_origin)
    x = position(0, column, a["KW"], a["DW"], x_origin)

    # Row ((n*H + y)*W + x)*G + g of the table holds the channels of one group at one pixel.
    rows = op.product(batch, height, width, groups)
    table = pixel_table(op, op.to_real(node.inputs["input"]), rows, channels)
    image = op.Mul(op.indices(batch, 1, 1, 1, 1, 1), op.product(height, width, groups))
    first = op.Add(image, np.arange(groups).reshape(groups, 1, 1))
    at, weights = corners(op, y, x, height, width, first, rows, stride=groups)
    weights = op.Mul(weights, op.Unsqueeze(mask, [-1]))
    at, weights = (op.reshape(value, *sizes, groups, 4 * len(row)) for value in (at, weights))
    return op.reshape(weighted_rows(op, table, at, weights), *sizes, all_channels)
