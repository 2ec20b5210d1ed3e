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


def _positions(input: Tensor, *positions: Tensor | None) -> tuple[Any, ...]:
    """Sampling positions in one type that the operators take beside this input: its own if all have it, else float32."""
    same = all(tensor is None or tensor.dtype == input.dtype for tensor in positions)
    dtype = input.dtype if same else torch.float32
    return tuple(None if tensor is None else tensor.to(dtype) for tensor in positions)


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
        *_positions(input, offset),
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


def separable_conv2d(
    input: Tensor,
    depthwise_weight: Tensor,
    pointwise_weight: Tensor,
    *,
    depthwise_bias: Tensor | None = None,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    depthwise_activation: str = "",
    activation: str = "",
) -> Tensor:
    """Depthwise convolution, then a pointwise one (Chollet 2017), as one operator.

    Args:
        input: (N, C, H, W).
        depthwise_weight: (D, 1, kH, kW), D a multiple of C: result d reads channel d // (D/C).
        pointwise_weight: (M, D, 1, 1).
        depthwise_bias: (D).
        bias: (M).
        stride, padding, dilation: of the depthwise convolution, as in `deform_conv2d`.
        depthwise_activation, activation: behind the first and the second convolution: "", "relu", "relu6" or "silu".

    Returns:
        (N, M, oH, oW).

    Raises:
        InvalidArgument: shapes, dtypes or options do not fit.
    """
    tensors = _autocast(input, depthwise_weight, pointwise_weight, depthwise_bias, bias)
    window = pair(stride, "stride"), four_sides(padding), pair(dilation, "dilation")
    output: Tensor = torch.ops.deploydcn.separable_conv2d(*tensors, *window, depthwise_activation, activation)
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
    # An offset that has no classes is left to the operator, whose shape check explains it.
    classes = 1 if offset is None or offset.dim() != 4 else max(1, offset.shape[1] // 2)
    parts = pooled_size if part_size is None else part_size
    output, count = torch.ops.deploydcn.deform_psroi_pool(
        input, rois, offset, spatial_scale, output_dim, group_size, pooled_size, parts, sample_per_part, trans_std, classes
    )
    return output if mask is None else output * mask, count


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
        *_positions(input, offset),
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


def dcnv4(
    input: Tensor,
    offset_mask: Tensor,
    *,
    kernel_size: Pair = 3,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    offset_scale: float = 1.0,
    remove_center: bool = False,
    softmax: bool = False,
) -> Tensor:
    """The core of DCNv4 (Xiong et al. 2024), channels last: `dcnv3` with offsets and masks in one tensor; arguments as there, and

    Args:
        offset_mask: (N, oH, oW, 3*groups*P rounded up to a multiple of 8), input's dtype or float32. Group g has channels
            [3*g*P, 3*(g + 1)*P): 2*P offsets in pixels, (x, y) per tap, then P masks. What fills the channels up is not read.
        softmax: the masks of a group are the softmax of those given.
    """
    (input,) = _autocast(input)
    output: Tensor = torch.ops.deploydcn.dcnv4(
        input,
        *_positions(input, offset_mask),
        pair(kernel_size, "kernel_size"),
        pair(stride, "stride"),
        four_sides(padding),
        pair(dilation, "dilation"),
        groups,
        offset_scale,
        int(remove_center),
        int(softmax),
    )
    return output


def ms_deform_attn(
    value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Multi-scale deformable attention (Zhu et al. 2021, Deformable DETR), between its projections.

    Args:
        value: (N, S, M, D), M heads of D channels; the levels' pixels row by row.
        spatial_shapes: (L, 2) int64, (height, width) of each level.
        level_start_index: (L) int64, the first pixel of each level in `value`.
        sampling_locations: (N, Q, M, L, P, 2), (x, y), 0 and 1 at the level's borders; value's dtype or float32.
        attention_weights: (N, Q, M, L, P).

    Returns:
        (N, Q, M*D).

    Raises:
        InvalidArgument: shapes or dtypes do not fit, or a level does not lie in `value`.
    """
    value, attention_weights = _autocast(value, attention_weights)
    output: Tensor = torch.ops.deploydcn.ms_deform_attn(
        value, spatial_shapes, level_start_index, *_positions(value, sampling_locations), attention_weights
    )
    return output


def flash_deform_attn(value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, sampling: Tensor, *, points: int) -> Tensor:
    """DCNv4's FlashDeformAttn: `ms_deform_attn` with locations and logits in one tensor; composed of slices, a softmax and that.

    Args:
        sampling: (N, Q, M, 3*L*points), per head 2*L*points locations, (x, y) per point, then L*points logits, whose softmax
            over all levels and points weights them.
        points: per level.

    Returns:
        (N, Q, M*D).
    """
    levels = spatial_shapes.shape[0]
    if sampling.shape[-1] != 3 * levels * points:
        raise InvalidArgument(f"sampling has {sampling.shape[-1]} numbers per head; wanted {3 * levels * points} = 3 * levels * points")
    shape = (*sampling.shape[:-1], levels, points)
    locations = sampling[..., : 2 * levels * points].reshape(*shape, 2)
    precise = torch.float64 if value.dtype == torch.float64 else torch.float32
    weights = sampling[..., 2 * levels * points :].softmax(-1, dtype=precise).to(value.dtype).reshape(shape)
    return ms_deform_attn(value, spatial_shapes, level_start_index, locations, weights)
