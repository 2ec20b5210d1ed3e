"""Deformable attention in its three forms, point by point: each is a sum over points of weight * bilinear sample.

Positions are float64 whatever the data is (float32 would lose 1.5e-5 of a pixel on an image 900 pixels wide), samples and sums
float32 at least.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from deploydcn.ops.ms_deform_attn.spec import check_levels


class Level(NamedTuple):
    """The pixels [start, start + height * width) of a value."""

    start: int
    height: int
    width: int


def dcnv3(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    offset_scale: float,
    remove_center: int,
) -> Tensor:
    """One level, the image; a head per group; a point per tap."""
    n, height, width, channels = input.shape
    _, out_height, out_width, _ = mask.shape
    (kernel_h, kernel_w), (dilation_h, dilation_w) = kernel_size, dilation
    reach_h, reach_w = dilation_h * (kernel_h - 1) // 2, dilation_w * (kernel_w - 1) // 2
    rows = torch.arange(out_height, device=input.device, dtype=torch.float64) * stride[0] - padding[0] + reach_h
    columns = torch.arange(out_width, device=input.device, dtype=torch.float64) * stride[1] - padding[1] + reach_w
    rows, columns = rows[:, None, None], columns[:, None]
    taps = [(i, j) for j in range(kernel_w) for i in range(kernel_h) if not (remove_center and (i, j) == (kernel_h // 2, kernel_w // 2))]
    offset = offset.reshape(n, out_height, out_width, groups, len(taps), 2).double()
    value = _precise(input).reshape(n, height * width, groups, channels // groups)
    mask = mask.reshape(n, out_height * out_width, groups, len(taps)).to(value.dtype)
    output = value.new_zeros(n, out_height * out_width, groups, channels // groups)
    for p, (i, j) in enumerate(taps):
        y = rows + ((i * dilation_h - reach_h) + offset[..., p, 1]) * offset_scale
        x = columns + ((j * dilation_w - reach_w) + offset[..., p, 0]) * offset_scale
        output = output + mask[..., p, None] * _sample(value, Level(0, height, width), y.flatten(1, 2), x.flatten(1, 2))
    return output.reshape(n, out_height, out_width, channels).to(input.dtype)


def dcnv4(
    input: Tensor,
    offset_mask: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    offset_scale: float,
    remove_center: int,
    softmax: int,
) -> Tensor:
    """DCNv3 on slices of the one tensor."""
    points = kernel_size[0] * kernel_size[1] - remove_center
    n, out_height, out_width, _ = offset_mask.shape
    both = offset_mask[..., : 3 * groups * points].reshape(n, out_height, out_width, groups, 3 * points)
    offset, mask = both[..., : 2 * points], both[..., 2 * points :].to(_precise(input).dtype)
    mask = mask.softmax(-1) if softmax else mask
    window = (kernel_size, stride, padding, dilation, groups, offset_scale, remove_center)
    return dcnv3(input, offset.flatten(3), mask.flatten(3), *window)


def ms_deform_attn(
    value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Level by level, point by point."""
    shapes, starts = spatial_shapes.tolist(), level_start_index.tolist()
    check_levels(shapes, starts, value.shape[1])
    precise = _precise(value)
    locations, weights = sampling_locations.double(), attention_weights.to(precise.dtype)
    n, queries, heads, _, points = attention_weights.shape
    output = precise.new_zeros(n, queries, heads, value.shape[-1])
    for index, ((height, width), start) in enumerate(zip(shapes, starts, strict=True)):
        for p in range(points):
            y = locations[:, :, :, index, p, 1] * height - 0.5
            x = locations[:, :, :, index, p, 0] * width - 0.5
            output = output + weights[:, :, :, index, p, None] * _sample(precise, Level(start, height, width), y, x)
    return output.flatten(2).to(value.dtype)


def _precise(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _sample(value: Tensor, level: Level, y: Tensor, x: Tensor) -> Tensor:
    """value (N, S, M, D) at y, x (N, Q, M), pixels of the level -> (N, Q, M, D); corners outside are 0, and so are NaN positions."""
    inside = (y > -1) & (y < level.height) & (x > -1) & (x < level.width)  # False for NaN
    y, x = torch.where(inside, y, 0), torch.where(inside, x, 0)
    top, left = y.detach().floor(), x.detach().floor()
    below, right = y - top, x - left
    total = value.new_zeros(*y.shape, value.shape[-1])
    for dy in (0, 1):
        for dx in (0, 1):
            row, column = top + dy, left + dx
            exists = inside & (row >= 0) & (row < level.height) & (column >= 0) & (column < level.width)
            index = torch.where(exists, level.start + row * level.width + column, 0).long()
            corner = torch.gather(value, 1, index[..., None].expand(-1, -1, -1, value.shape[-1]))
            weight = (below if dy else 1 - below) * (right if dx else 1 - right)
            total = total + torch.where(exists[..., None], weight[..., None].to(value.dtype) * corner, 0)
    return total
