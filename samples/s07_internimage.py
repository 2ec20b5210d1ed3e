"""Sample 07: InternImage's architecture (Wang et al. 2023) on DCNv3, small: an image classifier.

    deploydcn export samples/s07_internimage.py:build -o internimage.onnx --dynamic images:0=n,2=h,3=w

A stem, four stages of DCNv3 blocks with halving between them, and a linear head; channels last throughout, as in the original.
The weights are seeded, not trained; see seeding.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from deploydcn.nn.functional import dcnv3

TAPS = 9


class ChannelsLastConv(nn.Conv2d):
    """A convolution of (N, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> (N, oH, oW, M)."""
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class DCNv3(nn.Module):
    """Deformable convolution v3: per group a softmax over 9 taps, offsets predicted from a depthwise convolution, projections around."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.local = nn.Sequential(ChannelsLastConv(channels, channels, 3, padding=1, groups=channels), nn.LayerNorm(channels), nn.GELU())
        self.offset = nn.Linear(channels, groups * TAPS * 2)
        self.mask = nn.Linear(channels, groups * TAPS)
        self.input_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> the same."""
        local = self.local(x)
        mask = self.mask(local).unflatten(-1, (self.groups, TAPS)).softmax(-1).flatten(-2)
        return self.output_proj(dcnv3(self.input_proj(x), self.offset(local), mask, padding=1, groups=self.groups))


class Block(nn.Module):
    """Normalised, scaled residuals of DCNv3 and of a two-layer perceptron."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.dcn = nn.LayerNorm(channels), DCNv3(channels, groups)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        self.scale1, self.scale2 = (nn.Parameter(torch.full((channels,), 0.5)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> the same."""
        x = x + self.scale1 * self.dcn(self.norm1(x))
        return x + self.scale2 * self.mlp(self.norm2(x))


class InternImage(nn.Module):
    """The classifier. Groups have `group_channels` channels each, in every stage."""

    def __init__(self, channels: int = 16, depths: tuple[int, ...] = (1, 1, 2, 1), group_channels: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            ChannelsLastConv(3, channels // 2, 3, 2, 1),
            nn.LayerNorm(channels // 2),
            nn.GELU(),
            ChannelsLastConv(channels // 2, channels, 3, 2, 1),
            nn.LayerNorm(channels),
        )
        stages: list[nn.Module] = []
        for index, depth in enumerate(depths):
            width = channels << index
            if index:
                stages += [ChannelsLastConv(width // 2, width, 3, 2, 1, bias=False), nn.LayerNorm(width)]
            stages += [Block(width, width // group_channels) for _ in range(depth)]
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """images (N, 3, H, W) -> logits (N, classes)."""
        features = self.stages(self.stem(images.permute(0, 2, 3, 1)))
        return self.head(self.norm(features).mean((1, 2)))


def build(height: int = 64, width: int = 96) -> tuple[nn.Module, dict[str, Tensor]]:
    """The model, with offsets of about a pixel, and an example image."""
    torch.manual_seed(0)
    model = InternImage()
    for module in model.modules():
        if isinstance(module, DCNv3):
            nn.init.normal_(module.offset.weight, std=0.1 / module.offset.in_features**0.5)
            nn.init.normal_(module.offset.bias)
    return model.eval(), {"images": F.interpolate(torch.randn(1, 3, 12, 12), size=(height, width), mode="bicubic")}
