"""What the frontends' tests share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import deploydcn
from deploydcn.export.frontends.substitution import Substitution
from deploydcn.runners.deployed import deployed

GOLDENS = Path(__file__).parent / "goldens"
DYNAMIC = {0: "n", 2: "h", 3: "w"}


@dataclass(frozen=True)
class Golden:
    """A published module's inputs, parameters, options and output."""

    name: str
    inputs: dict[str, torch.Tensor]
    options: dict[str, Any]
    outputs: dict[str, np.ndarray]

    def __str__(self) -> str:
        return self.name.partition("__")[2]


def goldens(prefix: str) -> list[Golden]:
    found = [golden(path.stem) for path in sorted(GOLDENS.glob(f"{prefix}__*.npz"))]
    assert found, f"no golden case {prefix}"
    return found


def golden(name: str) -> Golden:
    with np.load(GOLDENS / f"{name}.npz", allow_pickle=False) as data:
        inputs = {key[3:]: torch.from_numpy(data[key]) for key in data.files if key.startswith("in_")}
        outputs = {key[4:]: data[key] for key in data.files if key.startswith("out_")}
        return Golden(name, inputs, json.loads(str(data["attrs"])), outputs)


def image(channels: int = 4, size: tuple[int, int] = (11, 14), batch: int = 2, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(seed))


def with_large_offsets(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """Every convolution that predicts offsets gets random parameters: offsets of some pixels, beyond the border too."""
    generator = torch.Generator().manual_seed(seed)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and any(word in name for word in ("offset", "p_conv", "m_conv", "sampling")):
            with torch.no_grad():
                layer.weight.normal_(std=1.5 / layer.weight[0].numel() ** 0.5, generator=generator)
                if layer.bias is not None:
                    layer.bias.uniform_(-2, 2, generator=generator)
    return model.eval()


def replaced(model: nn.Module, *args: torch.Tensor, runs_here: bool = True) -> tuple[torch.Tensor, list[str]]:
    """What the replacements compute, eagerly, and the notes on how they were proven."""
    substitution = Substitution(model)
    with deployed(model), torch.no_grad():
        with substitution.recording() if runs_here else substitution.without_kernels():
            model(*args)
        notes = substitution.prove()
        assert notes, "nothing was recognised"
        with substitution.installed() as root:
            return root(*args), notes


def exported(model: nn.Module, args: tuple[torch.Tensor, ...], folder: Path, **options: Any) -> tuple[list[np.ndarray], Any]:
    """What the file computes in ONNX Runtime, and the report."""
    path = folder / "model.onnx"
    report = deploydcn.export_onnx(model, args, path, **options)
    inputs = [tensor.numpy() for tensor in args]
    return list(deploydcn.load(path).run(inputs).values()), report


def largest(a: Any, b: Any) -> float:
    """Largest absolute difference."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    return float(np.abs(a - b).max())
