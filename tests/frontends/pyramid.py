"""Attention layers over a pyramid of two levels of one image, however their framework wants it passed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

CHANNELS, HEADS = 16, 4


class Pyramid(nn.Module):
    """call(layer, query, value, boxes, shapes, shape tensor, start) -> (N, Q, channels)."""

    def __init__(self, layer: nn.Module, call: Callable[..., Tensor], coordinates: int = 2, per_level: bool = True) -> None:
        super().__init__()
        self.layer, self.call = layer, call
        self.coordinates, self.per_level = coordinates, per_level
        self.register_buffer("points", torch.rand(1, 5, coordinates, generator=torch.Generator().manual_seed(3)))
        self.register_buffer("query", torch.randn(1, 5, CHANNELS, generator=torch.Generator().manual_seed(4)))

    def forward(self, x: Tensor) -> Tensor:
        small = F.max_pool2d(x, 2)
        shapes = [tuple(level.shape[2:]) for level in (x, small)]
        value = torch.cat([level.flatten(2).transpose(1, 2) for level in (x, small)], dim=1)
        query = self.query + x.mean((2, 3))[:, None]
        points = self.points.expand(x.shape[0], -1, -1)
        points = points[:, :, None].expand(-1, -1, len(shapes) if self.per_level else 1, -1)
        sizes = torch.stack([torch.stack([torch.scalar_tensor(n, dtype=torch.int64) for n in pair]) for pair in shapes])
        areas = sizes[:, 0] * sizes[:, 1]
        return self.call(self.layer, query, value, points, shapes, sizes, areas.cumsum(0) - areas)


def first(result: Any) -> Tensor:
    """transformers returns the attention weights too."""
    return result[0] if isinstance(result, tuple) else result
