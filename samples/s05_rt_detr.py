"""Sample 05: RT-DETR (transformers), height and width dynamic for real.

    deploydcn export samples/s05_rt_detr.py:build -o rt_detr.onnx --dynamic pixel_values:0=n,2=h,3=w

Anchors and position embeddings are computed for every size, since the configuration names none (`anchor_image_size`, `eval_size`);
height and width must be multiples of 32, as the model's own feature pyramid wants them.
A small configuration with seeded weights; `RTDetrForObjectDetection.from_pretrained(...)` goes the same way.
"""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from seeding import calibrate_batch_norm, seed_offsets, seed_weights
from torch import Tensor, nn
from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig


class Boxes(nn.Module):
    """The two outputs that a detector is for; transformers returns many more."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W) -> logits (N, Q, classes), pred_boxes (N, Q, 4)."""
        outputs = self.model(pixel_values=pixel_values)
        return {"logits": outputs.logits, "pred_boxes": outputs.pred_boxes}


def build(height: int = 96, width: int = 128) -> tuple[nn.Module, dict[str, Tensor]]:
    """The model and an example image."""
    torch.manual_seed(0)
    backbone = RTDetrResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=[32, 48, 64],
        encoder_hidden_dim=32,
        encoder_ffn_dim=64,
        encoder_attention_heads=4,
        d_model=32,
        decoder_in_channels=[32, 32, 32],
        decoder_ffn_dim=64,
        decoder_layers=2,
        decoder_attention_heads=4,
        num_queries=20,
        num_labels=5,
        num_denoising=0,
        anchor_image_size=None,
        eval_size=None,
    )
    model = Boxes(RTDetrForObjectDetection(config)).eval()
    noise = torch.randn(1, 3, 12, 12)
    example = {"pixel_values": nn.functional.interpolate(noise, size=(height, width), mode="bicubic")}
    seed_weights(model)
    calibrate_batch_norm(model, **example)
    seed_offsets(model, pixels=16.0)  # in eighths of a box, which is small before training: about a pixel
    return model, example
