"""Multi-scale deformable attention: Deformable-DETR and what descends from it (mmcv, detrex, RT-DETR, D-FINE, ultralytics, transformers).

Kernels and Python functions cover all of them. Modules are replaced only where an assertion on the values of spatial_shapes, which a
traced graph cannot hold, stands in forward.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deploydcn.errors import ExportError
from deploydcn.export.frontends import Frontend
from deploydcn.nn import functional as F  # noqa: N812
from deploydcn.nn import with_forward

Shapes = Tensor | Sequence[Sequence[int]]


def _levels(spatial_shapes: Shapes, like: Tensor) -> tuple[Tensor, Tensor]:
    """(L, 2) sizes (h, w) and (L) indices of the first pixels, int64. Sizes may be symbols of a dynamic graph."""
    if isinstance(spatial_shapes, Tensor):
        sizes = spatial_shapes.long()
    else:
        flat = [number for pair in spatial_shapes for number in pair]
        known = all(isinstance(number, int) for number in flat)
        pieces = [torch.scalar_tensor(number, dtype=torch.int64, device=like.device) for number in flat]
        sizes = (torch.tensor(flat, device=like.device) if known else torch.stack(pieces)).reshape(-1, 2)
    areas = sizes[:, 0] * sizes[:, 1]
    return sizes, areas.cumsum(0) - areas


def _kernel(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,  # how many images the kernel takes at once
) -> Tensor:
    return F.ms_deform_attn(
        value,
        value_spatial_shapes.long(),
        value_level_start_index.long(),
        sampling_locations.type_as(value),
        attention_weights.type_as(value),
    )


def _function(value: Tensor, value_spatial_shapes: Shapes, sampling_locations: Tensor, attention_weights: Tensor) -> Tensor:
    """Locations (N, Q, M, L, P, 2), or (N, Q, M, L*P, 2) as ultralytics has them."""
    sizes, start = _levels(value_spatial_shapes, value)
    if sampling_locations.ndim == 5:
        levels = len(value_spatial_shapes)
        sampling_locations = sampling_locations.reshape(*sampling_locations.shape[:3], levels, -1, 2)
        attention_weights = attention_weights.reshape(*attention_weights.shape[:3], levels, -1)
    return F.ms_deform_attn(value, sizes, start, sampling_locations, attention_weights)


def _module_function(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_spatial_shapes_list: Shapes,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    return _function(value, value_spatial_shapes_list, sampling_locations, attention_weights)


def _function_v2(
    value: Tensor | Sequence[Tensor],
    value_spatial_shapes: Shapes,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    num_points_list: Sequence[int],
    method: str = "default",
) -> Tensor:
    """RT-DETRv2, D-FINE: every level has a number of points of its own; locations (N, Q, M, sum of points, 2).

    value: (N, S, M, D), or per level (N, M, D, h*w). method: "default", bilinear, or "discrete": the nearest pixel, and beyond the
    level's border the pixel at the border, which is a bilinear sample at that pixel's centre.
    """
    if method not in ("default", "discrete"):
        raise ExportError(f"deformable attention with method {method!r} has no exact equivalent; wanted 'default' or 'discrete'")
    if not isinstance(value, Tensor):
        value = torch.cat(list(value), dim=-1).permute(0, 3, 1, 2)
    sizes, start = _levels(value_spatial_shapes, value)
    most = max(num_points_list)
    locations, weights = [], []
    points = list(num_points_list)
    pieces = zip(torch.split(sampling_locations, points, 3), torch.split(attention_weights, points, 3), strict=True)
    for level, (location, weight) in enumerate(pieces):
        if method == "discrete":
            size = sizes[level].flip(0)  # (w, h), as locations are (x, y)
            pixel = torch.minimum((location * size + 0.5).long().clamp(min=0), size - 1)
            location = (pixel + 0.5).to(location.dtype) / size
        missing = most - points[level]
        # Points that a level lacks get weight zero.
        locations.append(nn.functional.pad(location, (0, 0, 0, missing)))
        weights.append(nn.functional.pad(weight, (0, missing)))
    return F.ms_deform_attn(value, sizes, start, torch.stack(locations, 3), torch.stack(weights, 3))


def _attention_function(module: nn.Module) -> nn.Module | None:
    """transformers' MultiScaleDeformableAttention: the sampling alone."""
    if list(inspect.signature(module.forward).parameters) != list(inspect.signature(_module_function).parameters):
        return None
    return with_forward(module, lambda self, *args, **kwargs: _module_function(*args, **kwargs))


