"""How ONNX's operators, and our convolutions, move the grid of a feature map; see geometry.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from deploydcn.export import graph
from deploydcn.export.portable.node import attributes_of
from deploydcn.visual.geometry import Grid, Trail

WINDOWS = ("Conv", "QLinearConv", "GroupedConv2d", "SeparableConv2d", "ConvTranspose", "MaxPool", "AveragePool", "LpPool")
Shapes = Mapping[str, tuple[int, ...]]


def step(node: ir.Node, trail: Trail, shapes: Shapes) -> Trail | None:
    """What is known behind a node whose first input is a map, `trail` being what is known of that; None for nodes that are not known to
    move the grid, and where it is not an image's rows and columns that they move."""
    before, after = (shapes[value.name or ""] for value in (node.inputs[0], node.outputs[0]))  # type: ignore[union-attr]
    a = attributes_of(node)
    if node.op_type == "Transpose":
        return trail.permuted(a.get("perm", tuple(range(len(before)))[::-1]))
    if node.op_type in ("Slice", "Pad"):
        grid = _shifted(node, trail, before)
        return None if grid is None else trail.moved(grid, after)
    if trail.axes != (-2, -1) or trail.grid is None or len(before) != 4 or len(after) != 4:
        return None
    if node.op_type in WINDOWS:
        return trail.moved(_window(node, a, trail.grid, before, after, shapes), after)
    if node.op_type == "Resize":
        convention = a.get("coordinate_transformation_mode", "half_pixel")
        if a.get("mode", "nearest") == "nearest" or convention not in ("align_corners", "asymmetric"):
            convention = "half_pixel"  # "nearest" repeats pixels: the copies of one lie side by side over its area
        return trail.moved(trail.grid.resized(trail.size, (after[-2], after[-1]), convention), after)
    return None


def _window(node: ir.Node, a: Mapping[str, Any], grid: Grid, before: Sequence[int], after: Sequence[int], shapes: Shapes) -> Grid:
    kernel = a.get("kernel_shape") or shapes[node.inputs[3 if node.op_type == "QLinearConv" else 1].name or ""][2:]  # type: ignore[union-attr]
    stride, dilation, pads = (a.get(name, default) for name, default in (("strides", (1, 1)), ("dilations", (1, 1)), ("pads", (0,) * 4)))
    automatic = a.get("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        small, large = (before, after) if node.op_type == "ConvTranspose" else (after, before)
        sizes = zip(kernel, stride, dilation, small[2:], large[2:], strict=True)
        totals = [max((few - 1) * s + d * (k - 1) + 1 - many, 0) for k, s, d, few, many in sizes]
        pads = [(total + (automatic == "SAME_LOWER")) // 2 for total in totals]
    move = grid.transposed_window if node.op_type == "ConvTranspose" else grid.window
    return move(kernel, stride, pads[:2], dilation)


def _shifted(node: ir.Node, trail: Trail, shape: Sequence[int]) -> Grid | None:
    """The grid behind Slice or Pad, if what they do is known before running."""
    names = ("starts", "axes", "steps") if node.op_type == "Slice" else ("pads", "", "axes")
    indices = (1, 3, 4) if node.op_type == "Slice" else (1, 2, 3)
    given = {name: graph.constant(graph.input_at(node, index)) for name, index in zip(names, indices, strict=True)}
    values = given[names[0]]
    if values is None or trail.grid is None or trail.axes is None:
        return None
    axes = [int(axis) % len(shape) - len(shape) for axis in given["axes"]] if given["axes"] is not None else None
    axes = axes or [axis - len(shape) for axis in range(len(values) if node.op_type == "Slice" else len(shape))]
    steps = given.get("steps")
    factor, begin = [1, 1], [0, 0]
    for index, axis in enumerate(axes):
        if axis in trail.axes:
            along = trail.axes.index(axis)
            if node.op_type == "Pad":
                begin[along] = -int(values[index])
                continue
            start = int(values[index])
            begin[along] = int(np.clip(start + shape[axis] if start < 0 else start, 0, shape[axis]))
            factor[along] = 1 if steps is None else int(steps[index])
    return trail.grid.composed(factor, begin)
