"""Points of points, receptive fields and statistics of models whose offsets are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deploydcn.errors import InvalidArgument
from deploydcn.nn import DeformConv2d
from deploydcn.runners.torch_runner import TorchRunner
from deploydcn.visual.layers import Layer
from deploydcn.visual.onnx_tap import OnnxTap
from deploydcn.visual.torch_tap import TorchTap
from deploydcn.visual.tracing import density, statistics, trace
from tests.visual.models import Shifted, as_file

pytestmark = pytest.mark.backend("ort")
SOURCES = ["torch", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("ort", "standard", "mmcv"))]


def watched(source: str, model: nn.Module, image: Tensor, folder: Path) -> list[Layer]:
    """The layers as PyTorch runs them, or an ONNX file of that kind."""
    if source == "torch":
        return TorchTap(TorchRunner(nn.Sequential(model).eval(), example_args=(image,)), {"input": image}, "input").layers
    return OnnxTap(as_file(nn.Sequential(model), image, folder / "m.onnx", source)).layers({"input": image.numpy()}, "input")


def moved(height: int, width: int, *taps: tuple[int, float, float]) -> Tensor:
    """An offset that moves taps (index, dy, dx) of every pixel."""
    offset = torch.zeros(1, 18, height, width)
    for tap, dy, dx in taps:
        offset[:, 2 * tap], offset[:, 2 * tap + 1] = dy, dx
    return offset


@pytest.mark.parametrize("source", SOURCES)
def test_one_layer_by_hand(source: str, tmp_path: Path) -> None:
    """Stride 2 behind a convolution of stride 2: pixel (2, 3) of the layer has its centre at row 8, column 12 of the image."""
    mask = torch.full((1, 9, 8, 8), 0.5)
    mask[:, 4] = 0.25
    model = nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), Shifted(moved(8, 8, (0, 0.5, -1.5)), mask, stride=2, padding=1))
    (layer,) = watched(source, model, torch.rand(1, 3, 32, 32), tmp_path)
    (points,) = trace([layer], 0, layer.site((2, 3)))
    rows, columns = np.repeat([6.0, 8, 10], 3), np.tile([10.0, 12, 14], 3)
    rows[0] += 2 * 0.5
    columns[0] -= 2 * 1.5
    assert np.array_equal(points.y, rows)
    assert np.array_equal(points.x, columns)
    assert np.array_equal(points.weight, [0.5] * 4 + [0.25] + [0.5] * 4)
    assert layer.parent is None


@pytest.mark.parametrize("source", SOURCES)
def test_two_layers_by_hand(source: str, tmp_path: Path) -> None:
    """All taps of the second fall on one pixel of the first, (3, 2): its nine points, shifted by two rows, are then seen nine times."""
    gather = moved(8, 8, *[(tap, float(1 - tap // 3), float(1 - tap % 3)) for tap in range(9)])
    first = Shifted(moved(8, 8, *[(tap, 2.0, 0.0) for tap in range(9)]), padding=1, stride=1)
    model = nn.Sequential(nn.Conv2d(3, 3, 2, 2), first, nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1), Shifted(gather, padding=1))
    layers = watched(source, model, torch.rand(1, 3, 16, 16), tmp_path)
    levels = trace(layers, 1, layers[1].site((3, 2)))
    assert [layer.parent for layer in layers] == [None, 0]
    assert [len(level.y) for level in levels] == [9, 81]
    # 2x2 windows of stride 2: pixel i lies at 2i + 0.5.
    assert set(levels[0].y) == {6.5}
    assert set(levels[0].x) == {4.5}
    rows, counts = np.unique(levels[1].y, return_counts=True)
    assert rows.tolist() == [2 * (3 + shift + 2) + 0.5 for shift in (-1, 0, 1)]
    assert counts.tolist() == [27, 27, 27]
    assert np.unique(levels[1].x).tolist() == [2.5, 4.5, 6.5]
    assert [level.layer for level in trace(layers, 1, 0, levels=1)] == [layers[1].name]


@pytest.mark.parametrize("source", SOURCES)
def test_points_outside_end_there(source: str, tmp_path: Path) -> None:
    far = moved(8, 8, (0, -40.0, 0.0), (8, -1.5 - 8, 0.0))
    model = nn.Sequential(Shifted(moved(8, 8), padding=1, outputs=3), Shifted(far, padding=1))
    layers = watched(source, model, torch.rand(1, 3, 8, 8), tmp_path)
    first, second = trace(layers, 1, layers[1].site((8 - 1, 4)))
    # Of the pixel in the last row, tap 0 is far outside, 6 and 7 lie below the map, and 8 has come half a pixel above row -1.
    assert np.flatnonzero(first.share == 0).tolist() == [0, 6, 7, 8]
    assert first.outside == 4
    assert len(second.y) == 5 * 9
    numbers = statistics(layers[1])
    assert numbers.largest_distance == 40.0
    assert numbers.outside == pytest.approx(float(np.mean(layers[1].points.share == 0)))
    assert numbers.mean_mask is None


@pytest.mark.parametrize("source", SOURCES[:2])
def test_partly_inside_weighs_less_at_the_next_level(source: str, tmp_path: Path) -> None:
    half = moved(8, 8, *[(tap, -0.25, 0.0) for tap in range(9)])
    model = nn.Sequential(Shifted(moved(8, 8), padding=1, outputs=3), Shifted(half, padding=0 + 1))
    layers = watched(source, model, torch.rand(1, 3, 8, 8), tmp_path)
    first, second = trace(layers, 1, layers[1].site((1, 4)))
    assert first.share.tolist() == [0.75] * 3 + [1.0] * 6
    assert second.weight[:27].tolist() == [0.75] * 27


@pytest.mark.parametrize("source", SOURCES[:2])
def test_groups_sample_their_own_points(source: str, tmp_path: Path) -> None:
    offset = torch.cat([moved(8, 8), moved(8, 8, *[(tap, 0.0, 3.0) for tap in range(9)])], 1)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Shifted(offset, channels=4, padding=1))
    layers = watched(source, model, torch.rand(1, 3, 8, 8), tmp_path)
    columns = [trace(layers, 0, layers[0].site((3, 2)), group=group)[0].x.mean() for group in (0, 1, 2)]
    assert columns == [2.0, 5.0, 2.0]


@pytest.mark.parametrize("source", SOURCES[:2])
def test_offset_branches_are_not_followed(source: str, tmp_path: Path) -> None:
    """A layer whose offsets come from another one, and whose data do not: the other one is not before it."""

    class Guided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.guide = Shifted(torch.zeros(1, 18, 8, 8), padding=1, outputs=18)
            self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            import torchvision

            return torchvision.ops.deform_conv2d(x, self.guide(x), self.weight, padding=1)

    torch.manual_seed(0)
    model = Guided()
    layers = watched(source, model, torch.rand(1, 3, 8, 8), tmp_path)
    assert [layer.parent for layer in layers] == [None, None]


def test_the_receptive_field_is_where_the_points_are() -> None:
    """Gradients of one layer on the image: the four pixels around each point, by their bilinear weights."""
    offset = moved(12, 12, (0, 0.25, 0.5), (8, 3.0, 2.0))
    model = Shifted(offset, padding=1)
    nn.init.ones_(model.weight)
    image = torch.rand(1, 3, 12, 12)
    tap = TorchTap(TorchRunner(nn.Sequential(model), example_args=(image,)), {"input": image}, "input")
    (field,) = tap.gradient(0, [tap.layers[0].site((5, 5))])
    wanted = np.zeros((12, 12))
    for y, x in [(4.25, 4.5), (4, 5), (4, 6), (5, 4), (5, 5), (5, 6), (6, 4), (6, 5), (9, 8)]:
        for row in range(12):
            for column in range(12):
                wanted[row, column] += max(0, 1 - abs(row - y)) * max(0, 1 - abs(column - x))
    # Every one of 4 outputs and of 3 channels has weight 1.
    assert np.allclose(field, 12 * wanted, atol=1e-5)
    smooth = density(trace(tap.layers, 0, tap.layers[0].site((5, 5))), (12, 12), 0.5)
    assert smooth.max() == 1.0
    assert np.corrcoef(smooth.ravel(), wanted.ravel())[0, 1] > 0.9
    elsewhere = density(trace(tap.layers, 0, tap.layers[0].site((9, 2))), (12, 12), 0.5)
    assert np.corrcoef(elsewhere.ravel(), wanted.ravel())[0, 1] < 0.3


@pytest.mark.parametrize("kind", ["torchvision", "deploydcn"])
def test_each_layer_has_its_own_receptive_field(kind: str) -> None:
    """Two layers, the second looking four rows further down: what is caught is the layer that was asked for."""
    down = moved(16, 16, *[(tap, 4.0, 0.0) for tap in range(9)])
    if kind == "torchvision":
        model = nn.Sequential(Shifted(moved(16, 16), padding=1, outputs=3), Shifted(down, padding=1))
    else:
        model = nn.Sequential(DeformConv2d(3, 3, 3, padding=1), DeformConv2d(3, 4, 3, padding=1))
        model[1].offset_conv.bias.data[0:18:2] = 4.0
    image = torch.rand(1, 3, 16, 16)
    tap = TorchTap(TorchRunner(nn.Sequential(model).eval(), example_args=(image,)), {"input": image}, "input")
    rows = [np.flatnonzero(tap.gradient(index, [tap.layers[index].site((5, 5))])[0].sum(1)) for index in (0, 1)]
    assert rows[0].tolist() == [4, 5, 6]
    assert rows[1].tolist() == [7, 8, 9, 10, 11]


@pytest.mark.slow
def test_a_file_is_watched_again(tmp_path: Path) -> None:
    """On another image of the same size, by the same session; the layer's offsets follow from the image."""
    torch.manual_seed(0)
    model = nn.Sequential(DeformConv2d(3, 4, 3, padding=1), DeformConv2d(4, 4, 3, padding=1))
    with torch.no_grad():
        for layer in model:
            layer.offset_conv.weight.normal_()
    path = as_file(model, torch.rand(1, 3, 16, 16), tmp_path / "m.onnx", "ort")
    tap = OnnxTap(path)
    for seed in (0, 1):
        image = {"input": np.random.default_rng(seed).random((1, 3, 16, 16), np.float32)}
        for again, fresh in zip(tap.layers(image, "input"), OnnxTap(path).layers(image, "input"), strict=True):
            assert (again.name, again.grid, again.parent) == (fresh.name, fresh.grid, fresh.parent)
            assert np.array_equal(again.points.y, fresh.points.y)
            assert np.array_equal(again.points.weight, fresh.points.weight)
            assert again.points.dy.std() > 0.1
    with pytest.raises(InvalidArgument, match="wanted those of the first"):
        tap.layers({"input": np.zeros((1, 3, 16, 24), np.float32)}, "input")
