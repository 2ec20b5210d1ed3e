"""Models that something else got hold of before: torch.compile, torch.jit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import deploydcn
from deploydcn.errors import ExportError
from deploydcn.nn import DeformConv2d
from deploydcn.testing.parity_fixture import Parity
from tests.export.helpers import image

pytestmark = pytest.mark.backend("ort")

IMAGE = image(3)


def layer() -> nn.Module:
    return nn.Sequential(DeformConv2d(3, 4, 3, padding=1), nn.Tanh()).eval()


@pytest.mark.slow
@pytest.mark.parametrize("part", [False, True], ids=["the model", "a part of it"])
def test_nobody_waits_for_a_compiler(tmp_path: Path, part: bool) -> None:
    def compiler(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        raise AssertionError("compiled")

    inner = torch.compile(layer(), backend=compiler)
    report = deploydcn.export_onnx(nn.Sequential(inner) if part else inner, IMAGE, tmp_path / "m.onnx")
    assert report.operators == {"deploydcn::DeformConv2d": 1}
    with pytest.raises(Exception, match="compiled"):  # afterwards, it is compiled as ever
        inner(IMAGE)


def test_scripts_are_refused_by_name(tmp_path: Path) -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Tanh()).eval()
    for model in (torch.jit.script(plain), torch.jit.trace(plain, IMAGE)):
        with pytest.raises(ExportError, match=r"the model \(Sequential\) is a script of torch.jit.*export the torch.nn.Module that it was"):
            deploydcn.export_onnx(model, IMAGE, tmp_path / "m.onnx")
        with pytest.raises(ExportError, match=r"0 \(Sequential\) is a script of torch.jit"):
            deploydcn.export_onnx(nn.Sequential(model), IMAGE, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_scripts_are_references(parity: Parity, tmp_path: Path) -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Tanh()).eval()
    path = tmp_path / "m.onnx"
    deploydcn.export_onnx(plain, IMAGE, path)
    parity((torch.jit.script(plain), IMAGE), path)
    parity((torch.jit.trace(plain, IMAGE), IMAGE), path)


class CountsBoxes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[0, 0, :1, :1] for _ in range(len(x[x > 0]))])


def test_sizes_that_depend_on_values_are_not_called_dynamic_axes(tmp_path: Path) -> None:
    """torch's words for it contain "specialized", as those for an axis that cannot vary do."""
    with pytest.raises(ExportError, match=r"cannot trace CountsBoxes at test_wrapped.py line \d+: return torch.cat"):
        deploydcn.export_onnx(CountsBoxes(), IMAGE, tmp_path / "m.onnx")
