"""The models that exports are tried on: public architectures with deformable layers, small, with seeded weights.

Each row builds a model and an example, names its dynamic axes and the operators its file must hold. `python -m tests.models` exports them
all, compares each file with PyTorch at several sizes, and writes docs/MODELS.md; tests/models/test_models.py does the same to the rows
marked `quick`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

IMAGE: Mapping[str, Any] = {0: "n", 2: "h", 3: "w"}


@dataclass(frozen=True)
class Model:
    """One row. build: () -> (module in eval mode, example keyword arguments). dynamic: axes by argument. operators: nodes of deformable
    operators that the file must hold, by kind; empty for a model that has none and serves as control. package: what it needs."""

    name: str
    package: str
    build: Callable[[], tuple[nn.Module, dict[str, Any]]]
    dynamic: Mapping[str, Any] | None
    quick: bool = False
    note: str = ""
    operators: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def seeded(self) -> tuple[nn.Module, dict[str, Any]]:
        """The same model every time."""
        torch.manual_seed(0)
        return self.build()


class Pick(nn.Module):
    """Some outputs of a model that returns many, as a dict."""

    def __init__(self, model: nn.Module, *names: str) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, pixel_values: Tensor, **others: Tensor) -> dict[str, Tensor]:
        """Image, and whatever else the model takes."""
        outputs = self.model(pixel_values=pixel_values, **others)
        return {name: outputs[name] for name in self.names}


def image(height: int = 96, width: int = 128, *, batch: int = 1, grain: int = 12) -> Tensor:
    """A smooth picture (batch, 3, height, width) with values around 0."""
    noise = torch.randn(batch, 3, grain, grain)
    return nn.functional.interpolate(noise, size=(height, width), mode="bicubic")


def everything() -> tuple[Model, ...]:
    """All rows. The packages they need are imported when a row is built."""
    from tests.models import detectors, detr, networks

    return (*detr.MODELS, *detectors.MODELS, *networks.MODELS)
