"""Convolutions of 8-bit integers, exactly: every number below is a whole one or a position, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deploydcn.nn.eager.convolutions import activate


def qlinear_deform_conv2d(
    input: Tensor,
    input_scale: Tensor,
    input_zero_point: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    output_scale: Tensor,
    output_zero_point: Tensor,
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
    """Sample tap by tap, round, multiply. It has no gradients: rounding has none."""
    batch, channels, height, width = input.shape
    outputs, _, kernel_h, kernel_w = weight.shape
    out_height, out_width = offset.shape[2:]
    taps, positions = kernel_h * kernel_w, out_height * out_width
    image = (input.double() - input_zero_point.double()).reshape(batch, offset_groups, channels // offset_groups, height * width)
    shift = offset.double().reshape(batch, offset_groups, taps, 2, out_height, out_width)
    factor = None if mask is None else mask.double().reshape(batch, offset_groups, 1, taps, positions)
    rows = torch.arange(out_height, device=input.device, dtype=torch.float64)[:, None] * stride[0] - padding[0]
    columns = torch.arange(out_width, device=input.device, dtype=torch.float64) * stride[1] - padding[1]
    samples = image.new_zeros(batch, offset_groups, channels // offset_groups, taps, positions)
    for t in range(taps):
        y = rows + t // kernel_w * dilation[0] + shift[:, :, t, 0]
        x = columns + t % kernel_w * dilation[1] + shift[:, :, t, 1]
        samples[:, :, :, t] = _bilinear(image, y.flatten(2), x.flatten(2), height, width)
    if factor is not None:
        samples = samples * torch.where(factor.isfinite(), factor, 0.0)
    samples = _rounded(samples, input.dtype, input_zero_point).reshape(batch, groups, channels // groups * taps, positions)
    matrix = weight.double().reshape(groups, outputs // groups, -1)
    total = (matrix @ samples).reshape(batch, outputs, out_height, out_width)
    if bias is not None:
        total = total + bias.double()[:, None, None]
    real = activate(total * (input_scale.double() * weight_scale.double())[:, None, None], activation)
    units = _rounded(real / output_scale.double(), input.dtype, output_zero_point)
    return (units + output_zero_point.double()).to(input.dtype)


def _bilinear(image: Tensor, y: Tensor, x: Tensor, height: int, width: int) -> Tensor:
    """image (N, OG, C, H*W) at y, x (N, OG, P) -> (N, OG, C, P); everything outside the image is 0."""
    inside = (y > -1) & (y < height) & (x > -1) & (x < width)  # False for NaN
    y, x = (torch.where(inside, at, 0.0) for at in (y, x))
    total = image.new_zeros(*image.shape[:3], y.shape[-1])
    for row in (y.floor(), y.floor() + 1):
        for column in (x.floor(), x.floor() + 1):
            exists = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            weight = torch.where(exists, (1 - (y - row).abs()) * (1 - (x - column).abs()), 0.0)
            pixel = torch.where(exists, row * width + column, 0.0).long()
            total += weight[:, :, None] * image.gather(3, pixel[:, :, None].expand(*total.shape))
    return total


def _rounded(values: Tensor, dtype: torch.dtype, zero_point: Tensor) -> Tensor:
    """The nearest integers, half to even, that are in the type's range when the zero point is added; NaN becomes 0."""
    limits, zero = torch.iinfo(dtype), zero_point.double()
    finite = torch.where(values.isnan(), 0.0, values).round()
    return torch.minimum(torch.maximum(finite, limits.min - zero), limits.max - zero)
