"""What the torch operators compute in eager mode, on any device: one function per operator, with the arguments of its torch schema.

Autograd differentiates these. They are the reference that users' models run with, not the fast path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deploydcn.nn.eager import attention, convolutions, quantized, roi_pooling

IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {
    "DeformConv2d": convolutions.deform_conv2d,
    "GroupedConv2d": convolutions.grouped_conv2d,
    "DeformRoIPool": roi_pooling.deform_roi_pool,
    "DeformPSRoIPool": roi_pooling.deform_psroi_pool,
    "DCNv3": attention.dcnv3,
    "DCNv4": attention.dcnv4,
    "MSDeformAttn": attention.ms_deform_attn,
    "SeparableConv2d": convolutions.separable_conv2d,
    "QLinearDeformConv2d": quantized.qlinear_deform_conv2d,
    # new-op: insert above
}
"""By operator name; each returns a tensor, or a tuple of as many as the operator has outputs."""
