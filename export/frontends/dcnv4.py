"""DCNv4 and its flash attention (OpenGVLab/DCNv4): kernels."""

from __future__ import annotations

from torch import Tensor

from deploydcn.export.frontends import Frontend
from deploydcn.nn import functional as F  # noqa: N812


def _dcnv4(
    input: Tensor,
    offset_mask: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    group_channels: int,
    offset_scale: float,
    im2col_step: int,
    remove_center: int,
) -> Tensor:
    """The published kernel can softmax the mask; the published Function never asks for it."""
    return F.dcnv4(
        input,
        offset_mask,
        kernel_size=(kernel_h, kernel_w),
        stride=(stride_h, stride_w),
        padding=(pad_h, pad_w),
        dilation=(dilation_h, dilation_w),
        groups=group,
        offset_scale=float(offset_scale),
        remove_center=bool(remove_center),
    )


def _flash_deform_attn(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_loc_attn: Tensor,
    im2col_step: int,
    K: int = 8,  # noqa: N803  (points per level)
) -> Tensor:
    return F.flash_deform_attn(value, value_spatial_shapes.long(), value_level_start_index.long(), sampling_loc_attn, points=K)


FRONTEND = Frontend(
    "DCNv4",
    kernels=(("*.DCNv4Function", _dcnv4), ("*.FlashDeformAttnFunction", _flash_deform_attn)),
)
