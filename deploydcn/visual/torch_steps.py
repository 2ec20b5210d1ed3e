"""How torch's operators move the grid of a feature map; see geometry.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from deploydcn.visual.geometry import Grid, Trail, map_size


def step(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], trail: Trail, output: Tensor) -> Trail | None:
    """What is known behind an operator whose first argument is a map, `trail` being what is known of that; None for operators that are not
    known to move the grid, and where it is not an image's rows and columns that they move."""
    schema = func._schema
    name = schema.name.partition("::")[2]
    a = {argument.name: argument.default_value for argument in schema.arguments if argument.has_default_value()}
    a |= {argument.name: value for argument, value in zip(schema.arguments, args, strict=False)} | dict(kwargs)
    shape = tuple(args[0].shape)
    if name in ("permute", "transpose"):
        return trail.permuted(_order(name, a, len(shape)))
    if name == "slice":
        grid = _sliced(a, trail, shape)
        return None if grid is None else trail.moved(grid, output.shape)
    if trail.axes != (-2, -1):
        return None
    grid = _moved(name, a, trail, tuple(output.shape))
    return None if grid is None else trail.moved(grid, output.shape)


def _order(name: str, a: Mapping[str, Any], rank: int) -> list[int]:
    if name == "permute":
        return [axis % rank for axis in a["dims"]]
    order = list(range(rank))
    first, second = a["dim0"] % rank, a["dim1"] % rank
    order[first], order[second] = second, first
    return order


def _sliced(a: Mapping[str, Any], trail: Trail, shape: Sequence[int]) -> Grid | None:
    axis = a["dim"] % len(shape) - len(shape)
    if trail.grid is None or trail.axes is None or axis not in trail.axes:
        return None
    start = int(a["start"] or 0)
    start = min(max(start + shape[axis] if start < 0 else start, 0), shape[axis])
    along = [axis == own for own in trail.axes]
    factor, begin = [int(a["step"]) if own else 1 for own in along], [start if own else 0 for own in along]
    return trail.grid.composed(factor, begin)


def _moved(name: str, a: Mapping[str, Any], trail: Trail, after: Sequence[int]) -> Grid | None:
    """The grid behind a window, a padding or a resampling of an (..., H, W) tensor."""
    grid = trail.grid
    if grid is None:
        return None
    if name == "convolution" and a["weight"].dim() == 4:
        move: Callable[..., Grid] = grid.transposed_window if a["transposed"] else grid.window
        return move(a["weight"].shape[2:], _two(a["stride"]), _two(a["padding"]), _two(a["dilation"]))
    if name in ("max_pool2d_with_indices", "avg_pool2d"):
        kernel = _two(a["kernel_size"])
        return grid.window(kernel, _two(a["stride"]) if a["stride"] else kernel, _two(a["padding"]), _two(a.get("dilation", [1])))
    if name == "constant_pad_nd":
        left, top = a["pad"][0], a["pad"][2] if len(a["pad"]) > 2 else 0
        return grid.composed((1, 1), (-top, -left))
    if name.startswith(("upsample_", "_upsample_")):
        # What torch and ONNX call nearest repeats pixels: the copies of one lie side by side over its area, as half_pixel has it.
        return grid.resized(trail.size, map_size(after, (-2, -1)), "align_corners" if a.get("align_corners") else "half_pixel")
    return None


def _two(values: Sequence[int]) -> list[int]:
    """(h, w): torch gives one number for both, too."""
    return [values[0], values[-1]]
