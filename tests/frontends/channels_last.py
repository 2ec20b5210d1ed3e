"""InternImage's and DCNv4's layers: their Functions, signatures and layouts, written for these tests."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.autograd import Function

from tests.frontends import foreign


def dcnv3_core_pytorch(
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
    remove_center: int,
) -> Tensor:
    """Taps column by column, offsets (x, y), one grid_sample for all."""
    batch, height, width, channels = input.shape
    rows, columns = offset.shape[1:3]
    taps = [(i, j) for j in range(kernel_w) for i in range(kernel_h)]
    if remove_center:
        taps.remove((kernel_h // 2, kernel_w // 2))
    shift = offset.reshape(batch, rows, columns, group, len(taps), 2)
    reach_h, reach_w = dilation_h * (kernel_h - 1) // 2, dilation_w * (kernel_w - 1) // 2
    start_y = torch.arange(rows) * stride_h - pad_h + reach_h - reach_h * offset_scale
    start_x = torch.arange(columns) * stride_w - pad_w + reach_w - reach_w * offset_scale
    tap_y, tap_x = (torch.tensor(positions) for positions in zip(*taps, strict=True))
    y = start_y[:, None, None, None] + (tap_y * dilation_h + shift[..., 1]) * offset_scale
    x = start_x[:, None, None] + (tap_x * dilation_w + shift[..., 0]) * offset_scale
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    grid = grid.permute(0, 3, 1, 2, 4, 5).reshape(batch * group, rows * columns, len(taps), 2).to(input)
    planes = input.permute(0, 3, 1, 2).reshape(batch * group, channels // group, height, width)
    values = F.grid_sample(planes, grid, align_corners=False)
    weights = mask.reshape(batch, rows * columns, group, -1).transpose(1, 2).reshape(batch * group, 1, rows * columns, -1)
    return (values * weights).sum(-1).reshape(batch, channels, rows, columns).permute(0, 2, 3, 1).contiguous()


class DCNv3Function(Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda")
    def forward(
        ctx: Any,
        input,
        offset,
        mask,
        kernel_h,
        kernel_w,
        stride_h,
        stride_w,
        pad_h,
        pad_w,
        dilation_h,
        dilation_w,
        group,
        group_channels,
        offset_scale,
        im2col_step,
        remove_center,
    ):
        foreign.require_compiled()
        window = kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w
        return dcnv3_core_pytorch(input, offset, mask, *window, group, group_channels, offset_scale, remove_center)


class DCNv4Function(Function):
    @staticmethod
    def forward(
        ctx: Any,
        input,
        offset_mask,
        kernel_h,
        kernel_w,
        stride_h,
        stride_w,
        pad_h,
        pad_w,
        dilation_h,
        dilation_w,
        group,
        group_channels,
        offset_scale,
        im2col_step,
        remove_center,
    ):
        foreign.require_compiled()
        points = kernel_h * kernel_w - remove_center
        batch, rows, columns, _ = offset_mask.shape
        parts = offset_mask[..., : 3 * group * points].reshape(batch, rows, columns, group, 3 * points)
        offset, mask = parts[..., : 2 * points].flatten(3), parts[..., 2 * points :].flatten(3)
        window = kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w
        return dcnv3_core_pytorch(input, offset, mask, *window, group, group_channels, offset_scale, remove_center)


class DCNv3(nn.Module):
    """InternImage's: offsets and masks from a depthwise branch, the masks through a softmax over the taps."""

    def __init__(self, channels=8, group=2, stride=1, offset_scale=1.0, remove_center=False, use_kernel=True) -> None:
        super().__init__()
        self.channels, self.group, self.stride = channels, group, stride
        self.offset_scale, self.remove_center, self.use_kernel = offset_scale, int(remove_center), use_kernel
        self.points = 9 - self.remove_center
        self.dw_conv = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels)
        self.offset = nn.Linear(channels, group * self.points * 2)
        self.mask = nn.Linear(channels, group * self.points)
        self.input_proj, self.output_proj = nn.Linear(channels, channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        branch = F.gelu(self.dw_conv(x).permute(0, 2, 3, 1))
        batch, rows, columns, _ = branch.shape
        mask = self.mask(branch).reshape(batch, rows, columns, self.group, -1).softmax(-1).reshape(batch, rows, columns, -1)
        value = self.input_proj(x.permute(0, 2, 3, 1))
        window = 3, 3, self.stride, self.stride, 1, 1, 1, 1
        rest = self.group, self.channels // self.group, self.offset_scale
        if self.use_kernel:
            output = DCNv3Function.apply(value, self.offset(branch), mask, *window, *rest, 256, self.remove_center)
        else:
            output = dcnv3_core_pytorch(value, self.offset(branch), mask, *window, *rest, self.remove_center)
        return self.output_proj(output).permute(0, 3, 1, 2)


class DCNv4(nn.Module):
    """One projection for both; its width rounded up to a multiple of eight."""

    def __init__(self, channels=32, group=2, offset_scale=1.0, remove_center=False) -> None:
        super().__init__()
        self.channels, self.group, self.offset_scale, self.remove_center = channels, group, offset_scale, int(remove_center)
        points = group * (9 - self.remove_center)
        self.offset_mask = nn.Linear(channels, (3 * points + 7) // 8 * 8)
        self.value_proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        value = x.permute(0, 2, 3, 1)
        window = 3, 3, 1, 1, 1, 1, 1, 1
        rest = self.group, self.channels // self.group, self.offset_scale, 256, self.remove_center
        return DCNv4Function.apply(self.value_proj(value), self.offset_mask(value), *window, *rest).permute(0, 3, 1, 2)
