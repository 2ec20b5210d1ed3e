"""Models with RoI pooling: a number of boxes and an image size left open, every target, half precision, a real TensorRT-RTX engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import deploydcn
from deploydcn.nn import deform_psroi_pool, deform_roi_pool
from deploydcn.testing.parity_fixture import Parity
from tests.export.helpers import operators

pytestmark = [pytest.mark.backend("ort"), pytest.mark.slow]

DYNAMIC = ({2: "h", 3: "w"}, {0: "boxes"})


class RoiHead(nn.Module):
    """A second stage: features, a first pooling, offsets (and a mask) from it, the second pooling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.predict = nn.Linear(4 * 3 * 3, 3 * 3 * 3)
        nn.init.normal_(self.predict.weight, std=0.1)

    def predicted(self, first: Tensor) -> tuple[Tensor, Tensor]:
        prediction = self.predict(first.flatten(1)).reshape(-1, 3, 3, 3)
        return prediction[:, :2], torch.sigmoid(prediction[:, 2:])


class Continuous(RoiHead):
    def __init__(self) -> None:
        super().__init__(4)

    def forward(self, image: Tensor, boxes: Tensor) -> Tensor:
        features = torch.relu(self.backbone(image))
        offset, mask = self.predicted(deform_roi_pool(features, boxes, output_size=3, spatial_scale=0.5))
        return deform_roi_pool(features, boxes, offset, output_size=3, spatial_scale=0.5, mask=mask)


class PositionSensitive(RoiHead):
    def __init__(self) -> None:
        super().__init__(16)

    def forward(self, image: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        features = torch.relu(self.backbone(image))
        options = {"spatial_scale": 0.5, "output_dim": 4, "pooled_size": 3, "group_size": 2, "trans_std": 0.1}
        offset, mask = self.predicted(deform_psroi_pool(features, boxes, **options)[0])
        pooled, count = deform_psroi_pool(features, boxes, offset, **options, mask=mask)
        return {"pooled": pooled, "count": count}


MODELS = {"DeformRoIPool": Continuous, "DeformPSRoIPool": PositionSensitive}
ALL = pytest.mark.parametrize("operator", MODELS)


def example(count: int = 5, size: tuple[int, int] = (22, 30)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    image = torch.randn(2, 3, *size, generator=generator)
    corner = torch.rand(count, 2, generator=generator) * 12 - 2
    boxes = torch.cat([torch.arange(count)[:, None] % 2, corner, corner + 3 + torch.rand(count, 2, generator=generator) * 14], 1)
    return image, boxes


def exported(operator: str, path: Path, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    model = MODELS[operator]().eval()
    deploydcn.export_onnx(model, example(), path, dynamic_shapes=DYNAMIC, **options)
    return model


@pytest.mark.parametrize("target", ["ort", "tensorrt", "portable"])
@ALL
def test_any_number_of_boxes_on_images_of_any_size(parity: Parity, tmp_path: Path, operator: str, target: str) -> None:
    path = tmp_path / "m.onnx"
    model = exported(operator, path, target=target)
    assert operators(path).count(f"deploydcn::{operator}") == (0 if target == "portable" else 2)
    inputs = [dict(zip(("image", "boxes"), map(Tensor.numpy, example(*shape)), strict=True)) for shape in ((1, (17, 40)), (33, (64, 9)))]
    parity((model, example()), path, inputs, locate=True)
    none = deploydcn.load(path).run({"image": inputs[0]["image"], "boxes": np.zeros((0, 5), np.float32)})
    assert all(value.shape == (0, 4, 3, 3) for value in none.values())


@ALL
def test_half_precision_keeps_boxes_and_offsets(tmp_path: Path, operator: str) -> None:
    path, half = tmp_path / "m.onnx", tmp_path / "half.onnx"
    exported(operator, path, target="tensorrt")
    deploydcn.convert_precision(path, half)
    model = onnx.shape_inference.infer_shapes(onnx.load(half))
    graph = model.graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    pooling = [node for node in graph.node if node.op_type == operator]
    assert [[kinds[name] for name in node.input] for node in pooling] == [[10, 1], [10, 1, 1]]
    feed = dict(zip(("image", "boxes"), map(Tensor.numpy, example()), strict=True))
    wanted, got = deploydcn.load(path).run(feed), deploydcn.load(half).run(feed)
    for name, value in wanted.items():
        assert np.abs(got[name] - value).max() < 0.02 * np.abs(value).max()


@pytest.mark.backend("rtx")
@pytest.mark.parametrize("dtype", [None, "fp16"])
@ALL
def test_tensorrt_rtx_builds_it(tmp_path: Path, operator: str, dtype: str | None) -> None:
    path = tmp_path / "m.onnx"
    exported(operator, path, target="tensorrt")
    span = {"image": ((2, 3, 16, 16), (2, 3, 22, 30), (2, 3, 64, 64)), "boxes": ((1, 5), (10, 5), (300, 5))}
    report = deploydcn.build_engine(path, tmp_path / "m.engine", runtime="tensorrt-rtx", profiles=[span], dtype=dtype)
    assert [layer.operator for layer in report.plugins] == [f"deploydcn::{operator}"] * 2
    half = "float32" if dtype is None else "float16"
    for layer in report.plugins:
        tensors = [(tensor.name, tensor.dtype, tensor.format) for tensor in (*layer.inputs, *layer.outputs)]
        assert tensors[:2] == [("input", half, "LINEAR"), ("rois", "float32", "LINEAR")]
        assert all(kind == half for name, kind, _ in tensors if name in ("output", "count"))
