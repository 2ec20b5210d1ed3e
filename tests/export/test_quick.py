"""The exporter in a few seconds: one model through everything, one refusal. The rest is in test_export.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import deploydcn
from deploydcn.errors import ExportError
from deploydcn.testing.parity_fixture import Parity
from tests.export import models

pytestmark = pytest.mark.backend("ort")

IMAGE = torch.randn(1, 4, 14, 17, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("target", ["ort", pytest.param("standard", marks=pytest.mark.slow)])
def test_one_model_through_everything(parity: Parity, tmp_path: Path, target: str) -> None:
    path = tmp_path / "m.onnx"
    model = models.with_offsets(models.Fusable())
    report = deploydcn.export_onnx(model, IMAGE, path, dynamic_shapes=({0: "n", 2: "h", 3: "w"},), target=target)
    assert sum(report.operators.values()) == 3
    assert {check.label.partition(" ")[0] for check in report.checks} == {"example", "x[0]"}
    parity((model, IMAGE), path, locate=True)


def test_one_refusal_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"models.py line \d+: if x.sum\(\) > 0"):
        deploydcn.export_onnx(models.DataDependent(), IMAGE, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
