"""Layers as other frameworks have them: their class names, parameters and conventions, written for these tests.

The Functions stand for compiled extensions. Uncompiled, they raise, as an extension that is missing does; `compiled()` lets
them compute, with torchvision's kernel.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
import torchvision
from torch import Tensor, nn
from torch.autograd import Function

_COMPILED = [False]


@contextlib.contextmanager
def compiled() -> Iterator[None]:
    _COMPILED[0] = True
    try:
        yield
    finally:
        _COMPILED[0] = False


def require_compiled() -> None:
    if not _COMPILED[0]:
        raise RuntimeError("the extension is not compiled")


def extension(input: Tensor, offset: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, mask: Any) -> Tensor:
    require_compiled()
    return torchvision.ops.deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask)


# ---------------------------------------------------------------------------------------------------- CharlesShang/DCNv2
class _DCNv2(Function):
    @staticmethod
    def forward(ctx, input, offset, mask, weight, bias, stride, padding, dilation, deformable_groups):
        return extension(input, offset, weight, bias, stride, padding, dilation, mask)


class DCNv2(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size, stride, padding, dilation=1, deformable_groups=1) -> None:
        super().__init__()
        self.stride, self.padding, self.dilation, self.deformable_groups = stride, padding, dilation, deformable_groups
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size) * 0.2)
        self.bias = nn.Parameter(torch.randn(out_channels))

    def forward(self, input, offset, mask):
        return _DCNv2.apply(input, offset, mask, self.weight, self.bias, self.stride, self.padding, self.dilation, self.deformable_groups)


class DCN(DCNv2):
    """Its offset convolution has no dilation."""

    def __init__(self, in_channels, out_channels, kernel_size, stride, padding, dilation=1, deformable_groups=1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, deformable_groups)
        channels = deformable_groups * 3 * kernel_size * kernel_size
        self.conv_offset_mask = nn.Conv2d(in_channels, channels, kernel_size, stride, padding)

    def forward(self, input):
        first, second, mask = torch.chunk(self.conv_offset_mask(input), 3, dim=1)
        return super().forward(input, torch.cat((first, second), dim=1), torch.sigmoid(mask))


# ------------------------------------------------------------------------------------------------------------ EDVR, mmsr
class DCN_sep(DCNv2):  # noqa: N801
    """Offsets and masks of other features; a warning that depends on them."""

    def __init__(self, in_channels, out_channels, kernel_size, stride, padding, dilation=1, deformable_groups=1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, deformable_groups)
        channels = deformable_groups * 3 * kernel_size * kernel_size
        self.conv_offset_mask = nn.Conv2d(in_channels, channels, kernel_size, stride, padding, dilation)

    def aligned(self, input, fea):
        first, second, mask = torch.chunk(self.conv_offset_mask(fea), 3, dim=1)
        offset = torch.cat((first, second), dim=1)
        if torch.mean(torch.abs(offset)) > 100:
            print("large offsets")
        return DCNv2.forward(self, input, offset, torch.sigmoid(mask))

    def forward(self, input, fea):
        return self.aligned(input, fea)


class ModulatedDeformConvPack(DCN_sep):
    """The same with both in one list."""

    extra_offset_mask = True

    def forward(self, x):
        return self.aligned(x[0], x[1])


# ------------------------------------------------------------------------------------------------------------- detectron2
class _DeformConv(Function):
    @staticmethod
    def forward(ctx, input, offset, weight, stride=1, padding=0, dilation=1, groups=1, deformable_groups=1, im2col_step=64):
        return extension(input, offset, weight, None, stride, padding, dilation, None)


class _ModulatedDeformConv(Function):
    @staticmethod
    def forward(ctx, input, offset, mask, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, deformable_groups=1):
        return extension(input, offset, weight, bias, stride, padding, dilation, mask)


class DeformConv(nn.Module):
    """norm and activation run inside forward."""

    function: Any = _DeformConv

    def __init__(
        self, in_channels, out_channels, kernel_size, stride=1, padding=0, groups=1, deformable_groups=1, norm=None, activation=None
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.groups, self.deformable_groups = stride, padding, groups, deformable_groups
        self.norm, self.activation = norm, activation
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels // groups, kernel_size, kernel_size) * 0.2)

    def finish(self, x):
        x = x if self.norm is None else self.norm(x)
        return x if self.activation is None else self.activation(x)

    def forward(self, x, offset):
        pair = lambda value: (value, value)  # noqa: E731
        return self.finish(
            self.function.apply(x, offset, self.weight, pair(self.stride), pair(self.padding), pair(1), self.groups, self.deformable_groups)
        )


class ModulatedDeformConv(DeformConv):
    function = _ModulatedDeformConv

    def forward(self, x, offset, mask):
        return self.finish(
            self.function.apply(x, offset, mask, self.weight, None, self.stride, self.padding, 1, self.groups, self.deformable_groups)
        )


# --------------------------------------------------------------------------------------------- Deformable-Convolution-V2-PyTorch
class DeformConvFunction(Function):
    """v1 with a bias and no defaults: another one than mmdetection's of the same name."""

    @staticmethod
    def forward(ctx, input, offset, weight, bias, stride, padding, dilation, group, deformable_groups, im2col_step):
        return extension(input, offset, weight, bias, stride, padding, dilation, None)


# ---------------------------------------------------------------------------------------------------------- plain PyTorch
def gathered(padded: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """padded (N, C, H, W) at whole positions (N, T, oH, oW) -> (N, C, T, oH, oW)."""
    batch, channels, _, columns = padded.shape
    index = (y * columns + x).long().reshape(batch, 1, -1).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, index).reshape(batch, channels, *y.shape[1:])


