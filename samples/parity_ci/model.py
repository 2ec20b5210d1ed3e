"""The model that this project ships: a small network with two deformable convolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deploydcn.nn import DeformConv2d


class Network(nn.Module):
    """Images (N, 3, H, W) -> logits (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.look = nn.Sequential(DeformConv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.look_again = nn.Sequential(DeformConv2d(32, 32, 3, padding=1, stride=2), nn.BatchNorm2d(32), nn.ReLU())
        self.head = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.look_again(self.look(self.stem(images))).mean((2, 3)))


def build() -> tuple[nn.Module, Tensor]:
    """The model and an example input. A real project loads its weights here; seeds stand for them, offsets included."""
    torch.manual_seed(0)
    model = Network()
    for block in (model.look, model.look_again):
        nn.init.normal_(block[0].offset_conv.weight, std=0.1)
        nn.init.normal_(block[0].offset_conv.bias, std=0.5)
    return model.eval(), torch.rand(1, 3, 32, 48)
