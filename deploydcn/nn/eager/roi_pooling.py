"""Pooling of regions of interest. Positions are float32, in the order the specs write them; values are the input's type,
float32 at least. One box at a time: the samples of all would not fit."""

from __future__ import annotations

import torch
from torch import Tensor

from deploydcn.errors import InvalidArgument
from deploydcn.ops.deform_roi_pool.spec import MOST_SAMPLES
from deploydcn.ops.rois import bad_image


def images_of(name: str, rois: Tensor, batch: int) -> list[int]:
    """The image each box lies in.

    Raises:
        InvalidArgument: a box names none of the `batch` images.
    """
    images = []
    for number, index in enumerate(rois[:, 0].tolist()):
        if not -1 < index < batch:
            raise InvalidArgument(bad_image(name, number, index, batch))
        images.append(int(index))
    return images


def accumulation_dtype(input: Tensor) -> torch.dtype:
    """The type sums are computed in."""
    return torch.float64 if input.dtype == torch.float64 else torch.float32


def float32(value: float, beside: Tensor) -> Tensor:
    """A number as a tensor: by a plain number torch divides through its reciprocal on a GPU, which rounds twice."""
    return torch.tensor(value, dtype=torch.float32, device=beside.device)


def deform_roi_pool(
    input: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    output_height: int,
    output_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> Tensor:
    """A sample's bilinear weight is the product of a row's and a column's, so a bin is rows x columns of summed weights."""
    dtype, boxes = accumulation_dtype(input), rois.float()
    images = images_of("DeformRoIPool", boxes, input.shape[0])
    scale, strength, bins_h, bins_w = (float32(value, boxes) for value in (spatial_scale, gamma, output_height, output_width))
    bin_y, bin_x = (torch.arange(count, dtype=torch.float32, device=rois.device) for count in (output_height, output_width))
    pooled = []
    for r, image in enumerate(images):
        left, top, right, bottom = (boxes[r, 1:] * scale - 0.5).unbind()
        width, height = right - left, bottom - top
        moves = boxes.new_zeros((2, 1, 1)) if offset is None else offset[r].float()
        shift_x, shift_y = strength * width * moves[0], strength * height * moves[1]
        bin_height, bin_width = height / bins_h, width / bins_w
        starts_y = (top + shift_y) + (bin_y * bin_height)[:, None]
        starts_x = (left + shift_x) + bin_x * bin_width
        grid_h, grid_w = (sampling_ratio or _samples(side) for side in (bin_height, bin_width))
        shape = (output_height, output_width)
        rows, _ = _axis_weights(_spread(starts_y.expand(shape), bin_height, grid_h), 1.0, input.shape[2], dtype)
        columns, _ = _axis_weights(_spread(starts_x.expand(shape), bin_width, grid_w), 1.0, input.shape[3], dtype)
        total = torch.einsum("chw,pqw,pqh->cpq", input[image].to(dtype), columns, rows)
        pooled.append(total / max(grid_h * grid_w, 1))
    if not pooled:
        return input.new_zeros((0, input.shape[1], output_height, output_width))
    return torch.stack(pooled).to(input.dtype)


def deform_psroi_pool(
    input: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    spatial_scale: float,
    output_dim: int,
    group_size: int,
    pooled_size: int,
    part_size: int,
    sample_per_part: int,
    trans_std: float,
    classes: int,
) -> tuple[Tensor, Tensor]:
    """Each bin reads one channel per output, so a class' channels share their samples' positions."""
    dtype, boxes = accumulation_dtype(input), rois.float()
    images = images_of("DeformPSRoIPool", boxes, input.shape[0])
    scale, strength, bins, parts, groups, per_part, least = (
        float32(value, boxes) for value in (spatial_scale, trans_std, pooled_size, part_size, group_size, sample_per_part, 0.1)
    )
    bin_ = torch.arange(pooled_size, dtype=torch.float32, device=rois.device)
    samples = torch.arange(sample_per_part, dtype=torch.float32, device=rois.device)
    part = (bin_ / bins * parts).long().clamp(max=part_size - 1)
    group = (bin_ * groups / bins).long().clamp(max=group_size - 1)
    moves = rois.new_zeros((rois.shape[0], 2 * classes, part_size, part_size)) if offset is None else offset
    moves = moves.float().reshape(rois.shape[0], classes, 2, part_size, part_size)[..., part[:, None], part]
    by_group = input.reshape(input.shape[0], classes, output_dim // classes, group_size, group_size, *input.shape[2:])
    pooled, counts = [], []
    for r, image in enumerate(images):
        rounded = _round(boxes[r, 1:])
        left, top = (rounded[:2] * scale - 0.5).unbind()
        right, bottom = ((rounded[2:] + 1) * scale - 0.5).unbind()
        width, height = (torch.where(side < least, least, side) for side in (right - left, bottom - top))
        bin_h, bin_w = height / bins, width / bins
        starts_y = (bin_ * bin_h + top)[:, None] + moves[r, :, 1] * strength * height
        starts_x = (bin_ * bin_w + left) + moves[r, :, 0] * strength * width
        rows, valid_rows = _axis_weights(starts_y[..., None] + samples * (bin_h / per_part), 0.5, input.shape[2], dtype)
        columns, valid_columns = _axis_weights(starts_x[..., None] + samples * (bin_w / per_part), 0.5, input.shape[3], dtype)
        features = by_group[image][:, :, group[:, None], group].to(dtype)
        total = torch.einsum("kcpqhw,kpqh,kpqw->kcpq", features, rows, columns)
        valid = (valid_rows * valid_columns)[:, None]
        pooled.append((total / valid.clamp(min=1)).reshape(output_dim, pooled_size, pooled_size))
        counts.append(valid.expand_as(total).reshape(output_dim, pooled_size, pooled_size))
    if not pooled:
        empty = input.new_zeros((0, output_dim, pooled_size, pooled_size))
        return empty, empty.clone()
    return torch.stack(pooled).to(input.dtype), torch.stack(counts).to(input.dtype)


def _samples(side: Tensor) -> int:
    """Samples along one side of a bin: about one per pixel; none for NaN and sides of no extent."""
    return int(torch.ceil(side.clamp(max=MOST_SAMPLES))) if side > 0 else 0


def _spread(starts: Tensor, side: Tensor, grid: int) -> Tensor:
    """Positions (PH, PW, grid) of the samples of bins that begin at `starts` (PH, PW)."""
    steps = torch.arange(grid, dtype=torch.float32, device=starts.device) + 0.5
    return starts[..., None] + steps * side / float32(grid, starts)


def _axis_weights(positions: Tensor, outside: float, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """How the samples of bins read the pixels of an axis.

    positions: (*bins, samples) float32; those up to `outside` beyond the image's outermost pixel centres read the edge,
    others nothing. Returns weights (*bins, size), summed over the samples of a bin, and the number of these (*bins).
    """
    bins = positions.shape[:-1]
    inside = (positions >= -outside) & (positions <= size - 1 + outside)  # False for NaN
    count = bins.numel()
    owner = torch.arange(count, device=positions.device).reshape(bins)[..., None].expand_as(positions)[inside]
    exact = positions[inside].to(dtype).clamp(0, size - 1)
    low = exact.detach().floor()
    fraction = exact - low
    weights = torch.zeros(count * size, dtype=dtype, device=positions.device)
    first = owner * size + low.long()
    weights = weights.index_add(0, first, 1 - fraction)
    weights = weights.index_add(0, torch.where(low < size - 1, first + 1, first), fraction)
    return weights.reshape(*bins, size), inside.sum(-1).to(dtype)


def _round(values: Tensor) -> Tensor:
    """C's round: to the nearest integer, halves away from zero."""
    exact = values.double()
    return torch.trunc(exact + torch.copysign(torch.full_like(exact, 0.5), exact)).float()
