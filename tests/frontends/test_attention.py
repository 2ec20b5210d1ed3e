"""Multi-scale deformable attention of every framework."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function

from deploydcn.errors import ExportError
from deploydcn.export.frontends import deformable_attention
from tests.frontends import foreign
from tests.frontends.helpers import DYNAMIC, exported, image, largest, replaced, with_large_offsets
from tests.frontends.pyramid import CHANNELS, HEADS, Pyramid, first


# --------------------------------------------------------------------------------- Deformable-DETR, as its repository has it
def ms_deform_attn_core_pytorch(value, value_spatial_shapes, sampling_locations, attention_weights):
    """One grid_sample per level; what the kernel computes."""
    batch, _, heads, depth = value.shape
    queries = sampling_locations.shape[1]
    total, begin = 0, 0
    for level, (height, width) in enumerate(value_spatial_shapes.tolist()):
        plane = value[:, begin : begin + height * width].permute(0, 2, 3, 1).reshape(batch * heads, depth, height, width)
        grid = 2 * sampling_locations[:, :, :, level].transpose(1, 2).flatten(0, 1) - 1
        samples = nn.functional.grid_sample(plane, grid, padding_mode="zeros", align_corners=False)
        weights = attention_weights[:, :, :, level].transpose(1, 2).flatten(0, 1)[:, None]
        total = total + (samples * weights).sum(-1)
        begin += height * width
    return total.reshape(batch, heads * depth, queries).transpose(1, 2)


class MSDeformAttnFunction(Function):
    @staticmethod
    def forward(ctx, value, value_spatial_shapes, value_level_start_index, sampling_locations, attention_weights, im2col_step):
        foreign.require_compiled()
        return ms_deform_attn_core_pytorch(value, value_spatial_shapes, sampling_locations, attention_weights)


class MSDeformAttn(nn.Module):
    """Asserts on the values of a tensor: what a traced graph cannot hold."""

    def __init__(self, use_kernel: bool = True, d_model=CHANNELS, n_levels=2, n_heads=HEADS, n_points=3) -> None:
        super().__init__()
        self.use_kernel, self.im2col_step = use_kernel, 64
        self.d_model, self.n_levels, self.n_heads, self.n_points = d_model, n_levels, n_heads, n_points
        self.sampling_offsets = nn.Linear(d_model, n_heads * n_levels * n_points * 2)
        self.attention_weights = nn.Linear(d_model, n_heads * n_levels * n_points)
        self.value_proj, self.output_proj = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)

    def forward(self, query, reference_points, input_flatten, input_spatial_shapes, input_level_start_index, input_padding_mask=None):
        batch, queries, _ = query.shape
        length = input_flatten.shape[1]
        assert (input_spatial_shapes[:, 0] * input_spatial_shapes[:, 1]).sum() == length
        value = self.value_proj(input_flatten)
        if input_padding_mask is not None:
            value = value.masked_fill(input_padding_mask[..., None], 0.0)
        value = value.view(batch, length, self.n_heads, -1)
        points = (self.n_heads, self.n_levels, self.n_points)
        offsets = self.sampling_offsets(query).view(batch, queries, *points, 2)
        weights = self.attention_weights(query).view(batch, queries, self.n_heads, -1).softmax(-1).view(batch, queries, *points)
        centre = reference_points[:, :, None, :, None, :2]
        if reference_points.shape[-1] == 2:
            locations = centre + offsets / input_spatial_shapes.flip(1)[None, None, None, :, None]
        else:
            locations = centre + offsets / self.n_points * reference_points[:, :, None, :, None, 2:] * 0.5
        if self.use_kernel:
            output = MSDeformAttnFunction.apply(value, input_spatial_shapes, input_level_start_index, locations, weights, self.im2col_step)
        else:
            output = ms_deform_attn_core_pytorch(value, input_spatial_shapes, locations, weights)
        return self.output_proj(output)


class FlashDeformAttnFunction(Function):
    """DCNv4's: one tensor for both, per head [2*L*K locations, L*K logits], the softmax inside."""

    @staticmethod
    def forward(ctx, value, value_spatial_shapes, value_level_start_index, sampling_loc_attn, im2col_step, K=8):  # noqa: N803
        foreign.require_compiled()
        batch, queries, heads, _ = sampling_loc_attn.shape
        points = (batch, queries, heads, len(value_spatial_shapes), K)
        locations, logits = sampling_loc_attn.split([2 * points[3] * K, points[3] * K], -1)
        weights = logits.softmax(-1).reshape(points)
        return ms_deform_attn_core_pytorch(value, value_spatial_shapes, locations.reshape(*points, 2), weights)


class FlashAttention(nn.Module):
    def __init__(self, levels=2, points=4) -> None:
        super().__init__()
        self.points = points
        self.sampling = nn.Linear(CHANNELS, HEADS * 3 * levels * points)

    def forward(self, query, value, sizes, start):
        batch, queries, _ = query.shape
        value = value.reshape(batch, value.shape[1], HEADS, -1)
        sampling = self.sampling(query).reshape(batch, queries, HEADS, -1)
        return FlashDeformAttnFunction.apply(value, sizes, start, sampling, 64, self.points)


