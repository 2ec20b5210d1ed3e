"""`visualize`: what a model's deformable layers look at in an image."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deploydcn._lazy import lazy_import
from deploydcn.errors import InvalidArgument, InvalidModel, RuntimeFailure
from deploydcn.visual.layers import SAMPLING_INPUTS, Layer
from deploydcn.visual.photo import Photo
from deploydcn.visual.sources import Source
from deploydcn.visual.tracing import MOST_LEVELS, Statistics, Trace, density, statistics, trace

MOST_SHOWN = 4
"""Layers drawn when none is named: spread over the model, the last one among them."""

PLACES = ((0.5, 0.5), (0.25, 0.25), (0.75, 0.75))
"""Of the image, (y, x), that are drawn when no pixels are named."""

GRADIENT = "gradient"
DENSITY = "density of sampling points"


@dataclass(frozen=True)
class PixelView:
    """One output pixel of a layer: (y, x), or (query,). traces: its points, level by level. field: where its value comes from, (H, W), the
    largest 1: by gradient, or by what `method` says."""

    pixel: tuple[int, ...]
    traces: tuple[Trace, ...]
    field: np.ndarray
    method: str

    def to_json(self) -> dict[str, Any]:
        return {"pixel": list(self.pixel), "levels": [item.to_json() for item in self.traces], "receptive_field": self.method}


@dataclass(frozen=True)
class VisualReport:
    """Every deformable layer of a model on one image; the shown ones (indices into layers) with their pixels."""

    model: str
    image: str
    photo: Photo
    layers: tuple[Layer, ...]
    statistics: tuple[Statistics, ...]
    shown: Mapping[int, tuple[PixelView, ...]]
    levels: int
    group: int
    notes: tuple[str, ...] = field(default=())

    def write(self, path: str | os.PathLike[str]) -> None:
        """A picture (.png) or a page that needs nothing else (.html).

        Raises:
            InvalidArgument: another suffix, or the folder cannot be written.
            MissingDependency: matplotlib or Pillow is not installed.
        """
        check_suffix(path)
        if Path(path).suffix == ".png":
            from deploydcn.visual.figure import write_figure

            write_figure(self, path)
        else:
            from deploydcn.visual.page import write_page

            write_page(self, path)

    def to_json(self) -> dict[str, Any]:
        """Everything but the images, as plain values."""
        return {
            "model": self.model,
            "image": self.image,
            "size": list(self.photo.size),
            "layers": [
                {
                    "name": layer.name,
                    "operator": layer.operator,
                    "inputs": {name: list(shape) for name, shape in layer.shapes.items()},
                    "output": list(layer.output_size),
                    "groups": layer.groups,
                    "scale": None if layer.is_attention else list(layer.grid.scale),
                    "shift": None if layer.is_attention else list(layer.grid.shift),
                    "exact": layer.is_attention or layer.grid.exact,
                    "after": None if layer.parent is None else self.layers[layer.parent].name,
                    "statistics": numbers.to_json(),
                    "pixels": [view.to_json() for view in self.shown.get(index, ())],
                }
                for index, (layer, numbers) in enumerate(zip(self.layers, self.statistics, strict=True))
            ],
            "notes": list(self.notes),
        }


def visualize(
    model: Any,
    image: str | os.PathLike[str] | np.ndarray,
    outputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    *,
    layers: Sequence[str] | None = None,
    pixels: Sequence[Sequence[int]] | None = None,
    levels: int = MOST_LEVELS,
    group: int = 0,
    size: tuple[int, int] | None = None,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    inputs: Mapping[str, Any] | None = None,
) -> VisualReport:
    """Run a model on an image and show where its deformable layers sample it.

    Args:
        model: an ONNX file of any exporter; a torch module, (module, example), or a factory's name.
        image: a file, or an (H, W, 3) uint8 array, RGB; letterboxed into the model's size.
        outputs: files to write, .html or .png; one or several.
        layers: names of those to show; None: up to four, spread over the model (a page holds all).
        pixels: output pixels (y, x) of every shown layer, or queries (n,) of attention; None: three places of the image.
        levels: 1 to 3 deformable layers to follow points through.
        group: the offset group, or head, whose points are shown.
        size: (height, width) of the model's input; that of the file or example when None, else about the image's own.
        mean, std: per channel or one for all, of pixels in [0, 1]: the model gets (pixels - mean) / std.
        inputs: the model's other inputs by name; those of the example when None. Given under the image's own name, it replaces what
            is made of the image.

    Raises:
        InvalidArgument: an unreadable image, an unknown layer, a pixel outside an output, a size the model does not take.
        InvalidModel: the model cannot be read, or has no deformable layer.
        RuntimeFailure: the model fails on the image.
    """
    if levels not in range(1, MOST_LEVELS + 1):
        raise InvalidArgument(f"levels is {levels}; wanted 1 to {MOST_LEVELS}")
    paths = [outputs] if isinstance(outputs, str | os.PathLike) else list(outputs)
    for path in paths:
        check_suffix(path)
    lazy_import("PIL", extra="report", package="pillow")
    source = Source.of(model)
    photo, tensors = source.prepare(image, size, mean, std, inputs or {})
    found = source.watch(tensors)
    if not found:
        raise InvalidModel(
            f"{source.name} has no deformable layer; looked for {', '.join(SAMPLING_INPUTS)}, DeformConv and torchvision's deform_conv2d"
        )
    chosen = _chosen(found, layers)
    for index in chosen:
        if not 0 <= group < found[index].groups:
            raise InvalidArgument(f"group is {group}; {found[index].name!r} has {found[index].groups}, numbered from 0")
    notes = [*source.notes, *_placement_notes(found)]
    shown = {}
    for index in chosen:
        wanted = [tuple(pixel) for pixel in pixels] if pixels else _default_pixels(found[index], photo)
        shown[index] = _views(source, found, index, wanted, levels, group, notes)
    report = VisualReport(
        source.name,
        "an array" if isinstance(image, np.ndarray) else Path(image).name,
        photo,
        tuple(found),
        tuple(map(statistics, found)),
        shown,
        levels,
        group,
        tuple(dict.fromkeys(notes)),
    )
    for path in paths:
        report.write(path)
    return report


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Refuse what is neither a picture nor a page, before any work is done."""
    if Path(path).suffix not in (".png", ".html"):
        raise InvalidArgument(f"{path}: what to write follows from the name; wanted .png or .html")


