"""kornia: the pure-PyTorch deform_conv2d of its ALIKED."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from deploydcn.export.frontends import Frontend
from deploydcn.nn import functional as F  # noqa: N812
from deploydcn.nn.functional import pair


def _deform_conv2d(
    input: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, mask: Tensor | None
) -> Tensor:
    """Groups and offset groups follow from the shapes, as in torchvision."""
    taps = weight.shape[2] * weight.shape[3]
    return F.deform_conv2d(
        input,
        weight,
        offset,
        bias=bias,
        mask=mask,
        stride=pair(stride, "stride"),
        padding=pair(padding, "padding"),
        dilation=pair(dilation, "dilation"),
        groups=input.shape[1] // weight.shape[1],
        offset_groups=offset.shape[1] // (2 * taps),
    )


FRONTEND = Frontend("kornia", functions=(("kornia.feature.aliked.deform_conv2d.deform_conv2d", _deform_conv2d),))