def of_flash(layer, query, value, points, shapes, sizes, start):
    return layer(query, value, sizes, start)


def of_deformable_detr(layer, query, value, points, shapes, sizes, start):
    padding = torch.arange(value.shape[1])[None] % 7 == 0
    return layer(query, points, value, sizes, start, padding)


def of_transformers(layer, query, value, points, shapes, sizes, start):
    return first(
        layer(
            query,
            encoder_hidden_states=value,
            reference_points=points,
            spatial_shapes=sizes,
            spatial_shapes_list=shapes,
            level_start_index=start,
        )
    )


def of_mask2former(layer, query, value, points, shapes, sizes, start):
    return first(layer(query, encoder_hidden_states=value, reference_points=points, spatial_shapes_list=shapes, level_start_index=start))


def of_mmcv(layer, query, value, points, shapes, sizes, start):
    return layer(query, value=value, reference_points=points, spatial_shapes=sizes, level_start_index=start)


def of_mmcv_time_first(layer, query, value, points, shapes, sizes, start):
    result = layer(
        query.transpose(0, 1),
        value=value.transpose(0, 1),
        query_pos=query.transpose(0, 1) * 0.1,
        key_padding_mask=torch.arange(value.shape[1])[None] % 7 == 0,
        reference_points=points,
        spatial_shapes=sizes,
        level_start_index=start,
    )
    return result.transpose(0, 1)


def of_ultralytics(layer, query, value, points, shapes, sizes, start):
    return layer(query, points, value, shapes)


def transformers_layer(model: str, name: str, config: str, **options) -> nn.Module:
    package = importlib.import_module("transformers")
    module = importlib.import_module(f"transformers.models.{model}.modeling_{model}")
    return getattr(module, name)(getattr(package, config)(d_model=CHANNELS, decoder_attention_heads=HEADS, **options))


def deformable_detr() -> nn.Module:
    from transformers import DeformableDetrConfig
    from transformers.models.deformable_detr import modeling_deformable_detr as module

    return module.DeformableDetrMultiscaleDeformableAttention(DeformableDetrConfig(d_model=CHANNELS, num_feature_levels=2), HEADS, 3)


def mask2former() -> nn.Module:
    from transformers.models.mask2former import modeling_mask2former as module

    return module.Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention(CHANNELS, HEADS, 2, 3)


def rt_detr_v2(**options) -> nn.Module:
    return transformers_layer(
        "rt_detr_v2", "RTDetrV2MultiscaleDeformableAttention", "RTDetrV2Config", decoder_n_levels=2, decoder_n_points=3, **options
    )


def d_fine(**options) -> nn.Module:
    return transformers_layer("d_fine", "DFineMultiscaleDeformableAttention", "DFineConfig", num_feature_levels=2, **options)


def mmcv_attention(**options) -> nn.Module:
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttention

    return MultiScaleDeformableAttention(CHANNELS, HEADS, 2, 3, dropout=0.0, **options)


def ultralytics_attention() -> nn.Module:
    from ultralytics.nn.modules.transformer import MSDeformAttn

    return MSDeformAttn(CHANNELS, 2, HEADS, 3)


LAYERS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "deformable_detr": ("torch", lambda: Pyramid(MSDeformAttn(), of_deformable_detr)),
    "deformable_detr_boxes": ("torch", lambda: Pyramid(MSDeformAttn(), of_deformable_detr, 4)),
    "deformable_detr_in_pytorch": ("torch", lambda: Pyramid(MSDeformAttn(use_kernel=False), of_deformable_detr)),
    "dcnv4_flash": ("torch", lambda: Pyramid(FlashAttention(), of_flash)),
    "transformers_deformable_detr": ("transformers", lambda: Pyramid(deformable_detr(), of_transformers)),
    "transformers_mask2former": ("transformers", lambda: Pyramid(mask2former(), of_mask2former)),
    "transformers_rt_detr_v2": ("transformers", lambda: Pyramid(rt_detr_v2(), of_transformers, 4, per_level=False)),
    "transformers_rt_detr_v2_discrete": (
        "transformers",
        lambda: Pyramid(rt_detr_v2(decoder_method="discrete"), of_transformers, 4, per_level=False),
    ),
    "transformers_d_fine": ("transformers", lambda: Pyramid(d_fine(decoder_n_points=[2, 4]), of_transformers, 4, per_level=False)),
    "mmcv": ("mmcv", lambda: Pyramid(mmcv_attention(batch_first=True), of_mmcv)),
    "mmcv_time_first": ("mmcv", lambda: Pyramid(mmcv_attention(), of_mmcv_time_first, 4)),
    "ultralytics": ("ultralytics", lambda: Pyramid(ultralytics_attention(), of_ultralytics, 4, per_level=False)),
}
CASES = [
    pytest.param(build, marks=[pytest.mark.backend(package), *([pytest.mark.slow] if package == "transformers" else [])], id=name)
    for name, (package, build) in LAYERS.items()
]
SIMILAR = {"deformable_detr_boxes", "deformable_detr_in_pytorch", "transformers_rt_detr_v2", "mmcv"}  # exported in another form already


