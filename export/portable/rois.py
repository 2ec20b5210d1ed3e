"""What the pooling operators of regions of interest share. Positions are computed in float32 in the specs' order, whatever the data is:
the results are discontinuous in them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploydcn.export.builder import OpBuilder, Size
from deploydcn.export.portable.sampling import FAR, Coordinate, coordinate

HALF = np.float32(0.5)
OUT_OF_BOUNDS = 1 << 40
"""A row that no table has: Gather refuses it."""


@dataclass(frozen=True)
class Samples:
    """Samples of every bin along one axis. at: (..., S) in pixels, far outside where not `valid`; valid: (..., S)."""

    at: Coordinate
    valid: ir.Value


def boxes(op: OpBuilder, rois: ir.Value, batch: Size, *trailing_axes: int) -> tuple[ir.Value, list[ir.Value]]:
    """The image of each box, int64, and x1, y1, x2, y2 in float32: all (R, *trailing_axes). Bad images become rows out of bounds."""
    single = rois if rois.dtype == ir.DataType.FLOAT else op.Cast(rois, to=ir.DataType.FLOAT)
    count = op.sizes(rois, 2)[0]
    image, *corners = (op.reshape(op.Gather(single, column, axis=1), count, *trailing_axes) for column in range(5))
    index = op.Cast(image, to=ir.DataType.INT64)
    named = op.And(op.GreaterOrEqual(index, 0), op.Less(index, batch))
    return op.Where(named, index, OUT_OF_BOUNDS), corners


def samples(op: OpBuilder, position: ir.Value, size: Size, margin: float, used: ir.Value | None = None) -> Samples:
    """Samples at `position` float32 (..., S), valid in [-margin, size - 1 + margin] and on the image's edge where they lie outside it."""
    edge = op.Cast(op.Sub(size, 1), to=ir.DataType.FLOAT)
    valid = op.And(op.GreaterOrEqual(position, np.float32(-margin)), op.LessOrEqual(position, op.Add(edge, np.float32(margin))))
    if used is not None:
        valid = op.And(valid, used)
    moved = op.Where(valid, op.Min(op.Max(position, np.float32(0)), edge), np.float32(-FAR))
    return Samples(coordinate(op, moved, ir.DataType.FLOAT), valid)


def crossed(op: OpBuilder, y: Coordinate, x: Coordinate) -> tuple[Coordinate, Coordinate]:
    """Rows (..., P) and columns (..., Q) as axes of a grid: (..., P, 1) and (..., 1, Q)."""
    return (
        Coordinate(op.Unsqueeze(y.whole, [-1]), op.Unsqueeze(y.fraction, [-1])),
        Coordinate(op.Unsqueeze(x.whole, [-2]), op.Unsqueeze(x.fraction, [-2])),
    )
