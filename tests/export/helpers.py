"""What the exporter's tests share."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import torch

DYNAMIC = ({0: "n", 2: "h", 3: "w"},)
NATIVE = tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 25)


def image(channels: int = 8, size: tuple[int, int] = (14, 17), batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(1))


def operators(path: Path) -> list[str]:
    return [f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in onnx.load(path).graph.node]
