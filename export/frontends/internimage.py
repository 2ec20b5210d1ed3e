"""InternImage: the kernel of DCNv3 and its PyTorch form."""

from __future__ import annotations

from torch import Tensor

from deploydcn.export.frontends import Frontend
from deploydcn.nn import functional as F  # noqa: N812


def _dcnv3(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
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
    im2col_step: int,  # how many images the kernel takes at once
    remove_center: int = 0,
) -> Tensor:
    return F.dcnv3(
        input,
        offset,
        mask,
        kernel_size=(kernel_h, kernel_w),
        stride=(stride_h, stride_w),
        padding=(pad_h, pad_w),
        dilation=(dilation_h, dilation_w),
        groups=group,
        offset_scale=float(offset_scale),
        remove_center=bool(remove_center),
    )


def _dcnv3_core_pytorch(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
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
    remove_center: int = 0,
) -> Tensor:
    """It differs from the kernel where pad_h != pad_w: then the comparison refuses it."""
    window = kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w
    return _dcnv3(input, offset, mask, *window, group, group_channels, offset_scale, 0, remove_center)


FRONTEND = Frontend(
    "InternImage",
    kernels=(("*.DCNv3Function", _dcnv3),),
    functions=(("*.dcnv3_core_pytorch", _dcnv3_core_pytorch),),
)