def _chosen(layers: Sequence[Layer], names: Sequence[str] | None) -> list[int]:
    known = [layer.name for layer in layers]
    if names:
        for name in names:
            if name not in known:
                raise InvalidArgument(f"no deformable layer {name!r}; the model has {', '.join(known)}")
        return [known.index(name) for name in names]
    last, count = len(known) - 1, min(len(known), MOST_SHOWN)
    return sorted({last - round(step * last / max(count - 1, 1)) for step in range(count)})


def _default_pixels(layer: Layer, photo: Photo) -> list[tuple[int, ...]]:
    """The sites nearest to PLACES of the photograph."""
    top, left, height, width = photo.content
    centre_y, centre_x = layer.centres()
    sites = []
    for y, x in PLACES:
        distance = np.hypot(centre_y - (top + y * height), centre_x - (left + x * width))
        sites.append(int(np.argmin(np.nan_to_num(distance, nan=np.inf))))
    return [tuple(map(int, np.unravel_index(site, layer.output_size))) for site in dict.fromkeys(sites)]


def _views(
    source: Source, layers: Sequence[Layer], index: int, pixels: Sequence[tuple[int, ...]], levels: int, group: int, notes: list[str]
) -> tuple[PixelView, ...]:
    layer = layers[index]
    sites = [layer.site(pixel) for pixel in pixels]
    traces = [trace(layers, index, site, levels=levels, group=group) for site in sites]
    try:
        fields, method = source.gradient(index, sites), GRADIENT
        fields = [values / max(float(values.max()), 1e-30) for values in fields]
    except RuntimeFailure as error:
        notes.append(f"receptive fields are drawn as the density of sampling points, not by gradients: {error}")
        reach = max(layer.image_size) / 100 if layer.is_attention else max(layer.grid.scale) / 2
        method = DENSITY
        fields = [density(trace(layers, index, site, group=group), layer.image_size, max(reach, 1.0)) for site in sites]
    views = zip(pixels, traces, fields, strict=True)
    return tuple(PixelView(pixel, tuple(steps), values, method) for pixel, steps, values in views)


def _placement_notes(layers: Sequence[Layer]) -> list[str]:
    lost = [layer.name for layer in layers if not layer.is_attention and not layer.grid.exact]
    if not lost:
        return []
    return [f"{', '.join(lost)}: placed over the image by the ratio of sizes; how the operators before them move it could not be followed"]
