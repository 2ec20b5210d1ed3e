"""Dynamic shapes that are true, and graphs that hold near the example only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import deploydcn
from deploydcn.errors import ExportError, InvalidArgument
from tests.export import models
from tests.export.helpers import DYNAMIC, image

pytestmark = [pytest.mark.backend("ort"), pytest.mark.slow]  # a quick selection is in test_quick.py


# ------------------------------------------------------------------------------------------------ dynamic shapes
def test_an_example_batch_of_one_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    deploydcn.export_onnx(models.with_offsets(models.PureDeform()), image(3, batch=1), path, dynamic_shapes=DYNAMIC)
    assert deploydcn.load(path).run([image(3, (5, 6), 7).numpy()])["output"].shape == (7, 8, 5, 6)


class Attention(nn.Module):
    """4 heads of 8 channels: two images have 8 heads. Queries and their positions share a table, as Deformable-DETR's do."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(10, 64))
        self.attention = nn.MultiheadAttention(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        position, query = (half.expand(x.shape[0], -1, -1) for half in self.table.split(32, 1))
        keys = (query + position).transpose(0, 1)
        attended: torch.Tensor = self.attention(keys, keys, query.transpose(0, 1))[0].transpose(0, 1)
        return query + attended + x.mean((1, 2, 3))[:, None, None]


@pytest.mark.parametrize("largest", [None, 8])
def test_a_batch_equals_no_other_size_by_chance(tmp_path: Path, largest: int | None) -> None:
    from torch.export import Dim

    path = tmp_path / "m.onnx"
    batch = "n" if largest is None else Dim("n", min=1, max=largest)
    report = deploydcn.export_onnx(Attention(), image(3, batch=1), path, dynamic_shapes=({0: batch},))
    assert report.inputs[0].shape[0] == "n"
    assert deploydcn.load(path).run([image(3, batch=7).numpy()])["output"].shape == (7, 10, 32)


def test_an_axis_that_the_translation_fixed_is_named(tmp_path: Path) -> None:
    """Where a chance equality is in the example itself; without the check too."""
    with pytest.raises(ExportError, match=r"axis x\[0\] \(n\) became 2 for good .* give an example of another size"):
        deploydcn.export_onnx(Attention(), image(3, batch=2), tmp_path / "m.onnx", dynamic_shapes=({0: "n"},), check=False)


def test_torch_dims_are_taken_as_they_are(tmp_path: Path) -> None:
    from torch.export import Dim

    path = tmp_path / "m.onnx"
    shapes = {"x": {0: Dim("batch", max=8), 2: Dim("rows", min=4, max=64)}}
    report = deploydcn.export_onnx(models.with_offsets(models.PureDeform()), image(3), path, dynamic_shapes=shapes)
    assert report.inputs[0].shape == ("batch", 3, "rows", 17)
    assert all(shape[2] <= 64 for check in report.checks for shape in check.shapes.values())


def test_a_file_that_only_pretends_to_be_dynamic_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(ExportError, match=r"axis x\[2\] \(h\) is dynamic in name only: at .*differs from PyTorch"):
        deploydcn.export_onnx(models.BakedHeight(), image(3, (16, 16)), path, dynamic_shapes=DYNAMIC)
    assert not list(tmp_path.iterdir())
    deploydcn.export_onnx(models.BakedHeight(), image(3, (16, 16)), path, dynamic_shapes=({0: "n", 3: "w"},))


def test_an_axis_that_pytorch_cannot_change_is_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 14 * 17, 2))
    with pytest.raises(ExportError, match=r"input\[2\]|static"):
        deploydcn.export_onnx(model, image(3), tmp_path / "m.onnx", dynamic_shapes=({2: "h"},))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"y": {0: "n"}}, "dynamic_shapes names 'y'; the example has arguments x"),
        (({0: "n"}, None), "dynamic_shapes has 2 entries; wanted 1"),
        (({7: "n"},), "names axis 7; the example has shape"),
        (({0: "not a name"},), "is named 'not a name'"),
    ],
)
def test_wrong_dynamic_shapes_are_explained(tmp_path: Path, shapes: object, message: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        deploydcn.export_onnx(models.PureDeform(), image(3), tmp_path / "m.onnx", dynamic_shapes=shapes)
    assert message in str(raised.value)


# ------------------------------------------------------------------------ graphs that hold near the example only
class PadsTo32(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        missing = (32 - x.shape[2] % 32) % 32
        return nn.functional.pad(x, (0, 0, 0, missing)) if missing else x


class Threshold(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(x, 2) if x.shape[2] > 40 else x * 3


@pytest.mark.parametrize("model", [PadsTo32(), Threshold()], ids=lambda model: type(model).__name__)
def test_branches_on_sizes_are_refused(tmp_path: Path, model: nn.Module) -> None:
    with pytest.raises(ExportError, match=r"x\[2\]"):
        deploydcn.export_onnx(model, image(3, (64, 64)), tmp_path / "m.onnx", dynamic_shapes=({2: "h", 3: "w"},))
    assert not list(tmp_path.iterdir())


def test_a_noisy_output_does_not_excuse_another(tmp_path: Path) -> None:
    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            height = float(x.shape[2]) if not torch.compiler.is_exporting() else 64.0
            return torch.sin(x * 2e5), x * height

    with pytest.raises(ExportError, match="differs from PyTorch"):
        deploydcn.export_onnx(Noisy(), image(3, (64, 64)), tmp_path / "m.onnx", dynamic_shapes=({2: "h"},))


def test_random_models_are_refused(tmp_path: Path) -> None:
    class Random(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 0.01 * torch.rand_like(x)

    with pytest.raises(ExportError, match="draws random numbers or keeps state"):
        deploydcn.export_onnx(Random(), image(3), tmp_path / "m.onnx")


def test_models_that_keep_state_are_refused_and_left_alone(tmp_path: Path) -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count += 1
            x += 1
            return x + self.count

    model, x = Counter(), image(3)
    before = x.clone()
    with pytest.raises(ExportError, match="forward changes count; an ONNX file keeps no state"):
        deploydcn.export_onnx(model, x, tmp_path / "m.onnx")
    assert model.count == 0
    assert torch.equal(x, before)
