"""A deformable layer as it was caught at work: where every output pixel sampled, and with what weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploydcn.errors import InvalidArgument
from deploydcn.ops import op_named
from deploydcn.visual.geometry import Grid, Size, Trail

# What must be read of each operator's inputs; of the others the shapes are enough.
SAMPLING_INPUTS: Mapping[str, tuple[str, ...]] = {
    "DeformConv2d": ("offset", "mask"),
    "QLinearDeformConv2d": ("offset", "mask"),
    "DCNv3": ("offset", "mask"),
    "DCNv4": ("offset_mask",),
    "MSDeformAttn": ("spatial_shapes", "sampling_locations", "attention_weights"),
}
CONVOLUTIONS = ("DeformConv2d", "QLinearDeformConv2d")
IMAGE_AXES = {**dict.fromkeys(CONVOLUTIONS, (-2, -1)), "DCNv3": (-3, -2), "DCNv4": (-3, -2)}
"""Of the data input and the output: rows and columns."""


@dataclass(frozen=True)
class Points:
    """Sampling points, arrays (sites, groups, points) in float64: a site is an output pixel, row by row, or a query.

    y, x: pixels of the map that is sampled. dy, dx: how far the layer moved the point, in the same pixels; for attention, which has no
    regular place for it, how far it lies from the mean of its query's points, in pixels of the image. weight: mask or attention
    weight, 1 without. share: how much of the bilinear weight falls on pixels that exist: 1 inside the map, 0 outside. height, width: of
    the map, or of each point's level.
    """

    y: np.ndarray
    x: np.ndarray
    dy: np.ndarray
    dx: np.ndarray
    weight: np.ndarray
    height: np.ndarray
    width: np.ndarray

    @property
    def share(self) -> np.ndarray:
        inside = [np.clip(np.minimum(at + 1, size - at), 0, 1) for at, size in ((self.y, self.height), (self.x, self.width))]
        return np.asarray(np.nan_to_num(inside[0] * inside[1]))

    @property
    def distance(self) -> np.ndarray:
        """How far a point was moved: hypot(dy, dx)."""
        return np.asarray(np.hypot(self.dy, self.dx))


@dataclass(frozen=True)
class Layer:
    """One deformable layer of a model, on one image.

    name: of the module or node. operator: its ONNX name. shapes: of its inputs. attributes: ONNX's. input_size: (height, width) of the map
    it samples, () for attention. output_size: (height, width), or (queries,). grid: of that map over the image. parent: index of the last
    deformable layer that its data comes from, None if it comes from none.
    """

    name: str
    operator: str
    shapes: Mapping[str, tuple[int, ...]]
    attributes: Mapping[str, Any]
    points: Points
    input_size: tuple[int, ...]
    output_size: tuple[int, ...]
    grid: Grid
    image_size: Size
    parent: int | None = None

    @property
    def is_attention(self) -> bool:
        return self.operator == "MSDeformAttn"

    @property
    def groups(self) -> int:
        """Offset groups, or heads."""
        return int(self.points.y.shape[1])

    @property
    def output_grid(self) -> Grid:
        """Of the output's pixels over the image: each at the middle of its window."""
        a = op_named(self.operator).spec.bind(self.shapes, self.attributes)
        return self.grid.window((a["KH"], a["KW"]), (a["SH"], a["SW"]), (a["PT"], a["PL"]), (a["DH"], a["DW"]))

    def image_points(self) -> tuple[np.ndarray, np.ndarray]:
        """(y, x) of all points in pixels of the image, (sites, groups, points)."""
        if not self.is_attention:
            return self.grid.to_image(self.points.y, self.points.x)
        # 0 and 1 are the borders of every level: half a pixel outside the first and last pixel's centre.
        places = ((self.points.y, self.points.height), (self.points.x, self.points.width))
        y, x = [(at + 0.5) / size * whole - 0.5 for (at, size), whole in zip(places, self.image_size, strict=True)]
        return y, x

    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        """(y, x) of every site in pixels of the image: an output pixel's place; for a query the mean of its points."""
        if self.is_attention:
            y, x = self.image_points()
            return y.mean((1, 2)), x.mean((1, 2))
        rows, columns = np.divmod(np.arange(len(self.points.y)), self.output_size[1])
        return self.output_grid.to_image(rows, columns)

    def site(self, pixel: Sequence[int]) -> int:
        """The index of output pixel (y, x), or of query (n,).

        Raises:
            InvalidArgument: it is outside the output.
        """
        wanted = "a query, as in 17" if self.is_attention else "row and column, as in 3,5"
        if len(pixel) != len(self.output_size):
            raise InvalidArgument(f"pixel {','.join(map(str, pixel))}: {self.name!r} ({self.operator}) wanted {wanted}")
        if not all(0 <= index < size for index, size in zip(pixel, self.output_size, strict=True)):
            last = ",".join(str(size - 1) for size in self.output_size)
            raise InvalidArgument(
                f"pixel {','.join(map(str, pixel))} is outside the output of {self.name!r}; wanted one from {','.join('0' * len(pixel))} "
                f"to {last}"
            )
        return int(np.ravel_multi_index(tuple(pixel), self.output_size))


