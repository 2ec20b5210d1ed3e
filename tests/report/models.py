"""Reports of models that pass and of models with planted bugs."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deploydcn.parity import ParityReport, verify
from tests.visual.models import photograph
from tests.visual.test_visualize import small_net

IMAGE = torch.from_numpy(photograph()).permute(2, 0, 1)[None].float() / 255

Model = tuple[nn.Module, Tensor]


def net() -> Model:
    return small_net(), IMAGE


def swapped() -> Model:
    """The planted bug: (x, y) for (y, x) in the offsets of layer "3"."""
    model = deepcopy(small_net())
    branch, swap = model[3].offset_conv, np.arange(36) ^ 1
    branch.weight.data[:36], branch.bias.data[:36] = branch.weight.data[swap], branch.bias.data[swap]
    return model, IMAGE


class Boxes(nn.Module):
    """A detector that finds the same three objects in every image; `change` is applied to them."""

    def __init__(self, *, shift: float = 0.0, score: float = 0.0, label: int = 2) -> None:
        super().__init__()
        self.register_buffer("boxes", torch.tensor([[4.0, 6, 20, 30], [30, 8, 44, 40], [46.0, 10, 60, 20]]))
        self.register_buffer("scores", torch.tensor([0.9, 0.8, 0.7 + score]))
        self.register_buffer("labels", torch.tensor([0, label, 1]))
        self.shift = shift

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        nothing = 0 * image.mean()
        moved = self.boxes + nothing + torch.tensor([[self.shift], [0.0], [0.0]])
        return {"boxes": moved, "scores": self.scores + nothing, "labels": self.labels.clone()}


def report_of(reference: Any, candidate: Any, **options: Any) -> ParityReport:
    return verify(reference, candidate, **{"seeds": 1, "locate": True, "detector": "auto", **options})
