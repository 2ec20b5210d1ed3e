"""Torch modules and functions for models built with deploydcn. Needs the extra `export` (torch, torchvision)."""

from deploydcn.nn.dialects import deform_conv2d_2017, paddle_deform_conv2d
from deploydcn.nn.functional import (
    dcnv3,
    dcnv4,
    deform_conv2d,
    deform_psroi_pool,
    deform_roi_pool,
    flash_deform_attn,
    grouped_conv2d,
    ms_deform_attn,
    separable_conv2d,
)
from deploydcn.nn.modules import DeformConv2d, SeparableConv2d
from deploydcn.nn.sharing import with_forward

__all__ = [
    "DeformConv2d",
    "SeparableConv2d",
    "dcnv3",
    "dcnv4",
    "deform_conv2d",
    "deform_conv2d_2017",
    "deform_psroi_pool",
    "deform_roi_pool",
    "flash_deform_attn",
    "grouped_conv2d",
    "ms_deform_attn",
    "paddle_deform_conv2d",
    "separable_conv2d",
    "with_forward",
]
