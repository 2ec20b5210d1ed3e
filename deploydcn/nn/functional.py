"""Functional forms of the operators, with PyTorch's argument names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import deploydcn.nn.torch_ops  # noqa: F401  (defines torch.ops.deploydcn)
from deploydcn.errors import InvalidArgument

Pair = int | Sequence[int]


def pair(value: Pair, name: str) -> list[int]:
    """(h, w) from one number or two."""
    items = [value, value] if isinstance(value, int) else list(value)
    if len(items) != 2:
        raise InvalidArgument(f"{name} is {items}; wanted one number, or two: (h, w)")
    return items


def four_sides(value: Pair) -> list[int]:
    """(top, left, bottom, right) from one number, two (h, w) or four."""
    items = [value] if isinstance(value, int) else list(value)
    if len(items) not in (1, 2, 4):
        raise InvalidArgument(f"padding is {items}; wanted one number, two (h, w) or four (top, left, bottom, right)")
    return items * (4 // len(items))


def _autocast(input: Tensor, *others: Tensor | None) -> tuple[Any, ...]:
    """Under torch.autocast, tensors in its type, as torch's own convolutions take them; offsets stay precise."""
    device = input.device.type
    if not torch.is_autocast_enabled(device) or input.dtype == torch.float64:
        return input, *others
    dtype = torch.get_autocast_dtype(device)
    return tuple(None if tensor is None else tensor.to(dtype) for tensor in (input, *others))


def _beside(input: Tensor, offset: Tensor) -> Tensor:
    """Offsets in a type that the operators take beside this input: its own, or float32."""
    return offset if offset.dtype == input.dtype else offset.float()


def deform_conv2d(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    *,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    offset_groups: int = 1,
    activation: str = "",
) -> Tensor:
    """Deformable convolution: DCNv1 without mask (Dai et al. 2017), DCNv2 with (Zhu et al. 2019).

    Computed by torchvision's kernel in float32 or float64; in float32 it forms coordinates with 24 bits, so that results
    on a 900 pixels wide image are exact to about 1.5e-5 only (our own kernels do not have this error).

    Args:
        input: (N, C, H, W).
        weight: (M, C/groups, kH, kW).
        offset: (N, 2*offset_groups*kH*kW, oH, oW), pixels, (y, x) per tap; input's dtype or float32.
        bias: (M).
        mask: (N, offset_groups*kH*kW, oH, oW).
        stride, dilation: one number or (h, w).
        padding: one number, (h, w) or (top, left, bottom, right).
        activation: "", "relu", "relu6" or "silu".

    Returns:
        (N, M, oH, oW), oH = (H + top + bottom - dilation*(kH - 1) - 1) // stride + 1.

    Raises:
        InvalidArgument: shapes, dtypes or options do not fit.
    """
    input, weight, bias, mask = _autocast(input, weight, bias, mask)
    output: Tensor = torch.ops.deploydcn.deform_conv2d(
        input,
        weight,
        _beside(input, offset),
        bias,
        mask,
        pair(stride, "stride"),
        four_sides(padding),
        pair(dilation, "dilation"),
        groups,
        offset_groups,
        activation,
    )
    return output


def grouped_conv2d(
    input: Tensor,
    weight: Tensor,
    *,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    activation: str = "",
) -> Tensor:
    """Grouped (groups = C: depthwise) convolution with a fused activation; arguments as in `deform_conv2d`."""
    input, weight, bias = _autocast(input, weight, bias)
    output: Tensor = torch.ops.deploydcn.grouped_conv2d(
        input, weight, bias, pair(stride, "stride"), four_sides(padding), pair(dilation, "dilation"), groups, activation
    )
    return output


