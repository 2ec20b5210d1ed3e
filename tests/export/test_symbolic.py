"""Sizes that a model's Python turns into numbers, tensors and lists stay dynamic in its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import deploydcn
from deploydcn.export import symbolic
from tests.export.helpers import image

pytestmark = [pytest.mark.backend("ort"), pytest.mark.slow]


class Tables(nn.Module):
    """Tensors made of sizes."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        height, width = x.shape[-2:]
        return {
            "levels": torch.as_tensor([(height, width), (height // 2, width // 2)], dtype=torch.long, device=x.device),
            "mixed": torch.tensor([width, 2.5, True]),
            "scalar": torch.tensor(height),
            "of_tensors": torch.tensor([torch.tensor(3), height]),
            "like": x.new_tensor([[width, height]]),
        }


class Grids(nn.Module):
    """linspace in its spellings; a single step is its start."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        height, width = x.shape[-2:]
        return {
            "pixels": torch.linspace(0.5, height - 0.5, height, dtype=x.dtype, device=x.device) / height,
            "signed": torch.linspace(-1, 1, steps=width),
            "one": torch.linspace(2, 3, height // height),
            "picture": x,
        }


class Numbers(nn.Module):
    """Python's own functions."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        height, width = x.shape[-2:]
        longest, shortest = max(height, width), min([height, width])
        steps = 1 + int(height * 0.26)
        ratio = float(longest) / shortest
        return {
            "cut": x[..., : int(height / 2), : int(width)],
            "scaled": x * steps + ratio,
            "per_image": x[:, 0, 0, :1].expand(len(x), len(x)),
            "square": x.new_zeros(longest, shortest),
            "kinds": x + (1 if isinstance(height, int) and not isinstance(ratio, int) and int("2") == 2 else 0),
        }


class TakenOut(nn.Module):
    """Sizes put into a tensor and taken out of it again, as the encoder of Deformable-DETR and the pixel decoder of Mask2Former do."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        levels = [x, nn.functional.avg_pool2d(x, 2)]
        shapes = torch.as_tensor([level.shape[-2:] for level in levels])
        start = torch.cat((shapes.new_zeros((1,)), shapes.prod(1).cumsum(0)[:-1]))
        flat = torch.cat([level.flatten(2) for level in levels], 2)
        assert (shapes[:, 0] * shapes[:, 1]).sum() == flat.shape[2]
        rows = [torch.linspace(0.5, h - 0.5, h, dtype=x.dtype) / h + torch.arange(w).sum() for h, w in shapes]
        parts = torch.split(flat, [start[1] - start[0], flat.shape[2] - start[1]], 2)
        again = [part.view(x.shape[0], -1, shapes[i][0], shapes[i][1]) for i, part in enumerate(parts)]
        return {
            "rows": torch.cat(rows),
            "shapes": shapes,
            "small": again[1],
            "large": nn.functional.interpolate(again[1], size=(shapes[0, 0], int(shapes[0, 1]))),
        }


@pytest.mark.parametrize("model", [Tables(), Grids(), Numbers(), TakenOut()], ids=lambda model: type(model).__name__)
def test_sizes_stay_dynamic(tmp_path: Path, model: nn.Module) -> None:
    """The example is wide; a tall and a square picture, and a larger batch, must come out right too."""
    path = tmp_path / "m.onnx"
    report = deploydcn.export_onnx(model, image(3, (20, 34)), path, dynamic_shapes=({0: "n", 2: "h", 3: "w"},))
    assert len(report.checks) > 3
    runner = deploydcn.load(path)
    for batch, size in ((1, (45, 22)), (3, (30, 30)), (2, (7, 5))):
        x = image(3, size, batch)
        for name, expected in model(x).items():
            np.testing.assert_allclose(runner.run([x.numpy()])[name], expected, rtol=1e-6, atol=1e-6, err_msg=name)


def test_tables_of_constant_sizes_need_no_dynamic_axis(tmp_path: Path) -> None:
    """torch.export alone stops at them, whatever is dynamic."""
    path = tmp_path / "m.onnx"
    x = image(3, (20, 34))
    deploydcn.export_onnx(TakenOut(), x, path)
    for name, expected in TakenOut()(x).items():
        np.testing.assert_allclose(deploydcn.load(path).run([x.numpy()])[name], expected, rtol=1e-6, atol=1e-6, err_msg=name)


def test_without_the_replacements_sizes_are_baked_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they are for: PyTorch alone writes the size of a feature map into the file, silently, and the check refuses it."""
    monkeypatch.setattr(symbolic, "REPLACEMENTS", {})
    model = nn.Sequential(nn.AvgPool2d(2), Grids())
    with pytest.raises(deploydcn.errors.ExportError, match="dynamic in name only"):
        deploydcn.export_onnx(model, image(3, (20, 34)), tmp_path / "m.onnx", dynamic_shapes=({2: "h", 3: "w"},))


def test_the_models_modules_are_left_as_they_were() -> None:
    before = dict(globals())
    with symbolic.symbolic_sizes(Numbers()):
        assert set(globals()) - set(before) == set(symbolic.BUILTINS)
        assert isinstance(3, int)
        assert issubclass(bool, int)
        assert {int: "found"}[int] == "found"
    assert globals() == before