def sampled(padded: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Four corners, each clamped to the image; weights from the clamped position, as the tutorials have it: where both neighbours
    are clamped to one pixel, it counts twice."""
    limits = padded.shape[2] - 1, padded.shape[3] - 1
    low = [position.detach().floor() for position in (y, x)]
    corners = [(first.clamp(0, limit), (first + 1).clamp(0, limit)) for first, limit in zip(low, limits, strict=True)]
    inside = [position.clamp(0, limit) for position, limit in zip((y, x), limits, strict=True)]
    weights = [(1 + (first - p), 1 - (second - p)) for (first, second), p in zip(corners, inside, strict=True)]
    total = 0
    for row in (0, 1):
        for column in (0, 1):
            share = (weights[0][row] * weights[1][column])[:, None]
            total = total + share * gathered(padded, corners[0][row], corners[1][column])
    return total


def window(kernel: int, rows: int, columns: int, stride: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Positions in the padded image before offsets: (1, K*K, oH, oW) each."""
    taps = torch.arange(-(kernel // 2), -(kernel // 2) + kernel).to(like)
    centre = [(torch.arange(size) * stride + 1).to(like) for size in (rows, columns)]
    shape = (kernel, kernel, rows, columns)
    y = (taps[:, None, None, None] + centre[0][:, None]).expand(shape)
    x = (taps[None, :, None, None] + centre[1]).expand(shape)
    return y.reshape(1, -1, rows, columns), x.reshape(1, -1, rows, columns)


def convolved(values: Tensor, conv: nn.Conv2d) -> Tensor:
    """(N, C, K*K, oH, oW) -> the tutorials' trick: K x K samples laid out as an image, then a convolution of stride K."""
    kernel = conv.kernel_size[0]
    batch, channels, _, rows, columns = values.shape
    tiles = values.reshape(batch, channels, kernel, kernel, rows, columns).permute(0, 1, 4, 2, 5, 3)
    return conv(tiles.reshape(batch, channels, rows * kernel, columns * kernel))


class DeformConv2d(nn.Module):
    """Predicts [all rows | all columns] from a 3x3 convolution."""

    def __init__(self, inc, outc, kernel_size=3, padding=1, stride=1, bias=None, modulation=False) -> None:
        super().__init__()
        self.kernel_size, self.padding, self.stride, self.modulation = kernel_size, padding, stride, modulation
        self.conv = nn.Conv2d(inc, outc, kernel_size, stride=kernel_size, bias=bool(bias))
        self.p_conv = nn.Conv2d(inc, 2 * kernel_size * kernel_size, 3, padding=1, stride=stride)
        if modulation:
            self.m_conv = nn.Conv2d(inc, kernel_size * kernel_size, 3, padding=1, stride=stride)

    def border(self, y: Tensor, x: Tensor, padded: Tensor) -> tuple[Tensor, Tensor]:
        return y, x

    def forward(self, x):
        offset = self.p_conv(x)
        rows, columns = offset.shape[2:]
        padded = F.pad(x, [self.padding] * 4)
        y, column = (a + b for a, b in zip(window(self.kernel_size, rows, columns, self.stride, x), offset.chunk(2, 1), strict=True))
        values = sampled(padded, *self.border(y, column, padded))
        if self.modulation:
            values = values * torch.sigmoid(self.m_conv(x))[:, None]
        return convolved(values, self.conv)


class Elsewhere:
    class DeformConv2d(DeformConv2d):
        """The same name in another project, with another rule: positions in the padding are rounded down."""

        def border(self, y: Tensor, x: Tensor, padded: Tensor) -> tuple[Tensor, Tensor]:
            return tuple(rounded_in_border(p, size, self.padding) for p, size in zip((y, x), padded.shape[2:], strict=True))

        def forward(self, x):
            return super().forward(x)


def rounded_in_border(position: Tensor, size: int, padding: int) -> Tensor:
    return torch.where((position < padding) | (position > size - 1 - padding), position.floor(), position)


class DeformConv2D(nn.Module):
    """The older one: offsets are given, (row, column) per tap."""

    def __init__(self, inc, outc, kernel_size=3, padding=1, bias=None) -> None:
        super().__init__()
        self.kernel_size, self.padding = kernel_size, padding
        self.conv_kernel = nn.Conv2d(inc, outc, kernel_size, stride=kernel_size, bias=bool(bias))

    def forward(self, x, offset):
        padded = F.pad(x, [self.padding] * 4)
        start = window(self.kernel_size, *offset.shape[2:], 1, x)
        y, column = (
            rounded_in_border(a + b, size, self.padding)
            for a, b, size in zip(start, (offset[:, 0::2], offset[:, 1::2]), padded.shape[2:], strict=True)
        )
        return convolved(sampled(padded, y, column), self.conv_kernel)


class ConvOffset2D(nn.Conv2d):
    """One offset per channel and pixel, read from the convolution's memory as (C, H, W, 2); the edge is repeated beyond the image."""

    def __init__(self, filters) -> None:
        super().__init__(filters, 2 * filters, 3, padding=1, bias=False)

    def forward(self, x):
        batch, channels, rows, columns = x.shape
        offset = super().forward(x).reshape(batch * channels, rows, columns, 2)
        grid = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), -1).to(x)
        position = grid + offset
        scale = torch.tensor([columns - 1, rows - 1]).to(x)
        normal = 2 * position.flip(-1) / scale - 1
        flat = x.reshape(batch * channels, 1, rows, columns)
        return F.grid_sample(flat, normal, padding_mode="border", align_corners=True).reshape(x.shape)
