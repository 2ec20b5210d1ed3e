"""CharlesShang/DCNv2 and its forks (CenterNet, FairMOT ...)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from deploydcn.export.frontends import Frontend
from deploydcn.nn import functional as F  # noqa: N812


def _dcn_v2(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor,
    stride: Any,
    padding: Any,
    dilation: Any,
    deformable_groups: int,
) -> Tensor:
    return F.deform_conv2d(
        input, weight, offset, bias=bias, mask=mask, stride=stride, padding=padding, dilation=dilation, offset_groups=deformable_groups
    )


FRONTEND = Frontend("CharlesShang/DCNv2", kernels=(("*._DCNv2", _dcn_v2),))
