"""Sample 03: a small deformable network, trained on scikit-learn's digits in a few seconds, equally accurate after export.

python samples/s03_digits.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from rich.console import Console
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import deploydcn
from deploydcn.nn import DeformConv2d


class DigitNet(nn.Module):
    """8x8 images -> 10 classes: a plain stem, two deformable layers, one of them depthwise, global pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.deformable = nn.Sequential(DeformConv2d(16, 32, 3, padding=1, stride=2), nn.BatchNorm2d(32), nn.ReLU())
        self.depthwise = nn.Sequential(DeformConv2d(32, 32, 3, padding=1, groups=32), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 1))
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """images (N, 1, 8, 8) -> logits (N, 10)."""
        features = self.depthwise(self.deformable(self.stem(images)))
        return self.head(features.mean((2, 3)))


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and test images (N, 1, 8, 8) in [0, 1], and labels."""
    data = load_digits()
    images = (data.images / 16).astype(np.float32)[:, None]
    split = train_test_split(images, data.target, test_size=0.25, random_state=0, stratify=data.target)
    train_x, test_x, train_y, test_y = (torch.from_numpy(part) for part in split)
    return train_x, train_y, test_x, test_y


def train(epochs: int = 10) -> nn.Module:
    """A trained network; the same one every time on the same machine."""
    torch.manual_seed(0)
    images, labels, _, _ = digits()
    model = DigitNet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=epochs * (len(images) // 64 + 1))
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def mean_offset(model: nn.Module, images: Tensor) -> float:
    """Mean |offset| of the first deformable layer, in pixels."""
    layer = model.deformable[0]
    with torch.no_grad():
        return float(layer.offset_conv(F.pad(model.stem(images), (1, 1, 1, 1)))[:, :18].abs().mean())


def main() -> None:
    """Train, export, compare accuracies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("digits.onnx"))
    output: Path = parser.parse_args().output
    console = Console(highlight=False)
    with console.status("training"):
        model = train()
    _, _, images, labels = digits()
    report = deploydcn.export_onnx(model, images[:8], output, dynamic_shapes=({0: "n"},))
    console.print(report.summary(), soft_wrap=True)
    with torch.no_grad():
        expected = model(images).argmax(1).numpy()
    got = deploydcn.load(output).run([images.numpy()])["output"].argmax(1)
    accuracies = [float(np.mean(prediction == labels.numpy())) for prediction in (expected, got)]
    console.print(
        f"test accuracy: PyTorch {accuracies[0]:.2%}, ONNX Runtime {accuracies[1]:.2%}; mean |offset| {mean_offset(model, images):.2f} px"
    )
    if not np.array_equal(expected, got):
        raise SystemExit(f"{int(np.sum(expected != got))} of {len(labels)} predictions differ")


if __name__ == "__main__":
    main()
