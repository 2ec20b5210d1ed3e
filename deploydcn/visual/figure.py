"""The picture: a row per layer with sampling points, receptive fields, offset and mask heat maps over the image."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from deploydcn._lazy import lazy_import
from deploydcn.files import replace_on_success
from deploydcn.visual.layers import Layer
from deploydcn.visual.tracing import HeatMap, heat_maps
from deploydcn.visual.visualize import GRADIENT, PixelView, VisualReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#e69f00", "#56b4e9", "#f0e442", "#009e73", "#cc79a7", "#d55e00", "#0072b2")
"""Okabe and Ito's, told apart by colour-blind readers too, the ones that stand out on photographs first."""

PANEL = 3.4  # inches
HALO = 0.9
DPI = 90
LONGEST_NAME = 44


def write_figure(report: VisualReport, path: str | os.PathLike[str]) -> None:
    """Write a PNG; see `VisualReport.write`."""
    lazy_import("matplotlib", extra="report")
    from matplotlib.figure import Figure

    height, width = report.photo.size
    rows = len(report.shown)
    figure = Figure(figsize=(4 * PANEL + 0.8, rows * (PANEL * height / width + 0.55)), layout="constrained", facecolor="white")
    panels = figure.subplots(rows, 4, squeeze=False)
    for row, (index, views) in zip(panels, report.shown.items(), strict=True):
        layer = report.layers[index]
        _draw_points(row[0], report, layer, views)
        _draw_fields(row[1], report, views)
        for axes, heat, ramp in zip(row[2:], heat_maps(layer), ("viridis", "cividis"), strict=True):
            _draw_heat(axes, report, layer, heat, ramp)
        for axes in row:
            axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    with replace_on_success(path) as temporary:
        figure.savefig(temporary, dpi=DPI)


def _grey(report: VisualReport) -> np.ndarray:
    """The image, paled: what is drawn on it stands out."""
    grey = report.photo.canvas.mean(axis=2, keepdims=True)
    return np.asarray((0.45 * report.photo.canvas + 0.25 * grey + 0.3 * 255).astype(np.uint8))


def _draw_points(axes: Axes, report: VisualReport, layer: Layer, views: tuple[PixelView, ...]) -> None:
    axes.imshow(_grey(report))
    for order, view in enumerate(views):
        colour = COLOURS[order % len(COLOURS)]
        last = view.traces[-1]
        kept = last.share > 0
        strength = np.nan_to_num(np.abs(last.weight * last.share)[kept])
        strength = np.sqrt(strength / max(float(strength.max(initial=0)), 1e-30))
        sizes = (1.5 + 12 * strength) * (3 if len(last.y) <= 30 else 1)
        axes.scatter(last.x[kept], last.y[kept], s=sizes, c=colour, edgecolors="black", linewidths=0.25)
        axes.scatter(last.x[~kept], last.y[~kept], s=8, c=colour, marker="x", linewidths=0.6)
        y, x = layer.centres()
        site = layer.site(view.pixel)
        axes.plot(x[site], y[site], "+", color="black", markersize=11, markeredgewidth=2.6)
        axes.plot(x[site], y[site], "+", color=colour, markersize=10, markeredgewidth=1.3)
    levels, count = len(views[0].traces), len(views[0].traces[-1].y)
    group = f", group {report.group % layer.groups} of {layer.groups}" if layer.groups > 1 else ""
    name = layer.name if len(layer.name) <= LONGEST_NAME else f"...{layer.name[-LONGEST_NAME:]}"
    axes.set_title(f"{name}\n{count} points through {levels} layer{'s' * (levels > 1)}{group}", fontsize=9)


def _draw_fields(axes: Axes, report: VisualReport, views: tuple[PixelView, ...]) -> None:
    field = np.max([view.field for view in views], axis=0) ** 0.5
    axes.imshow(_grey(report))
    axes.imshow(field, cmap="magma", alpha=np.clip(2.5 * field, 0, HALO), vmin=0, vmax=1)
    by = "|d output / d image|" if views[0].method == GRADIENT else views[0].method
    axes.set_title(f"receptive fields, square root\n{by}", fontsize=9)


def _draw_heat(axes: Axes, report: VisualReport, layer: Layer, heat: HeatMap, ramp: str) -> None:
    axes.imshow(_grey(report))
    values = heat.values
    y, x = layer.centres()
    shown: Any
    if layer.is_attention:
        shown = axes.scatter(x, y, c=values, s=10, cmap=ramp)
    else:
        half_y, half_x = (step / 2 for step in layer.output_grid.scale)
        extent = (x.min() - half_x, x.max() + half_x, y.max() + half_y, y.min() - half_y)
        shown = axes.imshow(values, cmap=ramp, alpha=0.75, extent=extent, interpolation="nearest")
    bar = axes.figure.colorbar(shown, ax=axes, shrink=0.8, pad=0.01)
    bar.ax.tick_params(labelsize=7)
    finite = values[np.isfinite(values)]
    limits = f"lowest {finite.min():.3g}, highest {finite.max():.3g}" if finite.size else "not a number anywhere"
    axes.set_title(f"{heat.label}\n{limits}", fontsize=9)
