"""torchvision: its deform_conv2d operator, and the parts of its detectors that depend on the number of boxes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
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


def _multiscale_roi_align(
    x_filtered: list[Tensor], boxes: list[Tensor], output_size: Sequence[int], sampling_ratio: int, scales: list[float], mapper: Any
) -> Tensor:
    """Pool every box from its level of the pyramid: torchvision's function, with a symbolic number of boxes."""
    from torchvision.ops import roi_align

    counts = [box[:, :1] for box in boxes]
    images = torch.cat([torch.full_like(count, index) for index, count in enumerate(counts)])
    rois = torch.cat([images, torch.cat(boxes)], dim=1)
    if len(x_filtered) == 1:
        pooled: Tensor = roi_align(x_filtered[0], rois, output_size, scales[0], sampling_ratio)
        return pooled
    levels = mapper(boxes)
    result = x_filtered[0].new_zeros((rois.shape[0], x_filtered[0].shape[1], *output_size))
    for level, (feature, scale) in enumerate(zip(x_filtered, scales, strict=False)):
        chosen = torch.where(levels == level)[0]
        result = result.index_put((chosen,), roi_align(feature, rois[chosen], output_size, scale, sampling_ratio))
    return result


def _paste_masks_in_image(masks: Tensor, boxes: Tensor, img_shape: Sequence[int], padding: int = 1) -> Tensor:
    """Every mask (n, 1, M, M), stretched over its box: torchvision's function without its loop over boxes, as two matrix products."""
    from torchvision.models.detection.roi_heads import expand_boxes, expand_masks

    masks, scale = expand_masks(masks, padding=padding)
    cells = torch.arange(masks.shape[-1], device=masks.device)
    sides = expand_boxes(boxes, scale).to(torch.int64)

    def stretched(first: Tensor, last: Tensor, size: int) -> Tensor:
        """(n, size, M): the share of every row (or column) of a mask in every one of the image."""
        length = (last - first + 1).clamp(min=1)[:, None]
        index = torch.arange(size, device=masks.device) - first[:, None]
        position = ((index + 0.5) * (len(cells) / length) - 0.5).clamp(0, len(cells) - 1)
        share = (1 - (position[..., None] - cells).abs()).clamp(min=0)
        return (share * ((index >= 0) & (index < length))[..., None]).to(masks)

    rows, columns = stretched(sides[:, 1], sides[:, 3], img_shape[0]), stretched(sides[:, 0], sides[:, 2], img_shape[1])
    return (rows @ masks[:, 0] @ columns.transpose(1, 2))[:, None]


@contextlib.contextmanager
def _patch() -> Iterator[None]:
    from torchvision.models.detection import transform
    from torchvision.ops import boxes, poolers

    replaced = (
        (boxes, "batched_nms", _batched_nms),
        (poolers, "_multiscale_roi_align", _multiscale_roi_align),
        (transform, "paste_masks_in_image", _paste_masks_in_image),
    )
    originals = [getattr(module, name) for module, name, _ in replaced]
    for module, name, function in replaced:
        setattr(module, name, function)
    try:
        yield
    finally:
        for (module, name, _), original in zip(replaced, originals, strict=True):
            setattr(module, name, original)


FRONTEND = Frontend("torchvision", patch=_patch, decompositions=_decompositions)
