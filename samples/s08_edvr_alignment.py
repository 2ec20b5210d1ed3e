"""Sample 08: EDVR's alignment of a video frame's features to a reference frame's (Wang et al. 2019): pyramid, cascading and deformable.

    python samples/s08_edvr_alignment.py

Offsets are predicted from both frames' features, at a quarter of the size first, and refined on the way up; each level's result, and a
last deformable convolution after all levels, take 8 groups of offsets. The restoration network around it is plain convolutions.
The weights are seeded, not trained; see seeding.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rich.console import Console
from seeding import seed_offsets
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import deploydcn
from deploydcn.nn import deform_conv2d

GROUPS = 8
LEVELS = 3


class DeformableFrom(nn.Module):
    """A modulated deformable convolution (3x3) of `x` whose offsets and mask come from other features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels, 3, 3) * (2 / (9 * channels)) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.offset_conv = nn.Conv2d(channels, 3 * GROUPS * 9, 3, padding=1)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """x, features (N, C, H, W) -> (N, C, H, W)."""
        prediction = self.offset_conv(features)
        offset, mask = prediction[:, : 2 * GROUPS * 9], torch.sigmoid(prediction[:, 2 * GROUPS * 9 :])
        return deform_conv2d(x, self.weight, offset, bias=self.bias, mask=mask, padding=1, offset_groups=GROUPS)


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution and leaky ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.LeakyReLU(0.1))


class Level(nn.Module):
    """One level of the pyramid: offset features from both frames and from the level below, then a deformable convolution."""

    def __init__(self, channels: int, *, lowest: bool) -> None:
        super().__init__()
        self.compare = conv(2 * channels, channels)
        self.merge = None if lowest else conv(2 * channels, channels)
        self.refine = conv(channels, channels)
        self.deform = DeformableFrom(channels)
        self.fuse = None if lowest else nn.Conv2d(2 * channels, channels, 3, padding=1)

    def forward(self, frame: Tensor, reference: Tensor, below: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Features of both frames at this level; (offset features, aligned features) of the level below -> those of this one."""
        offsets = self.compare(torch.cat([frame, reference], 1))
        if below is not None:
            offsets = self.merge(torch.cat([offsets, 2 * twice_as_large(below[0])], 1))  # a pixel below is two here
        offsets = self.refine(offsets)
        aligned = self.deform(frame, offsets)
        if below is not None:
            aligned = self.fuse(torch.cat([aligned, twice_as_large(below[1])], 1))
        return offsets, aligned


def twice_as_large(features: Tensor) -> Tensor:
    """Bilinear."""
    return F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)


class Alignment(nn.Module):
    """Pyramid, cascading and deformable alignment."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.shrink = nn.ModuleList(conv(channels, channels, stride=2) for _ in range(LEVELS - 1))
        self.levels = nn.ModuleList(Level(channels, lowest=index == LEVELS - 1) for index in range(LEVELS))
        self.compare = nn.Sequential(conv(2 * channels, channels), conv(channels, channels))
        self.deform = DeformableFrom(channels)

    def forward(self, frame: Tensor, reference: Tensor) -> Tensor:
        """frame, reference (N, C, H, W), H and W multiples of 4 -> the frame's features where the reference has them."""
        pyramid = [(frame, reference)]
        for shrink in self.shrink:
            pyramid.append((shrink(pyramid[-1][0]), shrink(pyramid[-1][1])))
        result = None
        for level, (moving, fixed) in reversed(list(zip(self.levels, pyramid, strict=True))):
            result = level(moving, fixed, result)
        aligned = F.leaky_relu(result[1], 0.1)
        return self.deform(aligned, self.compare(torch.cat([aligned, reference], 1)))


class Restoration(nn.Module):
    """Every frame aligned to the middle one, fused, and added to it as a correction."""

    def __init__(self, channels: int = 32, frames: int = 3) -> None:
        super().__init__()
        self.extract = nn.Sequential(conv(3, channels), conv(channels, channels))
        self.align = Alignment(channels)
        self.fuse = nn.Sequential(conv(frames * channels, channels), nn.Conv2d(channels, 3, 3, padding=1))

    def forward(self, clip: Tensor) -> Tensor:
        """clip (N, T, 3, H, W) -> the restored middle frame (N, 3, H, W)."""
        count = clip.shape[1]
        features = [self.extract(clip[:, index]) for index in range(count)]
        aligned = [self.align(frame, features[count // 2]) for frame in features]
        return clip[:, count // 2] + self.fuse(torch.cat(aligned, 1))


def build(height: int = 48, width: int = 64) -> tuple[nn.Module, dict[str, Tensor]]:
    """The model and an example clip of three frames, each the last one moved by two pixels."""
    torch.manual_seed(0)
    model = Restoration()
    seed_offsets(model)
    scene = F.interpolate(torch.rand(1, 3, 10, 12), size=(height, width + 4), mode="bicubic")
    return model.eval(), {"clip": torch.stack([scene[..., shift : shift + width] for shift in (0, 2, 4)], 1)}


def main() -> None:
    """Export, and show that one file serves every frame size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("edvr.onnx"))
    output: Path = parser.parse_args().output
    console = Console(highlight=False)
    model, example = build()
    report = deploydcn.export_onnx(model, None, output, kwargs=example, dynamic_shapes={"clip": {0: "n", 3: "h", 4: "w"}})
    console.print(report.summary(), soft_wrap=True)
    runner = deploydcn.load(output)
    for height, width in ((48, 64), (96, 40), (64, 160)):
        _, clip = build(height, width)
        with torch.no_grad():
            difference = (torch.from_numpy(runner.run(clip)["output"]) - model(**clip)).abs().max()
        console.print(f"{height}x{width}: largest difference to PyTorch {difference:.2g}")


if __name__ == "__main__":
    main()
