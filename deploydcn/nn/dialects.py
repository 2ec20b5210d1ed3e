"""The convolutions of other frameworks, in terms of `deform_conv2d`: their border rules and argument orders."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deploydcn.nn.functional import Pair, deform_conv2d, four_sides, pair


def sampling_positions(
    offset: Tensor, kernel_size: Sequence[int], stride: Pair, padding: Pair, dilation: Pair, offset_groups: int
) -> tuple[Tensor, Tensor]:
    """Where `deform_conv2d` samples, in pixels of the input, and the part of it that is not the offset.

    Returns:
        Both (N, offset_groups, kH*kW, 2, oH, oW), the axis of 2 being (y, x); float32 at least. The second has N = offset_groups = 1.
    """
    kernel_h, kernel_w = kernel_size
    top, left, _, _ = four_sides(padding)
    rows, columns = offset.shape[2:]
    offset = offset if offset.dtype == torch.float64 else offset.float()
    (stride_h, stride_w), (dilation_h, dilation_w) = pair(stride, "stride"), pair(dilation, "dilation")

    def axis(size: int, step: int) -> Tensor:
        return torch.arange(size, device=offset.device, dtype=offset.dtype) * step

    y = (axis(rows, stride_h) - top)[None, :] + axis(kernel_h, dilation_h)[:, None]  # (kH, oH)
    x = (axis(columns, stride_w) - left)[None, :] + axis(kernel_w, dilation_w)[:, None]  # (kW, oW)
    shape = (kernel_h, kernel_w, rows, columns)
    grid = torch.stack([y[:, None, :, None].expand(shape), x[None, :, None, :].expand(shape)], dim=2)
    base = grid.reshape(1, 1, kernel_h * kernel_w, 2, rows, columns)
    return base + offset.reshape(offset.shape[0], offset_groups, kernel_h * kernel_w, 2, rows, columns), base


def offset_with_border_of_2017(
    offset: Tensor, size: Sequence[int], kernel_size: Sequence[int], stride: Pair, padding: Pair, dilation: Pair, offset_groups: int
) -> Tensor:
    """Offsets with which `deform_conv2d` computes what the first deformable convolution did with `offset`: the same where the sample lies
    between pixels; rounded down where it lies above or left of the first pixel (which gives zero), or beyond the last one
    (which gives that pixel, without fading out).

    Args:
        offset: (N, 2*offset_groups*kH*kW, oH, oW).
        size: the input's (H, W).
    """
    position, base = sampling_positions(offset, kernel_size, stride, padding, dilation, offset_groups)
    last = torch.stack([torch.scalar_tensor(length - 1, dtype=position.dtype, device=offset.device) for length in size]).reshape(2, 1, 1)
    outside = (position < 0) | (position > last)
    moved = (position.floor() - base).reshape(offset.shape).to(offset.dtype)
    return torch.where(outside.reshape(offset.shape), moved, offset)


def deform_conv2d_2017(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    *,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    offset_groups: int = 1,
) -> Tensor:
    """The deformable convolution of 2017 (Dai et al., msracver/Deformable-ConvNets, MXNet): a sample with y < 0 or y >= H
    is zero, and in [H-1, H) it is the last row's (same for x). All later ones fade to zero within one pixel instead.

    Arguments, shapes and errors as in `deform_conv2d`.
    """
    kernel = weight.shape[2:]
    moved = offset_with_border_of_2017(offset, input.shape[2:], kernel, stride, padding, dilation, offset_groups)
    return deform_conv2d(
        input,
        weight,
        moved,
        bias=bias,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        offset_groups=offset_groups,
    )


def paddle_deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    deformable_groups: int = 1,
    groups: int = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """`deform_conv2d` with the arguments of paddle.vision.ops.deform_conv2d, in its order, for models rebuilt from PaddlePaddle.

    Weights, offsets and masks have the same layout there: torch.from_numpy(layer.weight.numpy()) is all it takes.
    """
    return deform_conv2d(
        x,
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
