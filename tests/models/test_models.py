"""Whole models: exported, compared with PyTorch at several sizes, built for TensorRT-RTX; and what docs/MODELS.md says of all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import deploydcn
from deploydcn.errors import InvalidModel
from deploydcn.parity import compare, default_tolerance
from tests.models.measure import measured, profile
from tests.models.table import largest_difference, read, unmeasured
from tests.models.zoo import Model, everything

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
ROWS = {model.name: model for model in everything()}

pytestmark = [pytest.mark.backend("ort")]


@pytest.fixture(autouse=True)
def samples_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SAMPLES))


def _needs(model: Model) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow, *([pytest.mark.backend(model.package)] if model.package not in ("own form", "torchvision") else [])]


@pytest.mark.parametrize("model", [pytest.param(m, marks=_needs(m), id=m.name) for m in ROWS.values() if m.quick])
def test_model_exports_and_matches(tmp_path: Path, model: Model) -> None:
    result = measured(model, tmp_path, engine=False)
    assert result.report is not None, result.error
    assert len(result.report.checks) >= (4 if model.dynamic else 1)
    assert {axis for spec in (model.dynamic or {}).values() for axis in spec.values()} <= {
        size for info in result.report.inputs for size in info.shape or () if isinstance(size, str)
    }
    assert set(model.operators) <= set(result.report.operators)
    worst = max(check.worst for check in result.report.checks)
    assert worst <= max(10 * largest_difference(read()[model.name]), 1e-6)  # other machines round otherwise, not elsewhere


def test_the_document_names_every_model_once() -> None:
    measured_ones, left = list(read()), unmeasured()
    assert measured_ones == [name for name in ROWS if name not in left]
    assert left == [name for name in ROWS if name not in measured_ones]
    assert not [name for name in left if ROWS[name].quick]


def test_the_document_claims_no_failure() -> None:
    for row in read().values():
        assert largest_difference(row) < 0.01, row


# ------------------------------------------------------------------------------------ would the comparison notice?
def swap_offset_order(layer: nn.Module) -> None:
    """(x, y) for (y, x) in a layer that predicts offsets, mask channels after them left alone."""
    count = 2 * (len(layer.bias) // 3) if len(layer.bias) % 27 == 0 else len(layer.bias)
    order = torch.arange(count).view(-1, 2).flip(1).flatten()
    layer.weight.data[:count], layer.bias.data[:count] = layer.weight.data[order], layer.bias.data[order]


def _layer(kind: str, index: int = 0) -> Callable[[nn.Module], nn.Module]:
    return lambda model: [module for name, module in model.named_modules() if name.endswith(kind)][index]


SENSITIVE = {
    "EDVR alignment and restoration": _layer("levels.0.deform.offset_conv"),
    "BiRefNet-style ASPP decoder": _layer("offset_conv", 1),
    "BasicVSR++-style flow-guided alignment": _layer("offset_conv"),
    "YOLOv8n, deformable stride-2 stem": _layer("offset_conv"),
    "Faster R-CNN up to the proposal head": _layer("offset_conv", 2),
    "Deformable-DETR, pixel_mask": _layer("encoder.layers.0.self_attn.sampling_offsets"),
    "RT-DETR": _layer("encoder_attn.sampling_offsets"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=_needs(ROWS[name]), id=name) for name in SENSITIVE])
def test_a_wrong_offset_order_would_be_seen(name: str) -> None:
    model, example = ROWS[name].seeded()
    before = _run(model, example)
    swap_offset_order(SENSITIVE[name](model))
    differences = compare(before, _run(model, example))
    assert max(output.worst_channel for output in differences) > 10 * default_tolerance("float32").relative


def _run(model: nn.Module, example: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return deploydcn.load((model, example), "torch").run({name: value.numpy() for name, value in example.items()})


# ------------------------------------------------------------------------------------------------------ TensorRT-RTX
@pytest.mark.slow
@pytest.mark.backend("rtx")
def test_faster_rcnn_for_tensorrt_rtx(tmp_path: Path) -> None:
    """It has no NonZero, by which boxes are chosen; all before that builds, image size dynamic."""
    for name in ("Faster R-CNN, deformable ResNet-FPN", "Faster R-CNN up to the proposal head"):
        row = ROWS[name]
        model, example = row.seeded()
        path = tmp_path / "m.onnx"
        deploydcn.export_onnx(model, None, path, kwargs=example, dynamic_shapes=row.dynamic, target="tensorrt", check=False)
        options: dict[str, Any] = {"runtime": "tensorrt-rtx", "profiles": [profile(path)], "timeout": 600}
        if name.endswith("head"):
            report = deploydcn.build_engine(path, tmp_path / "m.engine", **options)
            assert len(report.plugins) == 6
        else:
            with pytest.raises(InvalidModel, match=r"\(NonZero\): TensorRT-RTX has no implementation of this operator"):
                deploydcn.build_engine(path, tmp_path / "m.engine", **options)
