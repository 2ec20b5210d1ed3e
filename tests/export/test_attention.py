"""Models with DCNv3, DCNv4 and deformable attention: image sizes left open, every target, half precision, a real TensorRT-RTX engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import deploydcn
from deploydcn.nn import dcnv3, dcnv4, flash_deform_attn, ms_deform_attn
from deploydcn.testing.parity_fixture import Parity
from tests.export.helpers import operators

pytestmark = [pytest.mark.backend("ort"), pytest.mark.slow]

DYNAMIC = ({0: "n", 2: "h", 3: "w"},)


class Window(nn.Module):
    """A stem, then InternImage's layer: offsets and masks from linear layers of the same pixels, channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.offset, self.mask = nn.Linear(32, 2 * 4 * 9), nn.Linear(32, 4 * 9)
        nn.init.normal_(self.offset.bias)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.stem(image)).permute(0, 2, 3, 1)
        mask = self.mask(x).unflatten(-1, (4, 9)).softmax(-1).flatten(-2)
        return dcnv3(x, self.offset(x), mask, padding=1, groups=4, offset_scale=2.0).permute(0, 3, 1, 2)


class OneTensor(nn.Module):
    """DCNv4's layer: one linear layer for offsets and masks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.offset_mask = nn.Linear(32, 96)  # 2 groups of 16 channels, 8 points: 48 channels each
        nn.init.normal_(self.offset_mask.bias)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.stem(image)).permute(0, 2, 3, 1)
        return dcnv4(x, self.offset_mask(x), padding=1, groups=4, remove_center=True, softmax=True).permute(0, 3, 1, 2)


class Decoder(nn.Module):
    """Two levels of features, five queries; sizes and starts of the levels follow from the image."""

    def __init__(self, flash: bool) -> None:
        super().__init__()
        self.flash = flash
        self.fine, self.coarse = nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.queries, self.points = nn.Parameter(torch.randn(1, 5, 16)), nn.Linear(16, 2 * 3 * 2 * 4)

    def forward(self, image: Tensor) -> Tensor:
        fine = torch.relu(self.fine(image))
        levels = [fine, torch.relu(self.coarse(fine))]
        n = image.shape[0]
        value = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], 1).unflatten(-1, (2, 8))
        shapes = torch.stack([torch.tensor([level.shape[2], level.shape[3]]) for level in levels])
        starts = torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]])
        points = self.points(self.queries).expand(n, -1, -1).unflatten(-1, (2, 24))
        if self.flash:
            return flash_deform_attn(value, shapes, starts, points, points=4).flatten(2)
        locations = torch.sigmoid(points[..., :16]).unflatten(-1, (2, 4, 2))
        return ms_deform_attn(value, shapes, starts, locations, points[..., 16:].softmax(-1).unflatten(-1, (2, 4)))


MODELS = {
    "DCNv3": Window,
    "DCNv4": OneTensor,
    "MSDeformAttn": lambda: Decoder(flash=False),
    "flash": lambda: Decoder(flash=True),
}
OPERATOR = {"flash": "MSDeformAttn"}
ALL = pytest.mark.parametrize("name", MODELS)


def image(batch: int = 2, size: tuple[int, int] = (22, 30)) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(batch))


def exported(name: str, path: Path, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    deploydcn.export_onnx(model, image(), path, dynamic_shapes=DYNAMIC, **options)
    return model


@pytest.mark.parametrize("target", ["ort", "tensorrt", "portable"])
@ALL
def test_images_of_any_size(parity: Parity, tmp_path: Path, name: str, target: str) -> None:
    path = tmp_path / "m.onnx"
    model = exported(name, path, target=target)
    assert operators(path).count(f"deploydcn::{OPERATOR.get(name, name)}") == (target != "portable")
    inputs = [{"image": image(*shape).numpy()} for shape in ((1, (17, 40)), (3, (64, 9)))]
    parity((model, image()), path, inputs, locate=True)


@ALL
def test_half_precision_keeps_positions(tmp_path: Path, name: str) -> None:
    path, half = tmp_path / "m.onnx", tmp_path / "half.onnx"
    exported(name, path, target="tensorrt")
    deploydcn.convert_precision(path, half)
    graph = onnx.shape_inference.infer_shapes(onnx.load(half)).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    kinds |= {constant.name: constant.data_type for constant in graph.initializer}
    (node,) = (node for node in graph.node if node.domain == "deploydcn")
    wanted = {"DCNv3": [10, 1, 10], "DCNv4": [10, 1], "MSDeformAttn": [10, 7, 7, 1, 10]}
    assert [kinds[tensor] for tensor in node.input] == wanted[node.op_type]
    feed = {"image": image().numpy()}
    for before, after in zip(deploydcn.load(path).run(feed).values(), deploydcn.load(half).run(feed).values(), strict=True):
        assert np.abs(after - before).max() < 0.02 * np.abs(before).max()


@pytest.mark.backend("rtx")
@pytest.mark.parametrize("dtype", [None, "fp16", "bf16"])
@ALL
def test_tensorrt_rtx_builds_it(tmp_path: Path, name: str, dtype: str | None) -> None:
    path = tmp_path / "m.onnx"
    exported(name, path, target="tensorrt", check=False)
    span = {"image": ((1, 3, 16, 16), (2, 3, 22, 30), (4, 3, 64, 64))}
    report = deploydcn.build_engine(path, tmp_path / "m.engine", runtime="tensorrt-rtx", profiles=[span], dtype=dtype)
    (layer,) = report.plugins
    data = {None: "float32", "fp16": "float16", "bf16": "bfloat16"}[dtype]
    positions = {"offset": "float32", "offset_mask": "float32", "sampling_locations": "float32"}
    tables = {"spatial_shapes": "int64", "level_start_index": "int64"}
    for tensor in (*layer.inputs, *layer.outputs):
        assert (tensor.dtype, tensor.format) == ({**positions, **tables}.get(tensor.name, data), "LINEAR"), tensor.name
