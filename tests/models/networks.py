"""Classifiers, segmenters and restoration networks: backbones of timm made deformable, and own forms of published designs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tests.models.zoo import IMAGE, Model, image

DCN = ("deploydcn::DeformConv2d",)


def _settled(model: nn.Module, x: Tensor) -> tuple[nn.Module, dict[str, Any]]:
    from seeding import calibrate_batch_norm, seed_offsets

    seed_offsets(model)
    calibrate_batch_norm(model, x)
    return model.eval(), {"x": x}


def _timm(name: str, stage: str, *, kernel: int = 3) -> tuple[nn.Module, dict[str, Any]]:
    """A backbone whose spatial convolutions in one stage are deformable, grouped and depthwise ones too."""
    import timm
    from seeding import deformable_copy

    model = timm.create_model(name, pretrained=False, num_classes=7)
    convolutions = [
        (path, module)
        for path, module in model.named_modules()
        if path.startswith(stage) and isinstance(module, nn.Conv2d) and module.kernel_size == (kernel, kernel)
    ]
    for path, module in convolutions:
        parent, _, attribute = path.rpartition(".")
        setattr(model.get_submodule(parent), attribute, deformable_copy(module))
    return _settled(model, image())


def timm_resnet() -> tuple[nn.Module, dict[str, Any]]:
    return _timm("resnet18d", "layer4")


def timm_regnet() -> tuple[nn.Module, dict[str, Any]]:
    return _timm("regnety_002", "s3")


def timm_convnext() -> tuple[nn.Module, dict[str, Any]]:
    return _timm("convnext_atto", "stages.2", kernel=7)


def timm_mobilenet() -> tuple[nn.Module, dict[str, Any]]:
    return _timm("mobilenetv2_050", "blocks.4")


def resnet50() -> tuple[nn.Module, dict[str, Any]]:
    from s01_resnet50_dcn import build

    model, x = build(128)
    return model, {"x": x}


def edvr() -> tuple[nn.Module, dict[str, Any]]:
    from s08_edvr_alignment import build

    return build()


def internimage() -> tuple[nn.Module, dict[str, Any]]:
    from s07_internimage import build

    return build()


class DeformableASPP(nn.Module):
    """Atrous pyramid with deformable branches of several window sizes and a global one, as in BiRefNet's decoder (Zheng et al. 2024)."""

    def __init__(self, channels: int, windows: tuple[int, ...] = (1, 3, 7)) -> None:
        super().__init__()
        from deploydcn.nn import DeformConv2d

        self.branches = nn.ModuleList(
            nn.Sequential(DeformConv2d(channels, channels, k, padding=k // 2, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
            for k in windows
        )
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), nn.ReLU())
        self.mix = nn.Sequential(nn.Conv2d((len(windows) + 1) * channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        whole = F.interpolate(self.whole(x), size=x.shape[2:], mode="bilinear", align_corners=True)
        return self.mix(torch.cat([*(branch(x) for branch in self.branches), whole], 1))


class DecoderWithASPP(nn.Module):
    """A U-shaped segmenter: features at 1/4 and 1/8, an ASPP at each, results added on the way up."""

    def __init__(self, channels: int = 24) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 7, 4, 3), nn.BatchNorm2d(channels), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(channels, channels, 3, 2, 1), nn.BatchNorm2d(channels), nn.ReLU())
        self.coarse, self.fine = DeformableASPP(channels), DeformableASPP(channels)
        self.head = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.stem(x)
        coarse = self.coarse(self.down(fine))
        joined = self.fine(fine + F.interpolate(coarse, size=fine.shape[2:], mode="bilinear", align_corners=True))
        return F.interpolate(self.head(joined), size=x.shape[2:], mode="bilinear", align_corners=True)


def birefnet() -> tuple[nn.Module, dict[str, Any]]:
    return _settled(DecoderWithASPP(), image(64, 96))


class FlowGuided(nn.Module):
    """BasicVSR++'s alignment (Chan et al. 2022): offsets are an optical flow plus a bounded residue predicted from warped features."""

    def __init__(self, channels: int = 16, groups: int = 4, reach: float = 10.0) -> None:
        super().__init__()
        self.groups, self.reach = groups, reach
        self.weight = nn.Parameter(torch.randn(channels, channels, 3, 3) * 0.08)
        self.extract = nn.Conv2d(3, channels, 3, padding=1)
        self.offset_conv = nn.Conv2d(2 * channels + 2, 27 * groups, 3, padding=1)
        self.head = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, frames: Tensor, flow: Tensor) -> Tensor:
        """frames (N, 2, 3, H, W): the previous and the present one; flow (N, 2, H, W): (x, y) pixels from present to previous."""
        from deploydcn.nn import deform_conv2d

        before, now = self.extract(frames[:, 0]), self.extract(frames[:, 1])
        prediction = self.offset_conv(torch.cat([self.warp(before, flow), now, flow], 1))
        residue = self.reach * torch.tanh(prediction[:, : 18 * self.groups])
        offset = residue + flow.flip(1).repeat(1, 9 * self.groups, 1, 1)  # (y, x) per tap
        mask = torch.sigmoid(prediction[:, 18 * self.groups :])
        return self.head(deform_conv2d(before, self.weight, offset, mask=mask, padding=1, offset_groups=self.groups))

    def warp(self, features: Tensor, flow: Tensor) -> Tensor:
        height, width = features.shape[-2:]
        y, x = torch.meshgrid(torch.arange(height, device=flow.device), torch.arange(width, device=flow.device), indexing="ij")
        grid = torch.stack([(x + flow[:, 0]) * 2 / max(width - 1, 1) - 1, (y + flow[:, 1]) * 2 / max(height - 1, 1) - 1], -1)
        return F.grid_sample(features, grid, align_corners=True)


def basicvsr() -> tuple[nn.Module, dict[str, Any]]:
    from seeding import seed_offsets

    model = FlowGuided()
    seed_offsets(model, pixels=0.1)  # times `reach`: about a pixel
    frames = torch.stack([image(48, 64), image(48, 64)], 1)
    flow = F.interpolate(torch.randn(1, 2, 4, 4) * 2, size=(48, 64), mode="bicubic")
    return model.eval(), {"frames": frames, "flow": flow}


X = {"x": IMAGE}
CLIP = {0: "n", 3: "h", 4: "w"}
MODELS = (
    Model("ResNet-50, deformable conv3 to conv5", "torchvision", resnet50, X, operators=DCN),
    Model("ResNet-18d, deformable", "timm", timm_resnet, X, operators=DCN),
    Model("RegNetY-200MF, deformable grouped", "timm", timm_regnet, X, operators=DCN),
    Model("ConvNeXt-Atto, deformable 7x7 depthwise", "timm", timm_convnext, X, operators=DCN),
    Model("MobileNetV2-0.5, deformable depthwise", "timm", timm_mobilenet, X, operators=DCN),
    Model("InternImage classifier", "own form", internimage, {"images": IMAGE}, quick=True, operators=("deploydcn::DCNv3",)),
    Model("BiRefNet-style ASPP decoder", "own form", birefnet, X, quick=True, operators=DCN),
    Model("EDVR alignment and restoration", "own form", edvr, {"clip": CLIP}, operators=DCN),
    Model("BasicVSR++-style flow-guided alignment", "own form", basicvsr, {"frames": CLIP, "flow": IMAGE}, quick=True, operators=DCN),
)
