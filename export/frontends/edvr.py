"""Alignment packs of video restoration (EDVR, BasicSR, mmsr): offsets come from a second input, and a warning about large offsets
depends on their values, which a traced graph cannot."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from deploydcn.export.frontends import Frontend
from deploydcn.nn import functional as F  # noqa: N812
from deploydcn.nn import with_forward


def _align(module: Any, offset_conv: nn.Module, x: Tensor, feat: Tensor) -> Tensor:
    prediction = offset_conv(feat)
    rows, columns, mask = torch.chunk(prediction, 3, dim=1)
    offset = torch.cat((rows, columns), dim=1)
    taps = module.weight.shape[2] * module.weight.shape[3]
    return F.deform_conv2d(
        x,
        module.weight,
        offset,
        bias=module.bias,
        mask=torch.sigmoid(mask),
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
        groups=x.shape[1] // module.weight.shape[1],
        offset_groups=offset.shape[1] // (2 * taps),
    )


def _of_two_inputs(module: nn.Module) -> nn.Module | None:
    """forward(x, feat): basicsr.archs.arch_util.DCNv2Pack and its copies."""
    name = next((name for name in ("conv_offset", "conv_offset_mask") if isinstance(getattr(module, name, None), nn.Conv2d)), None)
    if name is None or not isinstance(getattr(module, "weight", None), Tensor) or module.weight.ndim != 4:
        return None

    def forward(self: Any, x: Tensor, feat: Tensor) -> Tensor:
        return _align(self, getattr(self, name), x, feat)

    return with_forward(module, forward)


def _of_a_pair(module: nn.Module) -> nn.Module | None:
    """forward([x, feat]): mmsr's pack with extra_offset_mask."""
    if not getattr(module, "extra_offset_mask", False):
        return None

    def forward(self: Any, x: list[Tensor]) -> Tensor:
        return _align(self, self.conv_offset_mask, x[0], x[1])

    return with_forward(module, forward)


FRONTEND = Frontend(
    "EDVR",
    modules={
        "*.DCNv2Pack": _of_two_inputs,
        "*.DCN_sep": _of_two_inputs,
        "*.ModulatedDeformConvPack": _of_a_pair,
    },
)
