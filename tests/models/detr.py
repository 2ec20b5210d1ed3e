"""Detectors and segmenters of `transformers` with multi-scale deformable attention, and one without as control."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.models.zoo import IMAGE, Model, Pick, image

STAGES = {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "layer_type": "basic"}
LAST_THREE = ["stage2", "stage3", "stage4"]
SWIN = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 4}
TRANSFORMER = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "num_queries": 20,
}
RT = {
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [32, 48, 64],
    "encoder_ffn_dim": 64,
    "encoder_attention_heads": 4,
    "d_model": 32,
    "decoder_in_channels": [32, 32, 32],
    "decoder_ffn_dim": 64,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "num_queries": 20,
    "num_labels": 5,
    "num_denoising": 0,
    "anchor_image_size": None,  # anchors for every size
    "eval_size": None,
}
BOXES = ("logits", "pred_boxes")
IN_BOXES = 16.0
"""Offsets of RT-DETR's decoder are eighths of a box, which are small before training: so many are about a pixel."""


def _settled(model: nn.Module, *, pixels: float = 1.0, **example: Tensor) -> tuple[nn.Module, dict[str, Any]]:
    from seeding import calibrate_batch_norm, seed_offsets, seed_weights

    seed_weights(model)
    calibrate_batch_norm(model, **example)
    seed_offsets(model, pixels=pixels)
    return model.eval(), example


def _deformable_detr(**options: Any) -> nn.Module:
    from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection, ResNetConfig

    backbone = ResNetConfig(**STAGES, out_features=LAST_THREE)
    given = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, "num_labels": 5, **TRANSFORMER, **options}
    return DeformableDetrForObjectDetection(DeformableDetrConfig(backbone_config=backbone, **given))


def deformable_detr() -> tuple[nn.Module, dict[str, Any]]:
    return _settled(Pick(_deformable_detr(), *BOXES), pixel_values=image())


def deformable_detr_masked() -> tuple[nn.Module, dict[str, Any]]:
    """Two images of different sizes, padded to one; the mask says where."""
    mask = torch.ones(2, 96, 128, dtype=torch.int64)
    mask[1, 72:] = 0
    mask[1, :, 88:] = 0
    return _settled(Pick(_deformable_detr(), *BOXES), pixel_values=image(batch=2) * mask[:, None], pixel_mask=mask)


def deformable_detr_two_stage() -> tuple[nn.Module, dict[str, Any]]:
    model = _deformable_detr(two_stage=True, with_box_refine=True, two_stage_num_proposals=20)
    return _settled(Pick(model, *BOXES), pixel_values=image())


def rt_detr() -> tuple[nn.Module, dict[str, Any]]:
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    config = RTDetrConfig(backbone_config=RTDetrResNetConfig(**STAGES, out_features=LAST_THREE), **RT)
    return _settled(Pick(RTDetrForObjectDetection(config), *BOXES), pixels=IN_BOXES, pixel_values=image())


def rt_detr_v2() -> tuple[nn.Module, dict[str, Any]]:
    from transformers import RTDetrResNetConfig, RTDetrV2Config, RTDetrV2ForObjectDetection

    config = RTDetrV2Config(backbone_config=RTDetrResNetConfig(**STAGES, out_features=LAST_THREE), **RT)
    return _settled(Pick(RTDetrV2ForObjectDetection(config), *BOXES), pixels=IN_BOXES, pixel_values=image())


def d_fine() -> tuple[nn.Module, dict[str, Any]]:
    from transformers import DFineConfig, DFineForObjectDetection, HGNetV2Config

    backbone = HGNetV2Config(
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 16, 32, 48],
        stage_mid_channels=[8, 8, 16, 16],
        stage_out_channels=[16, 32, 48, 64],
        stage_num_blocks=[1, 1, 1, 1],
        stage_numb_of_layers=[2, 2, 2, 2],
        hidden_sizes=[16, 32, 48, 64],
        embedding_size=8,
        out_features=LAST_THREE,
    )
    return _settled(
        Pick(DFineForObjectDetection(DFineConfig(backbone_config=backbone, **RT)), *BOXES), pixels=IN_BOXES, pixel_values=image()
    )


