"""mmcv (OpenMMLab): kernels behind its DeformConv2d, ModulatedDeformConv2d and their packs."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from deploydcn.export.frontends import Frontend
from deploydcn.nn import functional as F  # noqa: N812


def _deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    deform_groups: int,
    bias: bool = False,
    im2col_step: int = 32,  # how many images the kernel takes at once
) -> Tensor:
    data, weight = input.type_as(offset), weight.type_as(offset)
    return F.deform_conv2d(
        data, weight, offset, stride=stride, padding=padding, dilation=dilation, groups=groups, offset_groups=deform_groups
    )


def _deform_conv2d_before_bias(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    deform_groups: int,
    im2col_step: int = 32,
) -> Tensor:
    """mmcv before 1.3: the same without a `bias` that must be False."""
    return _deform_conv2d(input, offset, weight, stride, padding, dilation, groups, deform_groups)


def _modulated_deform_conv2d(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    deform_groups: int,
) -> Tensor:
    return F.deform_conv2d(
        input.type_as(offset),
        weight.type_as(offset),
        offset,
        bias=None if bias is None else bias.type_as(offset),
        mask=mask.type_as(offset),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        offset_groups=deform_groups,
    )


FRONTEND = Frontend(
    "mmcv",
    kernels=(
        ("*.DeformConv2dFunction", _deform_conv2d),
        ("*.DeformConv2dFunction", _deform_conv2d_before_bias),
        ("*.ModulatedDeformConv2dFunction", _modulated_deform_conv2d),
    ),
)
