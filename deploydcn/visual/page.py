"""The page: one HTML file that holds everything and needs no network; see page.html for what happens in the browser."""

from __future__ import annotations

import base64
import io
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploydcn._lazy import lazy_import
from deploydcn.files import replace_on_success
from deploydcn.vision import data_uri
from deploydcn.visual.layers import Layer
from deploydcn.visual.tracing import HeatMap, heat_maps
from deploydcn.visual.visualize import PixelView, VisualReport

MOST_POINTS = 600_000
"""That a page holds: about 2 MB. Of larger models it holds fewer offset groups, queries and layers, and says so."""

STEPS = 64
"""Positions are kept in this part of a pixel of the layer's map."""

NOT_FINITE = -32768
FIELD_SIDE = 200
FIELD_TONES = 32
TEMPLATE = Path(__file__).with_name("page.html")
PLACEHOLDER = "/* data */ null"


@dataclass(frozen=True)
class Part:
    """What a page holds of a layer."""

    groups: list[int]
    sites: np.ndarray


def write_page(report: VisualReport, path: str | os.PathLike[str]) -> None:
    """Write an HTML file; see `VisualReport.write`."""
    # "</" would end the script, wherever it stands in it.
    data = json.dumps(page_data(report), allow_nan=False).replace("</", "<\\/")
    text = TEMPLATE.read_text(encoding="utf-8").replace(PLACEHOLDER, data)
    with replace_on_success(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def page_data(report: VisualReport) -> dict[str, Any]:
    """What the page's script reads."""
    parts, notes = _selection(report)
    order = list(parts)
    return {
        "model": report.model,
        "image": report.image,
        "size": list(report.photo.size),
        "picture": data_uri(report.photo.canvas),
        "levels": report.levels,
        "group": report.group,
        "first": order.index(max(report.shown)),
        "notes": [*report.notes, *notes],
        "layers": [_layer(report, index, part, order) for index, part in parts.items()],
    }


def _selection(report: VisualReport) -> tuple[dict[int, Part], list[str]]:
    """Which layers, groups and queries fit on a page: by index, and notes on what was left out."""
    layers, notes = report.layers, []

    def points(count: int, kept: Sequence[int]) -> int:
        return sum(len(layers[i].points.y) * min(count, layers[i].groups) * layers[i].points.y.shape[2] for i in kept)

    kept = list(range(len(layers)))
    most = max(layer.groups for layer in layers)
    count = next((count for count in range(most, 1, -1) if points(count, kept) <= MOST_POINTS), 1)
    if count < most:
        kind = "offset group or head" if count == 1 else "offset groups or heads"
        notes.append(f"to keep this page small it holds {count} {kind} of each layer; the model has up to {most}")
    needed = set(report.shown)
    for index in sorted(needed, reverse=True):
        needed |= _ancestors(layers, index)
    for index in sorted(set(kept) - needed, key=lambda i: -points(count, [i])):
        if points(count, kept) > MOST_POINTS:
            kept.remove(index)
            notes.append(f"to keep this page small {layers[index].name} is left out; name it with --layer to see it")
    every = -(-points(count, kept) // MOST_POINTS)
    parts = {}
    for index in kept:
        layer = layers[index]
        sites = np.arange(len(layer.points.y))
        if layer.is_attention and every > 1:
            chosen = [layer.site(view.pixel) for view in report.shown.get(index, ())]
            sites = np.unique([*sites[::every], *chosen])
            notes.append(f"to keep this page small it holds {len(sites)} of {len(layer.points.y)} queries of {layer.name}")
        first = report.group % layer.groups
        others = [group for group in range(layer.groups) if group != first]
        parts[index] = Part(sorted([first, *others[: count - 1]]), sites)
    return parts, notes


def _ancestors(layers: Sequence[Layer], index: int) -> set[int]:
    parent = layers[index].parent
    return set() if parent is None else {parent} | _ancestors(layers, parent)


def _layer(report: VisualReport, index: int, part: Part, order: Sequence[int]) -> dict[str, Any]:
    layer = report.layers[index]
    select = np.ix_(part.sites, np.array(part.groups))
    y, x = (values[select] for values in layer.image_points())
    centre_y, centre_x = (values[part.sites] for values in layer.centres())
    # Far enough that what is cut off still lies outside of the image.
    step = max(max(layer.grid.scale) / STEPS, 2 * max(layer.image_size) / 32767)
    moved = np.stack([y - centre_y[:, None, None], x - centre_x[:, None, None]], -1) / step
    usual = np.clip(np.nan_to_num(np.round(np.median(moved, axis=0)), posinf=0, neginf=0), -1e6, 1e6)
    packed = np.where(np.isfinite(moved), np.clip(np.round(moved - usual), -32767, 32767), NOT_FINITE).astype(np.int16)
    weight = np.abs(np.nan_to_num(layer.points.weight[select]))
    heaviest = max(float(weight.max(initial=0)), 1e-30)
    numbers = report.statistics[index].to_json()
    return {
        "name": layer.name,
        "operator": layer.operator,
        "attention": layer.is_attention,
        "input": list(layer.input_size),
        "output": list(layer.output_size),
        "groups": part.groups,
        "allGroups": layer.groups,
        "points": y.shape[2],
        "sites": part.sites.tolist() if layer.is_attention else [],
        "grid": {"scale": list(layer.grid.scale), "shift": list(layer.grid.shift)},
        "outputGrid": None if layer.is_attention else {"scale": list(layer.output_grid.scale), "shift": list(layer.output_grid.shift)},
        "levelHeights": np.broadcast_to(layer.points.height, y.shape[2]).tolist(),
        "levelWidths": np.broadcast_to(layer.points.width, y.shape[2]).tolist(),
        "centres": [[_finite(a), _finite(b)] for a, b in zip(centre_y, centre_x, strict=True)] if layer.is_attention else [],
        "parent": order.index(layer.parent) if layer.parent in order else None,
        "step": step,
        "usual": usual.ravel().astype(int).tolist(),
        # High bytes and low bytes apart: the high ones are nearly all the same.
        "moved": _packed(np.concatenate([packed.ravel() >> 8, packed.ravel() & 255]).astype(np.uint8)),
        "heaviest": heaviest,
        "weights": _packed(np.round(weight * (255 / heaviest)).astype(np.uint8)),
        "maps": [_map(heat, part.sites) for heat in heat_maps(layer)],
        "statistics": {key: _finite(value) if isinstance(value, float) else value for key, value in numbers.items()},
        "shown": [{"pixel": list(view.pixel), "method": view.method, "field": _field(view)} for view in report.shown.get(index, ())],
    }


def _finite(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _map(heat: HeatMap, sites: np.ndarray) -> dict[str, Any]:
    values = heat.values.ravel()[sites]
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    tones = np.nan_to_num((values - low) / max(high - low, 1e-30), nan=0, posinf=1, neginf=0)
    return {"label": heat.label, "low": low, "high": high, "tones": _packed(np.round(np.clip(tones, 0, 1) * 255).astype(np.uint8))}


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(values).tobytes(), 9)).decode()


def _field(view: PixelView) -> str:
    """A receptive field's square root as a picture: from transparent over purple to yellow."""
    pillow = lazy_import("PIL.Image", extra="report")
    height, width = view.field.shape
    block = max(1, -(-max(height, width) // FIELD_SIDE))
    padded = np.pad(view.field, ((0, -height % block), (0, -width % block)))
    small = np.sqrt(padded.reshape(padded.shape[0] // block, block, -1, block).max((1, 3)))
    tones = np.round(np.clip(small, 0, 1) * (FIELD_TONES - 1)).astype(np.uint8)
    level = np.linspace(0, 1, FIELD_TONES)
    stops = np.array([[60, 15, 110], [183, 55, 121], [252, 137, 97], [252, 253, 191]])
    ramp = np.stack([np.interp(level, np.linspace(0, 1, len(stops)), stops[:, channel]) for channel in range(3)], -1)
    image = pillow.fromarray(tones)
    image.putpalette(ramp.astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    opacity = (np.clip(3 * level, 0, 0.9) * 255).astype(np.uint8)
    image.save(buffer, format="PNG", transparency=opacity.tobytes(), optimize=True)
    # Blocks may reach over the image's edge: the page draws them at their own size.
    return f"{block}|data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
