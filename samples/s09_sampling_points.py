"""Sample 09: what a deformable network learns to look at, drawn: sampling points spread over large objects and gather on small ones.

    python samples/s09_sampling_points.py            # trains for about a minute, exports, draws discs.png and discs.html
    deploydcn visualize discs.onnx --image discs_photo.png --size 128x160 -o discs_file.html

The network tells at every pixel how large the disc is that it lies on. In the middle of a large one nothing tells but its border, far away.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

import deploydcn
from deploydcn.nn import DeformConv2d
from deploydcn.visual.visualize import PixelView

HEIGHT, WIDTH, STRIDE = 128, 160, 8
RADII = (6, 44)  # pixels
UNIT = 40  # pixels that a prediction of 1 means


class DiscNet(nn.Module):
    """Images -> radius at every eighth pixel, 0 outside of discs: three strided convolutions, three deformable ones."""

    def __init__(self, channels: int = 24) -> None:
        super().__init__()
        widths = (3, 12, 16, channels)
        self.stem = nn.Sequential(*(nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()) for a, b in pairwise(widths)))
        self.deformable = nn.ModuleList(DeformConv2d(channels, channels, 3, padding=1) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(3))
        self.head = nn.Conv2d(channels, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """images (N, 3, H, W) -> radii (N, 1, H/8, W/8), in units of UNIT pixels."""
        features = self.stem(images)
        for layer, norm in zip(self.deformable, self.norms, strict=True):
            features = features + F.relu(norm(layer(features)))
        return self.head(features)


def scene(rng: np.random.Generator, discs: Sequence[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) uint8 of discs (radius, y, x) on mottled ground, and the radius at every pixel (H, W)."""
    coarse = torch.from_numpy(rng.uniform(0, 1, (1, 6, 9, 11)))
    mottled = F.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear")[0].numpy().transpose(1, 2, 0)
    image, radii = 0.25 + 0.3 * mottled[..., :3], np.zeros((HEIGHT, WIDTH), np.float32)
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    for radius, y, x in discs:
        inside = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        image[inside] = rng.uniform(0.2, 0.95, 3) + 0.2 * (mottled[..., 3:][inside] - 0.5)
        radii[inside] = radius
    noisy = image + rng.normal(0, 0.02, image.shape)
    return (255 * noisy.clip(0, 1)).astype(np.uint8), radii


def random_scenes(rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Images (N, 3, H, W) of a large disc and three of any size, and what a network should say of them."""
    images, radii = [], []
    for _ in range(count):
        sizes = [int(rng.integers(24, RADII[1])), *map(int, rng.integers(*RADII, 3) // 2 + 3)]
        image, wanted = scene(rng, [(size, int(rng.integers(0, HEIGHT)), int(rng.integers(0, WIDTH))) for size in sizes])
        images.append(image)
        radii.append(wanted[None, ::STRIDE, ::STRIDE] / UNIT)
    return as_input(images), torch.from_numpy(np.stack(radii))


DISCS = ((40, 64, 56), (11, 32, 128), (20, 92, 126))
PIXELS = ((8, 7), (4, 16), (12, 16))
"""The picture's discs (radius, y, x), and the pixels (y, x) of the network's maps in their middles."""


def as_input(images: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def train(steps: int = 300, batch: int = 6) -> nn.Module:
    """A trained network; the same one every time on the same machine."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = DiscNet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    for _ in range(steps):
        images, wanted = random_scenes(rng, batch)
        loss = F.l1_loss(model(images), wanted)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def errors(model: nn.Module, scenes: int = 40) -> tuple[float, float]:
    """Mean |error| of the radius on discs of new scenes, in pixels; and that of always saying their median radius."""
    images, wanted = random_scenes(np.random.default_rng(1), scenes)
    on_discs = wanted > 0
    constant = (wanted[on_discs] - wanted[on_discs].median()).abs().mean()
    return UNIT * float((model(images) - wanted)[on_discs].abs().mean()), UNIT * float(constant)


def spread(view: PixelView) -> float:
    """Weighted mean distance of a pixel's last points from their middle, in pixels of the image."""
    points = view.traces[-1]
    weight = points.weight * points.share
    middle = [np.average(at, weights=weight) for at in (points.y, points.x)]
    return float(np.average(np.hypot(points.y - middle[0], points.x - middle[1]), weights=weight))


def main() -> None:
    """Train, export, draw, and say how far the points spread."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("."), help="folder")
    folder: Path = parser.parse_args().output
    console = Console(highlight=False)
    with console.status("training"):
        model = train()
    error, constant = errors(model)
    console.print(f"radii are off by {error:.1f} px on average; always saying the same would be off by {constant:.1f} px")
    image, _ = scene(np.random.default_rng(7), DISCS)
    Image.fromarray(image).save(folder / "discs_photo.png")
    example = as_input([image])
    exported = deploydcn.export_onnx(model, example, folder / "discs.onnx", dynamic_shapes=({2: "h", 3: "w"},))
    console.print(exported.summary(), soft_wrap=True)
    outputs = [folder / "discs.png", folder / "discs.html"]
    report = deploydcn.visualize((model, example), image, outputs, layers=["deformable.0", "deformable.2"], pixels=PIXELS)
    for (radius, *_), view in zip(DISCS, report.shown[2], strict=True):
        console.print(f"disc of radius {radius}: {len(view.traces[-1].y)} points, {spread(view):.1f} px from their middle")


if __name__ == "__main__":
    main()
