"""Layers of other frameworks, with and without their compiled kernels: seen as they are in the file that is exported from them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from deploydcn.export import export_onnx
from deploydcn.nn import DeformConv2d
from deploydcn.quantization import quantize
from deploydcn.visual import sampling_differences, watch
from deploydcn.visual.sources import Source
from tests.export.models import with_offsets
from tests.frontends import (
    conftest,  # noqa: F401  (mmcv's extension, as far as it imports here)
    foreign,
)
from tests.frontends.helpers import with_large_offsets

pytestmark = [pytest.mark.backend("ort"), pytest.mark.slow]
SIZE = (24, 32)


class Aligned(nn.Module):
    """EDVR's layer: offsets from other features than the data."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.pack = foreign.DCN_sep(8, 8, 3, 1, 1, deformable_groups=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.stem(x)
        return self.pack(features, features.roll(1, 3))


def mmcv_stack() -> nn.Module:
    from tests.frontends.test_real_frameworks import MmcvStack

    return nn.Sequential(nn.Conv2d(3, 4, 1), MmcvStack())


MODELS: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "charlesshang": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), foreign.DCN(4, 6, 3, 1, 1)), ["1"]),
    "edvr": (Aligned, ["pack"]),
    "plain_pytorch": (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), foreign.DeformConv2d(4, 6, modulation=True)), ["1"]),
    "plain_pytorch_other_rule": (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), foreign.Elsewhere.DeformConv2d(4, 6)), ["1"]),
    "mmcv": (mmcv_stack, ["1.first", "1.second"]),
}


@pytest.mark.parametrize("compiled", [False, True], ids=["no_kernel", "kernel"])
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.backend("mmcv") if name == "mmcv" else ()) for name in MODELS])
def test_a_framework_is_seen_as_in_its_file(name: str, compiled: bool, tmp_path: Path) -> None:
    make, names = MODELS[name]
    torch.manual_seed(0)
    model = nn.Sequential(with_large_offsets(make()))
    image = torch.rand(1, 3, *SIZE)
    with foreign.compiled() if compiled else contextlib.nullcontext():
        layers, _ = watch((model, image), {})
        export_onnx(model, image, tmp_path / "m.onnx")
    file, _ = watch(tmp_path / "m.onnx", {"input": image})
    assert [layer.name for layer in layers] == [f"0.{own}" for own in names]
    assert [layer.grid for layer in layers] == [layer.grid for layer in file]
    assert all(layer.grid.exact for layer in layers)
    differences = sampling_differences(layers, file)
    assert len(differences) == len(names)
    # A point that the other rule rounds down at the border may be rounded to the next pixel: there offsets differ by float32 rounding.
    assert all(item.share < 0.01 for item in differences)


def test_gradients_reach_through_replacements() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(with_large_offsets(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), foreign.DCN(4, 6, 3, 1, 1))))
    image = torch.rand(1, 3, *SIZE)
    source = Source.of((model, image))
    layers = source.watch(source.example)
    site = layers[0].site((5, 8))
    (field,) = source.gradient(0, [site])
    y, x = (at[site].ravel() for at in layers[0].image_points())
    inside = layers[0].points.share[site].ravel() == 1
    assert field.max() > 0
    for row, column in zip(y[inside], x[inside], strict=True):
        assert field[max(int(row) - 1, 0) : int(row) + 3, max(int(column) - 1, 0) : int(column) + 3].max() > 0


@pytest.mark.backend("transformers")
def test_deformable_attention_of_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "samples"))
    from s05_rt_detr import build

    model, example = build()
    layers, notes = watch((model, example), {})
    export_onnx(model, (), tmp_path / "m.onnx", kwargs=example)
    file, _ = watch(tmp_path / "m.onnx", example)
    assert [layer.operator for layer in layers] == ["MSDeformAttn"] * len(layers)
    assert any("MultiScaleDeformableAttention replaced" in note for note in notes)
    assert all(item.share == 0 for item in sampling_differences(layers, file))
    assert len(file) == len(layers) == 2


def test_a_quantized_file_looks_where_its_source_looks(tmp_path: Path) -> None:
    """Offsets stay in float32 and come from features of 8 bits: they move by parts of a pixel."""
    torch.manual_seed(0)
    first = [nn.Conv2d(3, 8, 3, 2, 1), DeformConv2d(8, 8, 3, padding=1), nn.ReLU()]
    model = with_offsets(nn.Sequential(*first, nn.Conv2d(8, 8, 3, 2, 1), DeformConv2d(8, 4, 3, padding=1)))
    image = torch.rand(1, 3, *SIZE)
    export_onnx(model, image, tmp_path / "f.onnx")
    quantize(tmp_path / "f.onnx", tmp_path / "q.onnx", {"input": torch.rand(8, 1, 3, *SIZE).numpy()})
    source, file = (watch(tmp_path / name, {"input": image})[0] for name in ("f.onnx", "q.onnx"))
    assert [layer.operator for layer in file] == ["QLinearDeformConv2d"] * 2
    for left, right in zip(source, file, strict=True):
        assert (left.name, left.grid, left.parent) == (right.name, right.grid, right.parent)
        assert left.grid.exact
    assert all(0 < item.largest < 1.0 for item in sampling_differences(source, file))
