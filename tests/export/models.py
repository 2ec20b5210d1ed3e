"""Small models the exporter is tried on."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn

from deploydcn.nn import DeformConv2d


def with_offsets(module: nn.Module, scale: float = 0.3) -> nn.Module:
    """Offsets that differ from zero, and batch norms that do something."""
    torch.manual_seed(0)
    for child in module.modules():
        if isinstance(child, DeformConv2d):
            nn.init.normal_(child.offset_conv.weight, std=scale / 3)
            nn.init.normal_(child.offset_conv.bias, std=scale)
        if isinstance(child, nn.BatchNorm2d):
            nn.init.uniform_(child.weight, 0.5, 1.5)
            nn.init.normal_(child.bias)
            nn.init.normal_(child.running_mean, std=0.1)
            nn.init.uniform_(child.running_var, 0.5, 2.0)
    return module.eval()


class TorchvisionDcn(nn.Module):
    """torchvision's layer with offsets and a mask from plain convolutions; v1 when not modulated."""

    def __init__(self, *, modulated: bool = True, groups: int = 1, offset_groups: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.modulated = modulated
        self.offset = nn.Conv2d(8, 18 * offset_groups, 3, stride=2, padding=1)
        self.mask = nn.Conv2d(8, 9 * offset_groups, 3, stride=2, padding=1)
        self.conv = torchvision.ops.DeformConv2d(8, 12, 3, stride=2, padding=1, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x, self.offset(x), torch.sigmoid(self.mask(x)) if self.modulated else None)


class Fusable(nn.Module):
    """Everything the `ort` target fuses, and places where it must not."""

    def __init__(self) -> None:
        super().__init__()
        self.folds = nn.Sequential(DeformConv2d(4, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.SiLU())
        self.relu6 = nn.Sequential(DeformConv2d(8, 8, 3, padding=(1, 0, 1, 2), groups=2), nn.ReLU6())
        self.twice = DeformConv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.relu6(self.folds(x))
        shared = self.twice(y)  # used three times and returned: nothing may be folded into it
        return {"normed": self.norm(shared), "relu": torch.relu(shared), "raw": shared}


class Mixed(nn.Module):
    """Keyword, nested and unused inputs; an input that is an output; one tensor returned twice."""

    def forward(self, image: Tensor, boxes: dict[str, Tensor], unused: Tensor, *, gain: Tensor) -> dict[str, Tensor]:
        y = image * gain + boxes["wide"].sum()
        return {"y": y, "same": y, "image": image, "narrow": boxes["narrow"] * 2}


class BakedHeight(nn.Module):
    """Says it is dynamic; scales by a Python number read off the example's height."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            height = float(torch.tensor(x.shape[2]).item()) if not torch.compiler.is_exporting() else 16.0
        return x * height


class DataDependent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x + 1
        return x - 1


class Unsupported(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = UnsupportedInner()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + 1


class UnsupportedInner(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.matrix_exp(x)


class PureDeform(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), DeformConv2d(8, 8, 3, padding=1, offset_groups=2), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)
