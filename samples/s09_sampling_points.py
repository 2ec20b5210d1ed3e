"""Sample 09: what a deformable network learns to look at, drawn.

    python samples/s09_sampling_points.py            # trains for about a minute, exports, draws discs.png and discs.html
    deploydcn visualize discs.onnx --image discs_photo.png --size 96x128 -o discs_file.html

The network tells two kinds of discs apart at every pixel. They differ in the colour of their rim only, so that a pixel in the middle of a
large one must look far, and a pixel of a small one must not.
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

HEIGHT, WIDTH, STRIDE = 96, 128, 8
SMALL, LARGE = (8, 14), (24, 38)  # radii, in pixels
RIM = 4
RIMS = ((0.9, 0.5, 0.1), (0.2, 0.4, 0.9))  # orange and blue


class DiscNet(nn.Module):
    """Images -> background, orange or blue, at every eighth pixel: three strided convolutions, three deformable ones."""

    def __init__(self, channels: int = 24) -> None:
        super().__init__()
        widths = (3, 12, 16, channels)
        self.stem = nn.Sequential(*(nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()) for a, b in pairwise(widths)))
        self.deformable = nn.ModuleList(DeformConv2d(channels, channels, 3, padding=1) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(3))
        self.head = nn.Conv2d(channels, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        """images (N, 3, H, W) -> logits (N, 3, H/8, W/8)."""
        features = self.stem(4 * images - 2)
        for layer, norm in zip(self.deformable, self.norms, strict=True):
            features = features + F.relu(norm(layer(features)))
        return self.head(features)


def scene(rng: np.random.Generator, discs: Sequence[tuple[int, int, int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) uint8 of discs (kind, radius, y, x) on mottled ground, and the kind of every pixel (H, W), 0 on the ground."""
    coarse = torch.from_numpy(rng.uniform(0, 1, (1, 6, 9, 11)))
    mottled = F.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear")[0].numpy().transpose(1, 2, 0)
    image, kinds = 0.25 + 0.3 * mottled[..., :3], np.zeros((HEIGHT, WIDTH), np.int64)
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    for kind, radius, y, x in discs:
        distance = np.hypot(rows - y, columns - x)
        image[distance < radius] = RIMS[kind - 1]
        inside = distance < radius - RIM
        image[inside] = 0.75 + 0.2 * (mottled[..., 3:][inside] - 0.5)
        kinds[distance < radius] = kind
    noisy = image + rng.normal(0, 0.02, image.shape)
    return (255 * noisy.clip(0, 1)).astype(np.uint8), kinds


def random_scenes(rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Images (N, 3, H, W) of a large disc and two small ones, and the kinds (N, H/8, W/8) that a network should find in them."""
    images, kinds = [], []
    for _ in range(count):
        radii = [int(rng.integers(*size)) for size in (LARGE, SMALL, SMALL)]
        image, wanted = scene(rng, [(int(rng.integers(1, 3)), r, int(rng.integers(0, HEIGHT)), int(rng.integers(0, WIDTH))) for r in radii])
        images.append(image)
        kinds.append(wanted[::STRIDE, ::STRIDE])
    return as_input(images), torch.from_numpy(np.stack(kinds))


DISCS = ((1, 34, 48, 40), (2, 11, 24, 104), (1, 11, 72, 104))
PIXELS = ((6, 5), (3, 13), (9, 13))
"""The picture's discs (kind, radius, y, x), and the pixels (y, x) of the network's maps in their middles."""


def as_input(images: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def train(steps: int = 300, batch: int = 6) -> nn.Module:
    """A trained network; the same one every time on the same machine."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = DiscNet()
    offsets = [parameter for name, parameter in model.named_parameters() if "offset_conv" in name]
    others = [parameter for name, parameter in model.named_parameters() if "offset_conv" not in name]
    optimizer = torch.optim.AdamW([{"params": others}, {"params": offsets}])
    # Offsets learn slower, as in the papers: points that have flown far away find no way back.
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [6e-3, 1e-3], total_steps=steps)
    for _ in range(steps):
        images, wanted = random_scenes(rng, batch)
        loss = F.cross_entropy(model(images), wanted)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, scenes: int = 40) -> float:
    """Share of the pixels of discs in new scenes whose kind is right; one that sees no rims gets half of them."""
    images, wanted = random_scenes(np.random.default_rng(1), scenes)
    return float((model(images).argmax(1) == wanted)[wanted > 0].float().mean())


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
    right = accuracy(model)
    console.print(f"{right:.1%} of the pixels of discs are told right")
    image, _ = scene(np.random.default_rng(7), DISCS)
    Image.fromarray(image).save(folder / "discs_photo.png")
    example = as_input([image])
    exported = deploydcn.export_onnx(model, example, folder / "discs.onnx", dynamic_shapes=({2: "h", 3: "w"},))
    console.print(exported.summary(), soft_wrap=True)
    outputs = [folder / "discs.png", folder / "discs.html"]
    report = deploydcn.visualize((model, example), image, outputs, layers=["deformable.0", "deformable.2"], pixels=PIXELS, levels=2)
    views = report.shown[2]
    reaches = [spread(view) for view in views]
    for (_, radius, *_), view, reach in zip(DISCS, views, reaches, strict=True):
        console.print(f"disc of radius {radius}: {len(view.traces[-1].y)} points, {reach:.1f} px from their middle")
    if right < 0.9 or reaches[0] < max(reaches[1:]):
        raise SystemExit("the network did not learn to look far in the large disc")


if __name__ == "__main__":
    main()
