"""Sample 04: Deformable-DETR (transformers) with pixel_mask, height and width dynamic for real.

    python samples/s04_deformable_detr.py

Images of a batch are padded to one size and a mask says where each ends, as transformers' image processor does it. The model computes
reference points, level sizes and position embeddings from these; all stay dynamic in the file.
A small configuration with seeded weights; `DeformableDetrForObjectDetection.from_pretrained(...)` goes the same way.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from rich.console import Console
from seeding import calibrate_batch_norm, seed_offsets
from torch import Tensor, nn
from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection, ResNetConfig

import deploydcn

DYNAMIC = {"pixel_values": {0: "n", 2: "h", 3: "w"}, "pixel_mask": {0: "n", 1: "h", 2: "w"}}


class Boxes(nn.Module):
    """The two outputs that a detector is for; transformers returns many more."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W) and mask (N, H, W), 1 where there is image -> logits (N, Q, classes), pred_boxes (N, Q, 4)."""
        outputs = self.model(pixel_values=pixel_values, pixel_mask=pixel_mask)
        return {"logits": outputs.logits, "pred_boxes": outputs.pred_boxes}


def padded(sizes: list[tuple[int, int]]) -> dict[str, Tensor]:
    """Smooth random images of these sizes (h, w), padded to the largest, and their mask."""
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
    images, mask = torch.zeros(len(sizes), 3, height, width), torch.zeros(len(sizes), height, width, dtype=torch.int64)
    for index, (h, w) in enumerate(sizes):
        noise = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(index))
        images[index, :, :h, :w] = nn.functional.interpolate(noise, size=(h, w), mode="bicubic")[0]
        mask[index, :h, :w] = 1
    return {"pixel_values": images, "pixel_mask": mask}


def build() -> tuple[nn.Module, dict[str, Tensor]]:
    """The model, and two images of different sizes as its example."""
    torch.manual_seed(0)
    backbone = ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = DeformableDetrConfig(
        backbone_config=backbone,
        backbone=None,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_queries=20,
        num_labels=5,
    )
    model = Boxes(DeformableDetrForObjectDetection(config)).eval()
    example = padded([(96, 128), (72, 88)])
    calibrate_batch_norm(model, **example)
    seed_offsets(model)
    return model, example


def main() -> None:
    """Export, and run one file on batches of other sizes and shapes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("deformable_detr.onnx"))
    output: Path = parser.parse_args().output
    console = Console(highlight=False)
    model, example = build()
    with console.status("exporting, and running the file at several sizes against PyTorch"):
        report = deploydcn.export_onnx(model, None, output, kwargs=example, dynamic_shapes=DYNAMIC)
    console.print(report.summary(), soft_wrap=True)
    reference, runner = deploydcn.load((model, example), "torch"), deploydcn.load(output)
    for sizes in ([(64, 200)], [(200, 64), (120, 60)], [(96, 96), (50, 90), (77, 33)]):
        parity = deploydcn.verify(reference, runner, padded(sizes))
        console.print(f"images {', '.join(f'{h}x{w}' for h, w in sizes)}: {parity.summary()}", soft_wrap=True)
        if not parity.passed:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
