"""Deformable RoI pooling: mmcv's, and the position-sensitive one of Deformable-ConvNets, CharlesShang/DCNv2 and mmdetection 1."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from deploydcn.export.frontends import Frontend
from deploydcn.nn import functional as F  # noqa: N812
from deploydcn.nn.functional import pair


def _deform_roi_pool(
    input: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    output_size: Any,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> Tensor:
    offset = None if offset is None or offset.numel() == 0 else offset
    return F.deform_roi_pool(
        input,
        rois,
        offset,
        output_size=pair(output_size, "output_size"),
        spatial_scale=float(spatial_scale),
        sampling_ratio=int(sampling_ratio),
        gamma=float(gamma),
    )


def _dcn_v2_pooling(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    spatial_scale: float,
    pooled_size: int,
    output_dim: int,
    no_trans: Any,
    group_size: int,
    part_size: int | None,
    sample_per_part: int,
    trans_std: float,
) -> Tensor:
    output, _ = F.deform_psroi_pool(
        input,
        rois,
        None if no_trans else offset,
        spatial_scale=float(spatial_scale),
        output_dim=output_dim,
        pooled_size=pooled_size,
        group_size=group_size,
        part_size=part_size,
        sample_per_part=sample_per_part,
        trans_std=float(trans_std),
    )
    return output


def _deform_roi_pooling(
    data: Tensor,
    rois: Tensor,
    offset: Tensor,
    spatial_scale: float,
    out_size: Any,
    out_channels: int,
    no_trans: Any,
    group_size: int,
    part_size: int | None,
    sample_per_part: int,
    trans_std: float,
) -> Tensor:
    size = pair(out_size, "out_size")[0]
    return _dcn_v2_pooling(
        data, rois, offset, spatial_scale, size, out_channels, no_trans, group_size, part_size, sample_per_part, trans_std
    )


FRONTEND = Frontend(
    "deformable RoI pooling",
    kernels=(
        ("*.DeformRoIPoolFunction", _deform_roi_pool),
        ("*._DCNv2Pooling", _dcn_v2_pooling),
        ("*.DeformRoIPoolingFunction", _dcn_v2_pooling),
        ("*.DeformRoIPoolingFunction", _deform_roi_pooling),
    ),
)
