"""Small networks of deformable layers, exported, and calibration data for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import deploydcn
from deploydcn.nn import DeformConv2d
from tests.export.models import with_offsets


class Stack(nn.Module):
    """A stem, one deformable layer of any form, a sum, pooling, a pointwise layer and a classifier."""

    def __init__(self, layer: nn.Module, after: nn.Module, channels: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())
        self.layer, self.after = layer, after
        self.point = nn.Conv2d(channels, channels, 1)
        self.head = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        y = torch.relu(self.after(self.layer(y)) + y)
        return self.head(self.point(torch.max_pool2d(y, 2)).mean((2, 3)))


LAYERS = {
    "modulated": lambda: DeformConv2d(8, 8, 3, padding=1),
    "v1": lambda: DeformConv2d(8, 8, 3, padding=1, modulated=False),
    "offset_groups_4": lambda: DeformConv2d(8, 8, 3, padding=1, offset_groups=4),
    "depthwise": lambda: DeformConv2d(8, 8, 3, padding=1, groups=8),
    "groups_no_bias": lambda: DeformConv2d(8, 8, 3, padding=1, groups=2, bias=False),
}
ACTIVATIONS = {"none": nn.Identity, "relu": nn.ReLU, "relu6": nn.ReLU6, "silu": nn.SiLU}


def exported(path: Path, layer: str = "modulated", activation: str = "relu", target: str = "ort") -> Path:
    """A seeded network in a file; batch and sizes dynamic."""
    torch.manual_seed(0)
    model = with_offsets(Stack(LAYERS[layer](), ACTIVATIONS[activation]()))
    dynamic = ({0: "n", 2: "h", 3: "w"},)
    deploydcn.export_onnx(model, torch.rand(2, 3, 16, 16), path, dynamic_shapes=dynamic, target=target, check=False)
    return path


def images(count: int = 12, size: tuple[int, int] = (16, 18)) -> dict[str, np.ndarray]:
    """Smooth pictures in [0, 1], one per run."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((count, 3, 5, 5)).astype(np.float32))
    return {"x": torch.nn.functional.interpolate(coarse, size=size, mode="bilinear").numpy()}
