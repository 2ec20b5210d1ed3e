"""SeparableConv2d from module to file: targets, what is fused into it, half precision, a real TensorRT-RTX engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import deploydcn
from deploydcn.nn import SeparableConv2d
from deploydcn.testing.parity_fixture import Parity
from tests.export.helpers import DYNAMIC, image, operators
from tests.export.models import with_offsets

pytestmark = [pytest.mark.backend("ort"), pytest.mark.slow]


def model() -> nn.Module:
    """Batch norm and activation behind the first; a bias for the pointwise stage only in the last."""
    last = SeparableConv2d(12, 10, 3, padding=1, depth_multiplier=2, bias=True)
    last.depthwise_bias = None
    return with_offsets(
        nn.Sequential(
            SeparableConv2d(4, 12, (3, 5), stride=(1, 2), padding=(1, 2), bias=False, depthwise_activation="relu"),
            nn.BatchNorm2d(12),
            nn.SiLU(),
            last,
        )
    )


def test_the_module_is_two_convolutions() -> None:
    torch.manual_seed(0)
    layer = SeparableConv2d(4, 6, (3, 5), (1, 2), (1, 2, 0, 1), (1, 2), depth_multiplier=3, depthwise_activation="silu", activation="relu")
    x = image(4)
    padded = nn.functional.pad(x, (2, 1, 1, 0))
    between = nn.functional.conv2d(padded, layer.depthwise_weight, layer.depthwise_bias, (1, 2), 0, (1, 2), groups=4)
    wanted = nn.functional.conv2d(nn.functional.silu(between), layer.pointwise_weight, layer.bias).relu()
    assert torch.allclose(layer(x), wanted, atol=1e-6)
    weights = (layer.depthwise_weight.double(), layer.pointwise_weight.double())
    arguments = (x[:1, :, :4, :6].double().requires_grad_(), *(weight.detach().requires_grad_() for weight in weights))
    assert torch.autograd.gradcheck(lambda x, d, p: deploydcn.nn.separable_conv2d(x, d, p, depthwise_activation="silu"), arguments)
    given = (x, layer.depthwise_weight.detach(), layer.pointwise_weight.detach(), None, None, [1, 1], [1, 1, 1, 1], [1, 1], "relu", "")
    torch.library.opcheck(torch.ops.deploydcn.separable_conv2d.default, given)


@pytest.mark.parametrize("target", ["ort", "tensorrt", "standard", "portable"])
def test_every_target(parity: Parity, tmp_path: Path, target: str) -> None:
    path, reference = tmp_path / "m.onnx", model()
    report = deploydcn.export_onnx(reference, image(4), path, dynamic_shapes={"input": DYNAMIC[0]}, target=target)
    names = operators(path)
    plain = target in ("standard", "portable")
    assert names.count("deploydcn::SeparableConv2d") == (0 if plain else 2)
    if not plain:
        assert names == ["deploydcn::SeparableConv2d"] * 2
        assert "1 batch normalizations folded into our convolutions" in report.notes
        assert "1 activations fused into our convolutions" in report.notes
    inputs = [{"input": image(4, size, batch).numpy()} for size, batch in (((14, 17), 2), ((9, 30), 1), ((33, 8), 3))]
    parity((reference, image(4)), path, inputs, locate=True)


def test_tensorrt_gets_zeros_for_a_missing_bias(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    report = deploydcn.export_onnx(model(), image(4), path, target="tensorrt")
    assert "2 convolutions without a bias given one of zeros, as TensorRT's parser wants" in report.notes
    assert all(name for node in onnx.load(path).graph.node for name in node.input)


def test_half_precision(tmp_path: Path) -> None:
    path, half = tmp_path / "m.onnx", tmp_path / "half.onnx"
    deploydcn.export_onnx(model(), image(4), path)
    deploydcn.convert_precision(path, half)
    wanted, got = (next(iter(deploydcn.load(file).run({"input": image(4).numpy()}).values())) for file in (path, half))
    assert 0 < np.abs(got - wanted).max() < 4e-3 * np.abs(wanted).max()


@pytest.mark.backend("rtx")
@pytest.mark.parametrize("dtype", [None, "fp16", "bf16"])
def test_tensorrt_rtx_builds_it(tmp_path: Path, dtype: str | None) -> None:
    path = tmp_path / "m.onnx"
    deploydcn.export_onnx(model(), image(4), path, dynamic_shapes={"input": DYNAMIC[0]}, target="tensorrt")
    span = {"input": ((1, 4, 8, 8), (2, 4, 14, 17), (4, 4, 64, 64))}
    report = deploydcn.build_engine(path, tmp_path / "m.engine", runtime="tensorrt-rtx", profiles=[span], dtype=dtype)
    assert [layer.operator for layer in report.plugins] == ["deploydcn::SeparableConv2d"] * 2
    expected = {None: ("float32", "LINEAR"), "fp16": ("float16", "HWC8"), "bf16": ("bfloat16", "HWC8")}[dtype]
    for layer in report.plugins:
        assert (layer.inputs[0].dtype, layer.inputs[0].format) == expected
        assert [tensor.name for tensor in layer.inputs] == ["X", "depthwise_W", "pointwise_W", "depthwise_B", "pointwise_B"]