def make_layer(
    name: str,
    operator: str,
    arrays: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    attributes: Mapping[str, Any],
    *,
    grid: Grid | None,
    image_size: Size,
    parent: int | None = None,
) -> Layer:
    """A layer from what was caught of it, on the batch's first image.

    Args:
        arrays: its SAMPLING_INPUTS by ONNX name; optional ones may be missing.
        shapes: of all its inputs.
        grid: of the map it samples; None where that is not known: then sizes decide.
        image_size: (height, width) of the model's input.
    """
    first = {key: np.asarray(value if key == "spatial_shapes" else value[0], np.float64) for key, value in arrays.items()}
    if operator == "MSDeformAttn":
        points = _attention_points(first, image_size)
        queries = (shapes["sampling_locations"][1],)
        return Layer(name, operator, shapes, attributes, points, (), queries, Grid(), image_size)
    axes = op_named(operator).spec.bind(shapes, attributes)
    size, output = (axes["H"], axes["W"]), (axes["OH"], axes["OW"])
    points = _window_points(operator, first, axes, op_named(operator).spec.complete_attributes(attributes))
    grid = grid or Grid.from_sizes(image_size, size)
    return Layer(name, operator, shapes, attributes, points, size, output, grid, image_size, parent)


def _window_points(operator: str, arrays: Mapping[str, np.ndarray], a: Mapping[str, int], attributes: Mapping[str, Any]) -> Points:
    if operator in CONVOLUTIONS:
        taps = [(float(i * a["DH"]), float(j * a["DW"])) for i in range(a["KH"]) for j in range(a["KW"])]
        starts, scale = (-a["PT"], -a["PL"]), 1.0
        offset = arrays["offset"].reshape(a["OG"], len(taps), 2, -1).transpose(3, 0, 1, 2)
        dy, dx = offset[..., 0], offset[..., 1]
        mask = arrays.get("mask")
        weight = np.ones_like(dy) if mask is None else mask.reshape(a["OG"], len(taps), -1).transpose(2, 0, 1)
    else:
        reach_h, reach_w = a["DH"] * (a["KH"] - 1) // 2, a["DW"] * (a["KW"] - 1) // 2
        centre = (a["KH"] // 2, a["KW"] // 2) if a["RC"] else None
        scale = float(attributes["offset_scale"])
        taps = [
            ((i * a["DH"] - reach_h) * scale, (j * a["DW"] - reach_w) * scale)
            for j in range(a["KW"])
            for i in range(a["KH"])
            if (i, j) != centre
        ]
        starts = (reach_h - a["PT"], reach_w - a["PL"])
        offset, weight = _offsets_and_masks(operator, arrays, a["G"], len(taps), bool(attributes.get("softmax")))
        dy, dx = offset[..., 1] * scale, offset[..., 0] * scale
    rows, columns = np.divmod(np.arange(a["OH"] * a["OW"]), a["OW"])
    tap_y, tap_x = np.array(taps, np.float64).reshape(-1, 2).T
    y = (rows * a["SH"] + starts[0])[:, None, None] + tap_y + dy
    x = (columns * a["SW"] + starts[1])[:, None, None] + tap_x + dx
    return Points(y, x, dy, dx, weight, np.array(a["H"]), np.array(a["W"]))


def _offsets_and_masks(
    operator: str, arrays: Mapping[str, np.ndarray], groups: int, taps: int, softmax: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (sites, groups, taps, (x, y)) and masks (sites, groups, taps) of DCNv3 and DCNv4."""
    if operator == "DCNv3":
        return arrays["offset"].reshape(-1, groups, taps, 2), arrays["mask"].reshape(-1, groups, taps)
    both = arrays["offset_mask"]
    both = both[..., : 3 * groups * taps].reshape(-1, groups, 3 * taps)
    mask = both[..., 2 * taps :]
    if softmax:
        mask = np.exp(mask - mask.max(-1, keepdims=True))
        mask = mask / mask.sum(-1, keepdims=True)
    return both[..., : 2 * taps].reshape(-1, groups, taps, 2), mask


def _attention_points(arrays: Mapping[str, np.ndarray], image_size: Size) -> Points:
    locations, weight = arrays["sampling_locations"], arrays["attention_weights"]
    queries, heads, levels, points, _ = locations.shape
    height, width = (np.repeat(arrays["spatial_shapes"][:, axis], points) for axis in (0, 1))
    flat = locations.reshape(queries, heads, levels * points, 2)
    middle = flat.mean((1, 2), keepdims=True)
    dx, dy = ((flat[..., axis] - middle[..., axis]) * image_size[1 - axis] for axis in (0, 1))
    y, x = flat[..., 1] * height - 0.5, flat[..., 0] * width - 0.5
    return Points(y, x, dy, dx, weight.reshape(queries, heads, levels * points), height, width)


# --------------------------------------------------------------------------------------------- where a layer stands
def map_grid(operator: str, trail: Trail) -> Grid | None:
    """The grid of the map that a layer samples, from what is known of its data; None where that is laid out otherwise."""
    return trail.grid if trail.axes == IMAGE_AXES.get(operator) else None


def parent_of(layers: Sequence[Layer], trail: Trail) -> int | None:
    """The layer that a layer's data comes from, if that has pixels."""
    return None if trail.source is None or layers[trail.source].is_attention else trail.source


def output_trail(layer: Layer, index: int) -> Trail:
    """What is known of a layer's output."""
    if layer.is_attention:
        return Trail(source=index)
    height, width = layer.output_size
    return Trail(layer.output_grid, (height, width), IMAGE_AXES[layer.operator], index)


def unique_name(name: str, taken: set[str]) -> str:
    """`name`, or `name_2` ... as the exporter names several operators of one module."""
    unique, count = name, 1
    while unique in taken:
        count += 1
        unique = f"{name}_{count}"
    taken.add(unique)
    return unique