def deform_roi_pool(
    input: Tensor,
    rois: Tensor,
    offset: Tensor | None = None,
    *,
    output_size: Pair,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    gamma: float = 0.1,
    mask: Tensor | None = None,
) -> Tensor:
    """Deformable RoI pooling in mmcv's continuous form (Dai et al. 2017); see OPERATORS.md for what is sampled where.

    Args:
        input: (N, C, H, W).
        rois: (R, 5), (batch index, x1, y1, x2, y2) in units of 1/spatial_scale pixels of `input`; input's dtype or float32.
        offset: (R, 2, pH, pW), (x, y) by which each bin moves, in units of gamma times its box' sides.
        output_size: (pH, pW), or one number for both.
        sampling_ratio: samples of a bin along each axis; 0: about one per pixel.
        mask: (R, 1 or C, pH, pW), multiplies the output (the modulated form).

    Returns:
        (R, C, pH, pW).

    Raises:
        InvalidArgument: shapes, dtypes or options do not fit, or a box names no image of the batch.
    """
    input, mask = _autocast(input, mask)
    rois, offset = _positions(input, rois, offset)
    height, width = pair(output_size, "output_size")
    output: Tensor = torch.ops.deploydcn.deform_roi_pool(input, rois, offset, height, width, spatial_scale, sampling_ratio, gamma)
    return output if mask is None else output * mask


def deform_psroi_pool(
    input: Tensor,
    rois: Tensor,
    offset: Tensor | None = None,
    *,
    spatial_scale: float,
    output_dim: int,
    pooled_size: int,
    group_size: int = 1,
    part_size: int | None = None,
    sample_per_part: int = 4,
    trans_std: float = 0.0,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Deformable position-sensitive RoI pooling (Dai et al. 2017); see OPERATORS.md for what is sampled where.

    Args:
        input: (N, output_dim*group_size^2, H, W).
        rois: (R, 5), (batch index, x1, y1, x2, y2) in units of 1/spatial_scale pixels of `input`; input's dtype or float32.
        offset: (R, 2*classes, part_size, part_size), (x, y) by which bins move, in units of trans_std times their box' sides;
            output channels are shared out among the classes.
        part_size: pooled_size when None.
        mask: (R, 1 or output_dim, pooled_size, pooled_size), multiplies the output (the modulated form).

    Returns:
        (output, count), each (R, output_dim, pooled_size, pooled_size); count is the number of samples averaged.

    Raises:
        InvalidArgument: shapes, dtypes or options do not fit, or a box names no image of the batch.
    """
    input, mask = _autocast(input, mask)
    rois, offset = _positions(input, rois, offset)
    classes = 1 if offset is None else offset.shape[1] // 2
    parts = pooled_size if part_size is None else part_size
    output, count = torch.ops.deploydcn.deform_psroi_pool(
        input, rois, offset, spatial_scale, output_dim, group_size, pooled_size, parts, sample_per_part, trans_std, classes
    )
    return output if mask is None else output * mask, count


def _positions(input: Tensor, rois: Tensor, offset: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Boxes and offsets in one type: the input's if both have it, else float32."""
    same = rois.dtype == input.dtype and (offset is None or offset.dtype == input.dtype)
    dtype = input.dtype if same else torch.float32
    return rois.to(dtype), None if offset is None else offset.to(dtype)


def dcnv3(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    *,
    kernel_size: Pair = 3,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    offset_scale: float = 1.0,
    remove_center: bool = False,
) -> Tensor:
    """The core of InternImage's deformable convolution (Wang et al. 2023), channels last; OPERATORS.md has the formula.

    Args:
        input: (N, H, W, C).
        offset: (N, oH, oW, 2*groups*P), pixels, (x, y) per tap; input's dtype or float32. P = kH*kW, one less with `remove_center`;
            taps are numbered column by column.
        mask: (N, oH, oW, groups*P); a softmax over the P taps of a group is the caller's.
        kernel_size, stride, dilation: one number or (h, w).
        padding: one number, (h, w) or (top, left, bottom, right).
        offset_scale: stretches the window and its offsets about the centre.
        remove_center: leave out tap (kH//2, kW//2).

    Returns:
        (N, oH, oW, C), oH = (H + top + bottom - dilation*(kH - 1) - 1) // stride + 1.

    Raises:
        InvalidArgument: shapes, dtypes or options do not fit.
    """
    input, mask = _autocast(input, mask)
    output: Tensor = torch.ops.deploydcn.dcnv3(
        input,
        _beside(input, offset),
        mask,
        pair(kernel_size, "kernel_size"),
        pair(stride, "stride"),
        four_sides(padding),
        pair(dilation, "dilation"),
        groups,
        offset_scale,
        int(remove_center),
    )
    return output