def mask2former() -> tuple[nn.Module, dict[str, Any]]:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    config = Mask2FormerConfig(
        backbone_config=SwinConfig(**SWIN, out_features=["stage1", *LAST_THREE]),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=64,
        encoder_layers=2,
        decoder_layers=2,
        num_attention_heads=4,
        dim_feedforward=64,
        num_queries=10,
        num_labels=5,
    )
    model = Pick(Mask2FormerForUniversalSegmentation(config), "class_queries_logits", "masks_queries_logits")
    return _settled(model, pixel_values=image(128, 160))


def oneformer() -> tuple[nn.Module, dict[str, Any]]:
    from transformers import OneFormerConfig, OneFormerForUniversalSegmentation, SwinConfig

    config = OneFormerConfig(
        backbone_config=SwinConfig(**SWIN, out_features=["stage1", *LAST_THREE]),
        num_queries=10,
        hidden_dim=32,
        conv_dim=32,
        mask_dim=32,
        encoder_feedforward_dim=64,
        dim_feedforward=64,
        encoder_layers=2,
        decoder_layers=3,
        query_dec_layers=1,
        num_attention_heads=4,
        task_seq_len=8,
        is_training=False,
    )
    model = Pick(OneFormerForUniversalSegmentation(config), "class_queries_logits", "masks_queries_logits")
    return _settled(model, pixel_values=image(128, 160), task_inputs=torch.randint(0, 99, (1, 8)))


def _grounding(config: Any, detector: Any) -> tuple[nn.Module, dict[str, Any]]:
    from transformers import BertConfig, SwinConfig

    text = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=3000)
    built = config(backbone_config=SwinConfig(**SWIN, out_features=LAST_THREE), text_config=text, max_text_len=16, **TRANSFORMER)
    words = torch.tensor([[101, 7, 8, 1012, 9, 1012, 102]])  # [CLS] two words . one word . [SEP]
    return _settled(Pick(detector(built), *BOXES), pixel_values=image(128, 160), input_ids=words)


def grounding_dino() -> tuple[nn.Module, dict[str, Any]]:
    from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection

    return _grounding(GroundingDinoConfig, GroundingDinoForObjectDetection)


def mm_grounding_dino() -> tuple[nn.Module, dict[str, Any]]:
    from transformers import MMGroundingDinoConfig, MMGroundingDinoForObjectDetection

    return _grounding(MMGroundingDinoConfig, MMGroundingDinoForObjectDetection)


def conditional_detr() -> tuple[nn.Module, dict[str, Any]]:
    from transformers import ConditionalDetrConfig, ConditionalDetrForObjectDetection, ResNetConfig

    backbone = ResNetConfig(**STAGES, out_features=["stage4"])
    given = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, "num_labels": 5, **TRANSFORMER}
    model = ConditionalDetrForObjectDetection(ConditionalDetrConfig(backbone_config=backbone, **given))
    return _settled(Pick(model, *BOXES), pixel_values=image())


PIXELS = {"pixel_values": IMAGE}
MASKED = {**PIXELS, "pixel_mask": {0: "n", 1: "h", 2: "w"}}
ATTENTION = ("deploydcn::MSDeformAttn",)
WORDS = {**PIXELS, "input_ids": {0: "n"}}

MODELS = (
    Model("Deformable-DETR", "transformers", deformable_detr, PIXELS),
    Model("Deformable-DETR, pixel_mask", "transformers", deformable_detr_masked, MASKED, quick=True, operators=ATTENTION),
    Model("Deformable-DETR, two stages, box refinement", "transformers", deformable_detr_two_stage, PIXELS),
    Model("RT-DETR", "transformers", rt_detr, PIXELS, quick=True, operators=ATTENTION),
    Model("RT-DETRv2", "transformers", rt_detr_v2, PIXELS),
    Model("D-FINE", "transformers", d_fine, PIXELS),
    Model("Mask2Former", "transformers", mask2former, PIXELS),
    Model("OneFormer", "transformers", oneformer, {**PIXELS, "task_inputs": {0: "n"}}),
    Model("Grounding DINO", "transformers", grounding_dino, WORDS),
    Model("MM Grounding DINO", "transformers", mm_grounding_dino, WORDS),
    Model("Conditional DETR (control)", "transformers", conditional_detr, PIXELS),
)
