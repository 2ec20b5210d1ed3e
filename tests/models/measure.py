"""One model: exported and compared with PyTorch at several sizes, then built for TensorRT-RTX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deploydcn
from deploydcn.errors import UserError
from tests.models.zoo import Model

TIMEOUT = 600  # seconds a build may take


@dataclass(frozen=True)
class Result:
    """report: of the export, which compares; None when it failed. engine: "builds", or why not. error: why the export failed."""

    report: deploydcn.ExportReport | None
    engine: str
    error: str = ""


def measured(model: Model, folder: Path, *, engine: bool = True) -> Result:
    """Export for ONNX Runtime, and again for TensorRT-RTX."""
    module, example = model.seeded()
    try:
        report = deploydcn.export_onnx(module, None, folder / "m.onnx", kwargs=example, dynamic_shapes=model.dynamic)
    except UserError as error:
        return Result(None, "", str(error))
    return Result(report, built(model, folder) if engine else "")


def built(model: Model, folder: Path) -> str:
    """ "builds", or the first sentence of the refusal."""
    module, example = model.seeded()
    path = folder / "trt.onnx"
    deploydcn.export_onnx(module, None, path, kwargs=example, dynamic_shapes=model.dynamic, target="tensorrt", check=False)
    try:
        profiles = [profile(path)] if model.dynamic else None
        deploydcn.build_engine(path, folder / "m.engine", runtime="tensorrt-rtx", profiles=profiles, timeout=TIMEOUT)
    except UserError as error:
        return str(error).partition("; ")[0]
    return "builds"


def profile(path: Path) -> Mapping[str, Any]:
    """Shapes from 64x64 to 192x256, batches 1 to 2."""
    import onnx

    sizes = ({"n": 1, "h": 64, "w": 64}, {"n": 1, "h": 96, "w": 128}, {"n": 2, "h": 192, "w": 256})
    ranges = {}
    for value in onnx.load(path, load_external_data=False).graph.input:
        dimensions = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        ranges[value.name] = tuple(tuple(size.get(dim, dim) for dim in dimensions) for size in sizes)
    return ranges