@pytest.mark.slow
@pytest.mark.parametrize("build", CASES)
def test_attention_computes_the_same(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = with_large_offsets(build())
    with foreign.compiled(), torch.no_grad():
        wanted = model(image(CHANNELS))
        output, notes = replaced(model, image(CHANNELS))
    assert largest(output, wanted) < 1e-5
    assert all("equal within" in note for note in notes)


@pytest.mark.slow
@pytest.mark.backend("ort")
@pytest.mark.parametrize("build", [case for case in CASES if case.id not in SIMILAR])
def test_attention_exported_with_dynamic_sizes(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = with_large_offsets(build())
    with foreign.compiled():
        with torch.no_grad():
            wanted = model(image(CHANNELS))
        outputs, report = exported(model, (image(CHANNELS),), tmp_path, dynamic_shapes=(DYNAMIC,))
    assert largest(outputs[0], wanted) < 1e-4
    assert report.operators == {"deploydcn::MSDeformAttn": 1}
    assert len(report.checks) > 2


def test_attention_without_the_extension() -> None:
    model = with_large_offsets(Pyramid(MSDeformAttn(), of_deformable_detr))
    with foreign.compiled(), torch.no_grad():
        wanted = model(image(CHANNELS))
    output, notes = replaced(model, image(CHANNELS), runs_here=False)
    assert largest(output, wanted) < 1e-5
    assert any("not compared: it does not run on this machine (RuntimeError: the extension is not compiled)" in note for note in notes)


def multi_scale_deformable_attention_v2(
    value: Tensor, value_spatial_shapes, sampling_locations, attention_weights, num_points_list, method="nearest"
):
    return value.flatten(2)[:, : sampling_locations.shape[1]]


def test_an_unknown_method_is_refused() -> None:
    class Uses(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            value = x.flatten(2).transpose(1, 2)[:, :, None]
            locations = x.new_zeros(x.shape[0], 5, 1, 2, 2)
            return multi_scale_deformable_attention_v2(value, [x.shape[2:]], locations, locations[..., 0], [2])

    with pytest.raises(ExportError, match="method 'nearest' has no exact equivalent; wanted 'default' or 'discrete'"):
        replaced(Uses(), image())


@pytest.mark.slow
@pytest.mark.backend("transformers")
def test_every_attention_in_transformers_is_known() -> None:
    """By name and parameters, over the whole package: a release that changes them is noticed here."""
    import transformers

    functions = {pattern[2:]: ours for pattern, ours in deformable_attention.FRONTEND.functions}
    seen = set()
    for path in sorted(Path(transformers.__file__).parent.glob("models/*/modeling_*.py")):
        source = path.read_text()
        if "class MultiScaleDeformableAttention(" not in source and "def multi_scale_deformable_attention" not in source:
            continue
        module = importlib.import_module(f"transformers.models.{path.parent.name}.{path.stem}")
        for name, ours in functions.items():
            if function := vars(module).get(name):
                assert list(inspect.signature(function).parameters) == list(inspect.signature(ours).parameters), path.stem
                seen.add(path.stem)
        if kind := vars(module).get("MultiScaleDeformableAttention"):
            assert deformable_attention.FRONTEND.modules["*.MultiScaleDeformableAttention"](kind()) is not None, path.stem
            seen.add(path.stem)
    assert len(seen) >= 10


@pytest.mark.slow
@pytest.mark.backend("ort")
@pytest.mark.backend("transformers")
def test_a_whole_deformable_detr(tmp_path: Path) -> None:
    from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection, ResNetConfig

    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            stages = ["stage2", "stage3", "stage4"]
            backbone = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 16, 16], depths=[1] * 4, layer_type="basic", out_features=stages)
            sizes = {f"{part}_{name}": 2 if name == "layers" else 16 for part in ("encoder", "decoder") for name in ("layers", "ffn_dim")}
            heads = {"encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS}
            self.detector = DeformableDetrForObjectDetection(
                DeformableDetrConfig(backbone_config=backbone, d_model=32, num_queries=7, **sizes, **heads)
            )

        def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
            result = self.detector(pixels)
            return result.logits, result.pred_boxes

    torch.manual_seed(0)
    model = with_large_offsets(Detector())
    _, report = exported(model, (image(3, (64, 96), 1),), tmp_path)
    assert report.operators == {"deploydcn::MSDeformAttn": 4}
    kind = "transformers.models.deformable_detr.modeling_deformable_detr.MultiScaleDeformableAttention"
    assert report.notes[0].startswith(f"4 {kind} replaced (deformable attention); equal within")
