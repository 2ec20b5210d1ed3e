"""Deformable convolutions written in plain PyTorch, as in many tutorials and their copies.

Their class names do not tell their rules: every candidate is offered, and comparison with the module itself decides. All work on
the input padded with p zeros; output pixel o and tap i of K sample row o*s + 1 - K//2 - p + i + offset of the unpadded input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from deploydcn.errors import ExportError
from deploydcn.export.frontends import Frontend
from deploydcn.nn import functional as F  # noqa: N812
from deploydcn.nn import with_forward
from deploydcn.nn.dialects import offset_with_border_of_2017, sampling_positions

Border = Callable[[Tensor, Any, int, int, list[int]], tuple[Tensor, Tensor | None]]


def _zero_border(offset: Tensor, x: Tensor, kernel: int, stride: int, pads: list[int]) -> tuple[Tensor, Tensor | None]:
    """Positions are clamped to the padded image: a clamped one lies on zeros, so that the usual rule holds."""
    return offset, None


def _floor_border(offset: Tensor, x: Tensor, kernel: int, stride: int, pads: list[int]) -> tuple[Tensor, Tensor | None]:
    """Positions in the padding are rounded down: the rule of the first deformable convolution."""
    return offset_with_border_of_2017(offset, x.shape[2:], (kernel, kernel), stride, pads, 1, 1), None


def _doubling_border(offset: Tensor, x: Tensor, kernel: int, stride: int, pads: list[int]) -> tuple[Tensor, Tensor | None]:
    """Without padding, both neighbours of a position before the first or from the last row on are that row, each with weight one:
    the sample counts twice (in a corner, four times)."""
    position, base = sampling_positions(offset, (kernel, kernel), stride, pads, 1, 1)
    zero = torch.zeros((), dtype=position.dtype, device=position.device)
    last = torch.stack([zero + (length - 1) for length in x.shape[2:]]).reshape(2, 1, 1)
    moved = torch.minimum(torch.maximum(position, zero), last) - base
    twice = 1 + ((position < 0) | (position >= last)).to(position.dtype)
    rows, columns = twice.unbind(3)
    return moved.reshape(offset.shape).to(offset.dtype), (rows * columns).flatten(1, 2).to(x.dtype)


def _convolve(x: Tensor, conv: nn.Conv2d, offset: Tensor, mask: Tensor | None, border: Border, stride: int, padding: int) -> Tensor:
    """offset: (N, 2*K*K, oH, oW), (y, x) per tap, oH = (H - 1) // stride + 1."""
    kernel = conv.kernel_size[0]
    pads = [kernel // 2, kernel // 2, (kernel - 1) // 2, (kernel - 1) // 2]  # of which the window needs K - 1 in all
    offset, factor = border(offset + (1 - padding), x, kernel, stride, pads)
    if factor is not None:
        mask = factor if mask is None else mask * factor
    return F.deform_conv2d(x, conv.weight, offset, bias=conv.bias, mask=mask, stride=stride, padding=pads, groups=conv.groups)


def _interleaved(offset: Tensor) -> Tensor:
    """(N, 2K, H, W): all y, then all x -> (y, x) per tap."""
    return torch.stack(offset.chunk(2, dim=1), dim=2).flatten(1, 2)


def _borders(padding: int) -> list[Border]:
    return [_zero_border, _floor_border] if padding > 0 else [_doubling_border]


def _one_number(value: Any, name: str) -> int:
    numbers = set(value) if isinstance(value, tuple | list) else {value}
    if len(numbers) != 1 or not isinstance(number := numbers.pop(), int):
        raise ExportError(f"{name} is {value!r}; wanted one whole number, as this layer's own arithmetic does")
    return number


def _predicting(module: Any) -> list[nn.Module] | None:
    """forward(x), with offsets from p_conv, and a mask from m_conv where modulated (4uiiurz1/pytorch-deform-conv-v2)."""
    if not (isinstance(getattr(module, "p_conv", None), nn.Conv2d) and isinstance(getattr(module, "conv", None), nn.Conv2d)):
        return None
    padding, stride = _one_number(module.padding, "padding"), _one_number(getattr(module, "stride", 1), "stride")
    kernel = _one_number(module.conv.kernel_size, "conv.kernel_size")
    if tuple(module.conv.stride) != (kernel, kernel) or any(module.conv.padding) or module.p_conv.out_channels != 2 * kernel * kernel:
        return None

    def forward_with(border: Border, order: Callable[[Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
        def forward(self: Any, x: Tensor) -> Tensor:
            offset = order(self.p_conv(x))
            mask = torch.sigmoid(self.m_conv(x)) if getattr(self, "modulation", hasattr(self, "m_conv")) else None
            return _convolve(x, self.conv, offset, mask, border, stride, padding)

        return forward

    orders: list[Callable[[Tensor], Tensor]] = [_interleaved, lambda offset: offset]
    return [with_forward(module, forward_with(border, order)) for order in orders for border in _borders(padding)]


def _given(module: Any) -> list[nn.Module] | None:
    """forward(x, offset), offsets (y, x) per tap (ChunhuanLin/deform_conv_pytorch)."""
    if not isinstance(getattr(module, "conv_kernel", None), nn.Conv2d):
        return None
    padding = _one_number(module.padding, "padding")

    def forward_with(border: Border, order: Callable[[Tensor], Tensor]) -> Callable[[Any, Tensor, Tensor], Tensor]:
        def forward(self: Any, x: Tensor, offset: Tensor) -> Tensor:
            return _convolve(x, self.conv_kernel, order(offset), None, border, 1, padding)

        return forward

    orders: list[Callable[[Tensor], Tensor]] = [lambda offset: offset, _interleaved]
    return [with_forward(module, forward_with(border, order)) for order in orders for border in reversed(_borders(padding))]


def _one_offset_per_channel(module: nn.Module) -> nn.Module | None:
    """ConvOffset2D (oeway/pytorch-deform-conv): every pixel of every channel is fetched from elsewhere; beyond the image, from
    its edge. A depthwise 1x1 deformable convolution with weight one.

    The convolution's 2*C channels are read as (C, H, W, 2) in memory order, (y, x) last.
    """
    if not isinstance(module, nn.Conv2d) or module.out_channels != 2 * module.in_channels:
        return None

    def forward(self: Any, x: Tensor) -> Tensor:
        batch, channels, rows, columns = x.shape
        prediction = nn.Conv2d.forward(self, x).reshape(batch, channels, rows, columns, 2)
        offset = prediction.permute(0, 1, 4, 2, 3).reshape(batch, 2 * channels, rows, columns)
        position, base = sampling_positions(offset, (1, 1), 1, 0, 1, channels)
        zero = torch.zeros((), dtype=position.dtype, device=position.device)
        last = torch.stack([zero + (rows - 1), zero + (columns - 1)]).reshape(2, 1, 1)
        moved = (torch.minimum(torch.maximum(position, zero), last) - base).reshape(offset.shape).to(offset.dtype)
        weight = torch.ones((channels, 1, 1, 1), dtype=x.dtype, device=x.device)
        return F.deform_conv2d(x, weight, moved, groups=channels, offset_groups=channels)

    return with_forward(module, forward)


FRONTEND = Frontend(
    "pure PyTorch",
    modules={
        "*.DeformConv2d": _predicting,
        "*.DeformConv2D": lambda module: _given(module) or _predicting(module),
        "*.DeformConv": lambda module: _predicting(module) or _given(module),
        "*.DCNv2": _predicting,
        "*.ConvOffset2D": _one_offset_per_channel,
    },
)