def _attend(
    module: Any, heads: int, levels: int, points: int, query: Tensor, value: Tensor, sizes: Tensor, start: Tensor, box: Tensor
) -> Tensor:
    """Everything between the value projection and the output projection. box: reference points, (x, y) or (x, y, w, h) in [0, 1]."""
    batch, queries, _ = query.shape
    value = value.reshape(batch, value.shape[1], heads, -1)
    offsets = module.sampling_offsets(query).view(batch, queries, heads, levels, points, 2)
    weights = module.attention_weights(query).view(batch, queries, heads, levels * points).softmax(-1)
    weights = weights.view(batch, queries, heads, levels, points)
    centre = box[:, :, None, :, None, :2]
    if box.shape[-1] == 2:
        locations = centre + offsets / sizes.flip(1)[None, None, None, :, None, :]
    elif box.shape[-1] == 4:
        locations = centre + offsets / points * box[:, :, None, :, None, 2:] * 0.5
    else:
        raise ExportError(f"reference points have {box.shape[-1]} coordinates; wanted 2 or 4")
    return F.ms_deform_attn(value, sizes.long(), start.long(), locations, weights)


def _of_deformable_detr(module: nn.Module) -> nn.Module | None:
    def forward(
        self: Any,
        query: Tensor,
        reference_points: Tensor,
        input_flatten: Tensor,
        input_spatial_shapes: Tensor,
        input_level_start_index: Tensor,
        input_padding_mask: Tensor | None = None,
    ) -> Tensor:
        value = self.value_proj(input_flatten)
        if input_padding_mask is not None:
            value = value.masked_fill(input_padding_mask[..., None], 0.0)
        numbers = self.n_heads, self.n_levels, self.n_points
        output: Tensor = self.output_proj(
            _attend(self, *numbers, query, value, input_spatial_shapes, input_level_start_index, reference_points)
        )
        return output

    names = list(inspect.signature(forward).parameters)[1:]
    return with_forward(module, forward) if list(inspect.signature(module.forward).parameters) == names else None


def _of_mmcv(module: nn.Module) -> nn.Module | None:
    def forward(
        self: Any,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        identity: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        reference_points: Any = None,
        spatial_shapes: Any = None,
        level_start_index: Any = None,
        **kwargs: Any,
    ) -> Tensor:
        value = query if value is None else value
        identity = query if identity is None else identity
        query = query if query_pos is None else query + query_pos
        if not self.batch_first:
            query, value = query.transpose(0, 1), value.transpose(0, 1)
        value = self.value_proj(value)
        if key_padding_mask is not None:
            value = value.masked_fill(key_padding_mask[..., None], 0.0)
        numbers = self.num_heads, self.num_levels, self.num_points
        output = self.output_proj(_attend(self, *numbers, query, value, spatial_shapes, level_start_index, reference_points))
        output = output if self.batch_first else output.transpose(0, 1)
        result: Tensor = self.dropout(output) + identity
        return result

    return with_forward(module, forward)


FRONTEND = Frontend(
    "deformable attention",
    kernels=(
        ("*.MSDeformAttnFunction", _kernel),
        ("*.MultiScaleDeformableAttnFunction", _kernel),
        ("*.MultiScaleDeformableAttnFunction_fp32", _kernel),
        ("*.MultiScaleDeformableAttnFunction_fp16", _kernel),
    ),
    functions=(
        ("*.ms_deform_attn_core_pytorch", _function),
        ("*.multi_scale_deformable_attn_pytorch", _function),
        ("*.multi_scale_deformable_attention", _function),
        ("*.deformable_attention_core_func", _function),
        ("*.multi_scale_deformable_attention_v2", _function_v2),
        ("*.deformable_attention_core_func_v2", _function_v2),
    ),
    modules={
        "*.MultiScaleDeformableAttention": _attention_function,
        "mmcv.ops.multi_scale_deform_attn.MultiScaleDeformableAttention": _of_mmcv,
        "*.MSDeformAttn": _of_deformable_detr,
    },
)
