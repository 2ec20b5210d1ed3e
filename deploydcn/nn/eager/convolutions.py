"""Convolutions, by torchvision's and torch's kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
import torchvision
from torch import Tensor

from deploydcn.ops.deform_conv2d import SPEC as DEFORM_CONV2D

FAR_OUTSIDE = 1e9
"""A coordinate outside every image: what NaN and infinite offsets become. torchvision reads out of bounds on NaN."""


def deform_conv2d(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    offset_groups: int,
    activation: str,
) -> Tensor:
    """torchvision's kernel, in float32 at least: in half precision it would round coordinates.

    torchvision takes one padding per axis. A sample beyond an image's edge is zero exactly where it is zero on the
    image padded with zeros, so the rest of a four-sided padding is added explicitly.
    """
    if input.shape[0] == 0:
        shape = DEFORM_CONV2D.output_shapes(
            {"X": input.shape, "W": weight.shape}, {"strides": stride, "pads": padding, "dilations": dilation}
        )
        return input.new_zeros(shape[0])
    dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
    top, left, bottom, right = padding
    rows, columns = min(top, bottom), min(left, right)
    padded = F.pad(input.to(dtype), (left - columns, right - columns, top - rows, bottom - rows))
    finite = torch.nan_to_num(offset.to(dtype), nan=FAR_OUTSIDE, posinf=FAR_OUTSIDE, neginf=-FAR_OUTSIDE)
    output = torchvision.ops.deform_conv2d(
        padded,
        finite,
        weight.to(dtype),
        None if bias is None else bias.to(dtype),
        tuple(stride),
        (rows, columns),
        tuple(dilation),
        None if mask is None else mask.to(dtype),
    )
    return activate(output, activation).to(input.dtype)


def grouped_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    activation: str,
) -> Tensor:
    """torch's own convolution on an explicitly padded input."""
    top, left, bottom, right = padding
    padded = F.pad(input, (left, right, top, bottom))
    return activate(F.conv2d(padded, weight, bias, tuple(stride), 0, tuple(dilation), groups), activation)


def separable_conv2d(
    input: Tensor,
    depthwise_weight: Tensor,
    pointwise_weight: Tensor,
    depthwise_bias: Tensor | None,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    depthwise_activation: str,
    activation: str,
) -> Tensor:
    """torch's own convolutions, the result between them in float32 at least, as our kernels keep it."""
    dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
    depthwise_bias, bias = (None if tensor is None else tensor.to(dtype) for tensor in (depthwise_bias, bias))
    top, left, bottom, right = padding
    padded = F.pad(input.to(dtype), (left, right, top, bottom))
    depthwise = F.conv2d(padded, depthwise_weight.to(dtype), depthwise_bias, tuple(stride), 0, tuple(dilation), input.shape[1])
    output = F.conv2d(activate(depthwise, depthwise_activation), pointwise_weight.to(dtype), bias)
    return activate(output, activation).to(input.dtype)


def activate(y: Tensor, activation: str) -> Tensor:
    """The activation of this name; none for ""."""
    if activation == "relu":
        return F.relu(y)
    if activation == "relu6":
        return F.relu6(y)
    # One new tensor per call: an operator's output must not alias its input.
    return F.silu(y) if activation == "silu" else y
