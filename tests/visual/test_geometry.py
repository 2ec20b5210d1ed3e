"""Where a feature map's pixels lie in the image: as gradients say, in PyTorch and in ONNX files."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from deploydcn.export import export_onnx
from deploydcn.nn import DeformConv2d
from deploydcn.runners.torch_runner import TorchRunner
from deploydcn.visual.geometry import Grid, Trail, merged
from deploydcn.visual.layers import Layer
from deploydcn.visual.onnx_tap import OnnxTap
from deploydcn.visual.torch_tap import TorchTap

pytestmark = [pytest.mark.backend("ort"), pytest.mark.slow]
SIZE = (96, 128)


class Flattened(nn.Module):
    """Channels-last linear layers, as transformers and InternImage have them."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        flat = x.flatten(2).transpose(1, 2)
        return (flat @ torch.ones(c, c, dtype=x.dtype)).reshape(n, h, w, c).permute(0, 3, 1, 2)


class Sliced(nn.Module):
    """Every other pixel, from the second row and the fifth column on."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 1:-1:2, 4:]


class Joined(nn.Module):
    """A pyramid: the small map enlarged beside the large one."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 3, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        small = self.down(x)
        return torch.cat([x, F.interpolate(small, size=x.shape[2:], mode="bilinear")], 1)[:, :3]


STEMS = {
    "resnet": [nn.Conv2d(3, 3, 7, 2, 3), nn.MaxPool2d(3, 2, 1), nn.Conv2d(3, 3, 1, 2)],
    "patches": [nn.Conv2d(3, 3, 4, 4), nn.Conv2d(3, 3, 2, 2)],
    "even_windows": [nn.Conv2d(3, 3, 2), nn.AvgPool2d(2), nn.Conv2d(3, 3, (3, 5), (1, 2), (0, 2))],
    "dilated": [nn.Conv2d(3, 3, 3, 1, (2, 0), dilation=2), nn.ReLU()],
    "padded": [nn.ZeroPad2d((3, 0, 5, 1)), nn.Conv2d(3, 3, 3)],
    "transposed": [nn.Conv2d(3, 3, 3, 2, 1), nn.ConvTranspose2d(3, 3, 4, 2, 1)],
    "nearest": [nn.Conv2d(3, 3, 3, 2, 1), nn.Upsample(scale_factor=2)],
    "align_corners": [nn.Conv2d(3, 3, 3, 2, 1), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)],
    "flattened": [nn.Conv2d(3, 3, 4, 4), Flattened(), nn.Conv2d(3, 3, 2, 2)],
    "sliced": [Sliced()],
    "joined": [nn.Conv2d(3, 3, 2, 2), Joined()],
    "unshuffled": [nn.PixelUnshuffle(2), nn.Conv2d(12, 3, 1)],
}


def stem(name: str) -> nn.Sequential:
    """Linear, and nothing cancels: every weight is 1."""
    model = nn.Sequential(*STEMS[name])
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    return model


def middle_of(model: nn.Module, pixel: tuple[int, int]) -> tuple[float, float]:
    """The centre of gravity of what a pixel of the output and its next neighbours depend on: enlarging treats pixels in turns, and only
    their mean is regular. A maximum counts as a mean over the same window."""
    rows, columns = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    image = torch.ones(1, 3, *SIZE, dtype=torch.float64).requires_grad_()
    means = [nn.AvgPool2d(3, 2, 1) if isinstance(child, nn.MaxPool2d) else child for child in model]
    copy = deepcopy(nn.Sequential(*means)).double()
    with torch.enable_grad():
        copy(image)[0, :, pixel[0] : pixel[0] + 2, pixel[1] : pixel[1] + 2].sum().backward()
    weight = image.grad[0].sum(0)
    return tuple(float((weight * at).sum() / weight.sum()) for at in (rows, columns))


def watched(before: nn.Module) -> tuple[nn.Module, torch.Tensor, Layer]:
    """A deformable layer behind a stem, an image, and the layer as PyTorch runs it."""
    model, image = nn.Sequential(*before, DeformConv2d(3, 4, 3, padding=1)).eval(), torch.rand(1, 3, *SIZE)
    return model, image, TorchTap(TorchRunner(model, example_args=(image,)), {"input": image}, "input").layers[0]


def block(layer: Layer, grid: Grid | None = None) -> tuple[tuple[int, int], np.ndarray]:
    """A pixel in the interior, where windows are cut off at no border, and where the grid has the middle of it and its next neighbours."""
    pixel = (layer.input_size[0] // 2, layer.input_size[1] // 2)
    return pixel, np.array((grid or layer.grid).to_image(*(np.array(at + 0.5) for at in pixel)))


@pytest.mark.parametrize("name", STEMS)
def test_pixels_lie_where_their_gradients_are_centred(name: str) -> None:
    before = stem(name)
    _, _, layer = watched(before)
    pixel, got = block(layer)
    assert np.allclose(got, middle_of(before, pixel), atol=1e-6)  # sums of a few hundred float64
    assert layer.grid.exact == (name != "unshuffled")


@pytest.mark.parametrize("name", STEMS)
def test_half_a_pixel_off_would_be_noticed(name: str) -> None:
    """The planted bug: a window that begins half a pixel early."""
    before = stem(name)
    _, _, layer = watched(before)
    pixel, got = block(layer, layer.grid.composed((1, 1), (-0.5, 0)))
    assert abs(got[0] - middle_of(before, pixel)[0]) > 0.4


@pytest.mark.parametrize("name", STEMS)
def test_a_file_says_the_same_as_its_model(name: str, tmp_path: Path) -> None:
    model, image, layer = watched(stem(name))
    export_onnx(model, image, tmp_path / "m.onnx", dynamic_shapes=({2: "h", 3: "w"},))
    (other,) = OnnxTap(tmp_path / "m.onnx").layers({"input": image.numpy()}, "input")
    assert other.grid == layer.grid
    assert other.input_size == layer.input_size


def test_from_sizes_is_marked_as_a_guess() -> None:
    grid = Grid.from_sizes((64, 64), (16, 32))
    assert (grid.scale, grid.shift, grid.exact) == ((4.0, 2.0), (1.5, 0.5), False)


def test_a_lost_map_is_found_again_by_its_size_only() -> None:
    trail = Trail(Grid(), (6, 8), (-2, -1), source=3)
    flat = merged([trail], (1, 48, 16))
    assert (flat.axes, flat.source) == (None, 3)
    assert merged([flat], (1, 6, 8, 16)).axes == (-3, -2)
    assert merged([flat], (1, 5, 8, 16)).axes is None
    assert merged([Trail(source=1), trail], (1, 1, 6, 8)).source == 3
