"""Modules for models built with deploydcn."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from deploydcn.nn.functional import Pair, deform_conv2d, four_sides, pair, separable_conv2d


class DeformConv2d(nn.Module):
    """Deformable convolution that predicts its own offsets: a drop-in for nn.Conv2d.

    `offset_conv`, a plain convolution with this one's window, predicts for every output pixel and tap an offset (y, x) in
    pixels and, when modulated, a mask: channels [0, 2*og*K) are offsets in the order of `deform_conv2d`, the og*K after
    them mask logits, mask = sigmoid. It starts at zero, as in the papers: the module begins as a plain convolution
    (with mask 0.5 when modulated).

    Args:
        in_channels, out_channels, kernel_size, stride, dilation, groups, bias: as in nn.Conv2d.
        padding: one number, (h, w) or (top, left, bottom, right).
        offset_groups: groups of input channels with offsets of their own.
        modulated: DCNv2 (with mask) or DCNv1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        offset_groups: int = 1,
        modulated: bool = True,
    ) -> None:
        super().__init__()
        kernel_h, kernel_w = pair(kernel_size, "kernel_size")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = (kernel_h, kernel_w)
        stride_h, stride_w = pair(stride, "stride")
        dilation_h, dilation_w = pair(dilation, "dilation")
        self.stride, self.dilation = (stride_h, stride_w), (dilation_h, dilation_w)
        self.padding = tuple(four_sides(padding))
        self.groups, self.offset_groups, self.modulated = groups, offset_groups, modulated
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel_h, kernel_w))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        per_tap = 3 if modulated else 2
        self.offset_conv = nn.Conv2d(
            in_channels, per_tap * offset_groups * kernel_h * kernel_w, self.kernel_size, self.stride, 0, self.dilation
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """nn.Conv2d's initialization; zero for the offset branch."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)
        nn.init.zeros_(self.offset_conv.weight)
        if self.offset_conv.bias is not None:
            nn.init.zeros_(self.offset_conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> (N, M, oH, oW)."""
        top, left, bottom, right = self.padding
        prediction = self.offset_conv(F.pad(x, (left, right, top, bottom)))
        offsets = 2 * self.offset_groups * self.kernel_size[0] * self.kernel_size[1]
        return deform_conv2d(
            x,
            self.weight,
            prediction[:, :offsets],
            bias=self.bias,
            mask=torch.sigmoid(prediction[:, offsets:]) if self.modulated else None,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            offset_groups=self.offset_groups,
        )

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, groups={self.groups}, bias={self.bias is not None}, offset_groups={self.offset_groups}, "
            f"modulated={self.modulated}"
        )


class SeparableConv2d(nn.Module):
    """Depthwise convolution, then a pointwise one, as one operator.

    Args:
        in_channels, out_channels, kernel_size, stride, dilation: as in nn.Conv2d.
        padding: one number, (h, w) or (top, left, bottom, right).
        depth_multiplier: depthwise results per input channel.
        bias: whether both convolutions have one.
        depthwise_activation, activation: behind the first and the second convolution: "", "relu", "relu6" or "silu".
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        *,
        depth_multiplier: int = 1,
        bias: bool = True,
        depthwise_activation: str = "",
        activation: str = "",
    ) -> None:
        super().__init__()
        kernel_h, kernel_w = pair(kernel_size, "kernel_size")
        self.stride, self.padding, self.dilation = pair(stride, "stride"), four_sides(padding), pair(dilation, "dilation")
        self.depthwise_activation, self.activation = depthwise_activation, activation
        between = in_channels * depth_multiplier
        self.depthwise_weight = nn.Parameter(torch.empty(between, 1, kernel_h, kernel_w))
        self.pointwise_weight = nn.Parameter(torch.empty(out_channels, between, 1, 1))
        self.depthwise_bias = nn.Parameter(torch.empty(between)) if bias else None
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """nn.Conv2d's initialization of either stage."""
        for weight, bias in ((self.depthwise_weight, self.depthwise_bias), (self.pointwise_weight, self.bias)):
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
            if bias is not None:
                bound = 1 / math.sqrt(weight[0].numel())
                nn.init.uniform_(bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> (N, M, oH, oW)."""
        return separable_conv2d(
            x,
            self.depthwise_weight,
            self.pointwise_weight,
            depthwise_bias=self.depthwise_bias,
            bias=self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            depthwise_activation=self.depthwise_activation,
            activation=self.activation,
        )

    def extra_repr(self) -> str:
        """The weights' shapes and the options."""
        return (
            f"{self.pointwise_weight.shape[1]}, {self.pointwise_weight.shape[0]}, kernel_size={tuple(self.depthwise_weight.shape[2:])}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, bias={self.bias is not None}, "
            f"depthwise_activation={self.depthwise_activation!r}, activation={self.activation!r}"
        )
