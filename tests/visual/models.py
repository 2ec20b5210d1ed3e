"""Small models whose sampling points are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torchvision
from torch import Tensor, nn

import deploydcn


class Shifted(nn.Module):
    """A deformable layer that samples where it is told: offset and mask as torchvision takes them, constant."""

    def __init__(self, offset: Tensor, mask: Tensor | None = None, channels: int = 3, outputs: int = 4, **window: Any) -> None:
        super().__init__()
        self.register_buffer("offset", offset)
        self.register_buffer("mask", mask)
        self.weight = nn.Parameter(torch.randn(outputs, channels, 3, 3))
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        return torchvision.ops.deform_conv2d(x, self.offset, self.weight, mask=self.mask, **self.window)


def as_file(model: nn.Module, example: Tensor, path: Path, kind: str) -> Path:
    """The model as an ONNX file: for a target of ours, or with mmcv's nodes instead of the standard ones."""
    deploydcn.export_onnx(model.eval(), example, path, target="standard" if kind == "mmcv" else kind)
    if kind == "mmcv":
        file = onnx.load(path)
        for node in file.graph.node:
            if node.op_type == "DeformConv":
                _as_mmcv(node)
        file.opset_import.append(onnx.helper.make_opsetid("mmcv", 1))
        onnx.save(file, path)
    return path


def _as_mmcv(node: onnx.NodeProto) -> None:
    given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    x, weight, offset, bias, mask = [*node.input, "", ""][:5]
    del node.input[:], node.attribute[:]
    node.domain, node.op_type = "mmcv", "MMCVModulatedDeformConv2d" if mask else "MMCVDeformConv2d"
    node.input.extend([name for name in ((x, offset, mask, weight, bias) if mask else (x, offset, weight)) if name])
    values = {
        "stride": given.get("strides", [1, 1]),
        "padding": list(given.get("pads", [0, 0]))[:2],
        "dilation": given.get("dilations", [1, 1]),
        "groups": given.get("group", 1),
        "deform_groups": given.get("offset_group", 1),
    }
    node.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in values.items())


def photograph(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """Something with edges, (H, W, 3) uint8."""
    rows, columns = np.mgrid[:height, :width]
    disc = (rows - height / 2) ** 2 + (columns - width / 3) ** 2 < (height / 4) ** 2
    noise = np.random.default_rng(seed).integers(0, 30, (height, width, 3))
    return (noise + 60 + 120 * disc[..., None] + columns[..., None]).clip(0, 255).astype(np.uint8)
