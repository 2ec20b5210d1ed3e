"""torchvision: its deform_conv2d operator, and the batched NMS of its detectors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from deploydcn.export.frontends import Frontend


def _deform_conv2d(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor,
    bias: Tensor,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> Tensor:
    """torchvision::deform_conv2d always has a bias (zeros when the user gave none) and a mask that `use_mask` may disable."""
    output: Tensor = torch.ops.deploydcn.deform_conv2d(
        input,
        weight,
        offset,
        bias,
        mask if use_mask else None,
        [stride_h, stride_w],
        [pad_h, pad_w, pad_h, pad_w],
        [dilation_h, dilation_w],
        groups,
        offset_groups,
        "",
    )
    return output


def _decompositions() -> dict[Any, Callable[..., Any]]:
    import torchvision  # noqa: F401  (defines the operator)

    return {torch.ops.torchvision.deform_conv2d.default: _deform_conv2d}


def _batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """NMS within classes by moving each class to a place of its own: torchvision's method without its branch on the number
    of boxes, which a traced graph cannot take."""
    span = torch.cat([boxes.flatten(), boxes.new_zeros(1)]).max() + 1
    shifted = boxes + (idxs.to(boxes) * span)[:, None]
    kept: Tensor = torch.ops.torchvision.nms(shifted, scores, iou_threshold)
    return kept


@contextlib.contextmanager
def _patch() -> Iterator[None]:
    import torchvision.ops.boxes as boxes

    original = boxes.batched_nms
    boxes.batched_nms = _batched_nms
    try:
        yield
    finally:
        boxes.batched_nms = original


FRONTEND = Frontend("torchvision", patch=_patch, decompositions=_decompositions)
