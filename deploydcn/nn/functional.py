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
    if offset.dtype != input.dtype:
        offset = offset.float()
    output: Tensor = torch.ops.deploydcn.deform_conv2d(
        input,
        weight,
        offset,
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
