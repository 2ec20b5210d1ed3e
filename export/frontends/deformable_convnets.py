"""Kernels descended from Deformable-ConvNets, one Function each for v1 and v2: detectron2, BasicSR, mmdetection 1, maskrcnn-benchmark,
Deformable-Convolution-V2-PyTorch. They agree on what is computed and differ in names and in the order of arguments."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from deploydcn.export.frontends import Frontend
from deploydcn.nn import functional as F  # noqa: N812


def _deform_conv(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    deformable_groups: int,
    im2col_step: int = 64,  # how many images the kernel takes at once
) -> Tensor:
    return F.deform_conv2d(
        input, weight, offset, stride=stride, padding=padding, dilation=dilation, groups=groups, offset_groups=deformable_groups
    )


def _modulated_deform_conv(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    deformable_groups: int,
    im2col_step: int = 64,
) -> Tensor:
    return F.deform_conv2d(
        input,
        weight,
        offset,
        bias=bias,
        mask=mask,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        offset_groups=deformable_groups,
    )


def _deform_conv_with_bias(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    group: int,
    deformable_groups: int,
    im2col_step: int,
) -> Tensor:
    return F.deform_conv2d(
        input, weight, offset, bias=bias, stride=stride, padding=padding, dilation=dilation, groups=group, offset_groups=deformable_groups
    )


FRONTEND = Frontend(
    "Deformable-ConvNets",
    kernels=(
        ("*._DeformConv", _deform_conv),
        ("*.DeformConvFunction", _deform_conv),
        ("*.DeformConvFunction", _deform_conv_with_bias),
        ("*._ModulatedDeformConv", _modulated_deform_conv),
        ("*.ModulatedDeformConvFunction", _modulated_deform_conv),
    ),
)
