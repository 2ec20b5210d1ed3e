"""Layers of the other deformable operators, and the standard graphs that compute the same: core ONNX operators (the `portable` target),
and GridSample, as PyTorch's usual formulas are exported."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from deploydcn._lazy import lazy_import
from deploydcn.bench.contenders import OURS, Contender, session
from deploydcn.ops import op_named

PORTABLE, GRID_SAMPLE = "core operators", "GridSample"

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class OperatorLayer:
    """One node of an operator of ours.

    Attributes:
        op: its name. shapes: by input name, as in its spec. text: what a table says of it.
        formula: module -> output with torch.nn.functional.grid_sample, where that is usual.
    """

    op: str
    text: str
    shapes: Mapping[str, tuple[int, ...]]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    levels: tuple[tuple[int, int], ...] = ()
    formula: Callable[..., Any] | None = None
    flops: int = 0

    def arrays(self, offset_scale: float, seed: int = 0) -> dict[str, np.ndarray]:
        """Random inputs; offsets are normal times offset_scale pixels, masks and attention weights add up to 1, boxes lie in the image."""
        rng = np.random.default_rng(seed)
        arrays = {name: rng.standard_normal(shape) for name, shape in self.shapes.items()}
        for name in ("offset", "offset_mask"):
            if name in arrays:
                arrays[name] *= offset_scale
        for name in ("mask", "attention_weights"):
            if name in arrays:
                arrays[name] = rng.random(self.shapes[name]) / 9
        if "sampling_locations" in arrays:
            arrays["sampling_locations"] = rng.random(self.shapes["sampling_locations"])
        if "rois" in arrays:
            corners = np.sort(rng.random((self.shapes["rois"][0], 2, 2)), axis=1) * self.shapes["input"][2]
            arrays["rois"] = np.concatenate([np.zeros((len(corners), 1)), corners.reshape(-1, 4)], axis=1)
        found = {name: array.astype(np.float32) for name, array in arrays.items()}
        if self.levels:
            sizes = np.array(self.levels)
            found["spatial_shapes"] = sizes
            found["level_start_index"] = np.cumsum([0, *sizes.prod(1)[:-1]])
        return {tensor.name: found[tensor.name] for tensor in op_named(self.op).spec.inputs if tensor.name in found}

    def __str__(self) -> str:
        return self.text


def contenders(layer: OperatorLayer, arrays: Arrays) -> dict[str, Contender]:
    """Our kernel, the portable form, and the formula with GridSample where torch is installed."""
    model = _model(layer, arrays)
    found = {OURS: session(model, arrays)}
    export = lazy_import("deploydcn.export", extra="export")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "ours.onnx"), Path(folder, "portable.onnx")
        onnx.save(model, source)
        export.convert(source, target, target="portable", check=False)
        found[PORTABLE] = session(onnx.load(target), arrays)
        if layer.formula:
            found[GRID_SAMPLE] = session(_exported(layer, arrays), arrays)
    return found


def _model(layer: OperatorLayer, arrays: Arrays) -> onnx.ModelProto:
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape) for name, array in arrays.items()
    ]
    node = helper.make_node(layer.op, list(arrays), ["output"], domain="deploydcn", **layer.attributes)
    output = helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "layer", values, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("deploydcn", 1)], ir_version=10)


def _exported(layer: OperatorLayer, arrays: Arrays) -> onnx.ModelProto:
    torch = lazy_import("torch", extra="export")
    formula = layer.formula

    class Formula(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, *inputs: Any) -> Any:
            return formula(torch, layer, *inputs)  # type: ignore[misc]

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "formula.onnx")
        names = [name for name in arrays if name not in ("spatial_shapes", "level_start_index")]
        inputs = tuple(torch.from_numpy(arrays[name]) for name in names)
        torch.onnx.export(Formula().eval(), inputs, str(path), input_names=names, opset_version=20, dynamo=True, verbose=False)
        return onnx.load(path)


# ---------------------------------------------------------------------------------------------- formulas, with GridSample
def _attention(torch: Any, layer: OperatorLayer, value: Any, locations: Any, weights: Any) -> Any:
    """Multi-scale deformable attention: a grid_sample per level (Zhu et al. 2021)."""
    batch, _, heads, channels = value.shape
    queries, levels, points = locations.shape[1], locations.shape[3], locations.shape[4]
    samples = []
    parts = value.split([height * width for height, width in layer.levels], dim=1)
    for level, ((height, width), part) in enumerate(zip(layer.levels, parts, strict=True)):
        image = part.permute(0, 2, 3, 1).reshape(batch * heads, channels, height, width)
        grid = (2 * locations[:, :, :, level] - 1).transpose(1, 2).reshape(batch * heads, queries, points, 2)
        samples.append(torch.nn.functional.grid_sample(image, grid, align_corners=False))
    weights = weights.transpose(1, 2).reshape(batch * heads, 1, queries, levels * points)
    output = (torch.cat(samples, dim=-1) * weights).sum(-1)
    return output.reshape(batch, heads * channels, queries).transpose(1, 2)


def _dcnv3(torch: Any, layer: OperatorLayer, image: Any, offset: Any, mask: Any) -> Any:
    """DCNv3 of 3x3 taps at stride 1: one grid_sample (Wang et al. 2023)."""
    batch, height, width, channels = image.shape
    groups, points = layer.attributes["group"], 9
    rows = torch.arange(height)[:, None, None] + torch.tensor([-1, 0, 1] * 3)
    columns = torch.arange(width)[:, None] + torch.tensor([-1] * 3 + [0] * 3 + [1] * 3)
    base = torch.stack([columns.expand(height, width, points), rows.expand(height, width, points)], dim=-1)
    places = base[:, :, None] + offset.reshape(batch, height, width, groups, points, 2)
    size = torch.tensor([width, height])
    grid = (2 * places + 1) / size - 1
    grid = grid.permute(0, 3, 1, 2, 4, 5).reshape(batch * groups, height * width, points, 2)
    planes = image.permute(0, 3, 1, 2).reshape(batch * groups, channels // groups, height, width)
    samples = torch.nn.functional.grid_sample(planes, grid, align_corners=False)
    weights = mask.reshape(batch, height * width, groups, points).transpose(1, 2).reshape(batch * groups, 1, height * width, points)
    return (samples * weights).sum(-1).reshape(batch, channels, height, width).permute(0, 2, 3, 1)


def _dcnv4(torch: Any, layer: OperatorLayer, image: Any, offset_mask: Any) -> Any:
    """DCNv4 (Xiong et al. 2024): DCNv3 whose offsets and masks share a tensor."""
    groups, points = layer.attributes["group"], 9
    both = offset_mask[..., : 3 * groups * points].reshape(*offset_mask.shape[:3], groups, 3 * points)
    offset, mask = both[..., : 2 * points].flatten(3), both[..., 2 * points :].flatten(3)
    return _dcnv3(torch, layer, image, offset, mask)


# --------------------------------------------------------------------------------------------------------- usual layers
def _window(size: int, channels: int, groups: int) -> OperatorLayer:
    shapes = {"input": (1, size, size, channels), "offset": (1, size, size, 18 * groups), "mask": (1, size, size, 9 * groups)}
    attributes = {"group": groups, "pads": [1] * 4}
    return OperatorLayer("DCNv3", f"{size}x{size}x{channels} in {groups} groups", shapes, attributes, formula=_dcnv3)


def _packed_window(size: int, channels: int, groups: int) -> OperatorLayer:
    shapes = {"input": (1, size, size, channels), "offset_mask": (1, size, size, (27 * groups + 7) // 8 * 8)}
    attributes = {"group": groups, "pads": [1] * 4}
    return OperatorLayer("DCNv4", f"{size}x{size}x{channels} in {groups} groups", shapes, attributes, formula=_dcnv4)


def _levels(levels: Sequence[tuple[int, int]], queries: int) -> OperatorLayer:
    pixels = sum(height * width for height, width in levels)
    points = (1, queries, 8, len(levels), 4)
    shapes = {"value": (1, pixels, 8, 32), "sampling_locations": (*points, 2), "attention_weights": points}
    text = f"{queries} queries, {len(levels)} levels from {levels[0][0]}x{levels[0][1]}, 8 heads of 32, 4 points"
    return OperatorLayer("MSDeformAttn", text, shapes, levels=tuple(levels), formula=_attention)


_FOUR_LEVELS = [(64, 64), (32, 32), (16, 16), (8, 8)]
FAMILY: Mapping[str, OperatorLayer] = {
    "DCNv3, InternImage stage 1": _window(56, 64, 4),
    "DCNv3, InternImage stage 2": _window(28, 128, 8),
    "DCNv4": _packed_window(56, 128, 8),
    "MSDeformAttn, encoder": _levels(_FOUR_LEVELS, 5440),
    "MSDeformAttn, decoder": _levels(_FOUR_LEVELS, 300),
    "DeformRoIPool": OperatorLayer(
        "DeformRoIPool",
        "256x50x50, 100 boxes, 7x7 bins of 2x2 samples",
        {"input": (1, 256, 50, 50), "rois": (100, 5), "offset": (100, 2, 7, 7)},
        {"output_height": 7, "output_width": 7, "sampling_ratio": 2},
    ),
}
