"""Sample 06: torchvision's Faster R-CNN on a ResNet-FPN with deformable 3x3 convolutions, at any image size.

    python samples/s06_faster_rcnn.py

NMS keeps as many boxes as it finds: the file's outputs have a data-dependent length. Two things are fixed in a file: the number of
images, over which torchvision loops in Python, and how images are resized, which is left to the caller (see `Detector`).
TensorRT-RTX has no NonZero, which choosing boxes needs: `build_dense` is the part with all the arithmetic, up to the region
proposal head, for its engines. The weights are seeded, not trained; see seeding.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torchvision
from rich.console import Console
from seeding import calibrate_batch_norm, deformable_copy, seed_offsets
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.image_list import ImageList

import deploydcn
from deploydcn.vision import Detections, match_detections

CLASSES = 6
CONFIDENCE = 0.4


class Detector(nn.Module):
    """A torchvision R-CNN behind its resizing: images come at the size the network sees, boxes go out in their pixels.

    torchvision resizes every image to its `min_size` and pads it to a multiple of 32 in the model. Letterboxing in front of the file
    does the same, once, where the image is decoded.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """images (N, 3, H, W) in [0, 1], H and W multiples of 32 -> per image boxes (K, 4) as x1, y1, x2, y2, scores (K), labels (K)."""
        images = torch.stack([self.model.transform.normalize(image) for image in images.unbind()])
        sizes = [tuple(images.shape[-2:])] * images.shape[0]
        features = self.model.backbone(images)
        proposals, _ = self.model.rpn(ImageList(images, sizes), features)
        detections, _ = self.model.roi_heads(features, proposals, sizes)
        return detections


class Dense(nn.Module):
    """Everything up to the choice of boxes: the feature pyramid, objectness and box deltas of every anchor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """images (N, 3, H, W) in [0, 1] -> per level l: features_l (N, 256, h, w), objectness_l (N, A, h, w), deltas_l (N, 4*A, h, w)."""
        features = self.model.backbone(self.model.transform.normalize(images))
        objectness, deltas = self.model.rpn.head(list(features.values()))
        named = {"features": features.values(), "objectness": objectness, "deltas": deltas}
        return {f"{name}_{level}": tensor for name, tensors in named.items() for level, tensor in enumerate(tensors)}


def picture(height: int, width: int, batch: int) -> Tensor:
    """Smooth random images in [0, 1]."""
    generator = torch.Generator().manual_seed(height + width)
    noise = torch.rand(batch, 3, 12, 12, generator=generator)
    return nn.functional.interpolate(noise, size=(height, width), mode="bicubic").clamp(0, 1)


def build_model(images: Tensor) -> nn.Module:
    """A Faster R-CNN on ResNet-18, deformable from conv3 on, whose scores spread as a trained one's do."""
    torch.manual_seed(0)
    body = torchvision.models.resnet18(weights=None)
    for stage in (body.layer2, body.layer3, body.layer4):
        for block in stage:
            block.conv2 = deformable_copy(block.conv2)
    levels = {f"layer{index}": str(index - 1) for index in range(1, 5)}
    model = FasterRCNN(
        BackboneWithFPN(body, levels, [64, 128, 256, 512], 256),
        num_classes=CLASSES,
        rpn_post_nms_top_n_test=100,
        box_score_thresh=CONFIDENCE,
        box_detections_per_img=50,
    )
    seed_offsets(model)
    model.eval()
    calibrate_batch_norm(body, model.transform.normalize(images))
    _spread(model, [model.rpn.head.cls_logits, model.roi_heads.box_predictor.cls_score], images)
    return model


@torch.no_grad()
def _spread(model: nn.Module, layers: list[nn.Module], images: Tensor, *, deviation: float = 2.0) -> None:
    """Scale layers of logits, in the order they run in, so that near-equal scores are rare and some exceed CONFIDENCE."""
    detector = Detector(model)
    for layer in layers:
        seen: list[Tensor] = []
        hook = layer.register_forward_hook(lambda _m, _i, out, seen=seen: seen.append(out.flatten()))
        detector(images)
        hook.remove()
        layer.weight.mul_(deviation / torch.cat(seen).std())


def build(batch: int = 1, size: tuple[int, int] = (128, 160)) -> tuple[nn.Module, dict[str, Tensor]]:
    """The detector and example images."""
    images = picture(*size, batch)
    return Detector(build_model(images)).eval(), {"images": images}


def build_dense(batch: int = 1, size: tuple[int, int] = (128, 160)) -> tuple[nn.Module, dict[str, Tensor]]:
    """The part for TensorRT-RTX, and example images."""
    images = picture(*size, batch)
    return Dense(build_model(images)).eval(), {"images": images}


def detections(outputs: dict[str, np.ndarray], index: int) -> Detections:
    """Those of one image, from a file's outputs."""
    return Detections(*(outputs[f"output_{index}_{part}"] for part in ("boxes", "scores", "labels")))


def main() -> None:
    """Export for two images, and match every box with PyTorch's at several sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("faster_rcnn.onnx"))
    output: Path = parser.parse_args().output
    console = Console(highlight=False)
    model, example = build(batch=2)
    with console.status("exporting, and running the file at several sizes against PyTorch"):
        report = deploydcn.export_onnx(model, None, output, kwargs=example, dynamic_shapes={"images": {2: "h", 3: "w"}})
    console.print(report.summary(), soft_wrap=True)
    reference, runner = deploydcn.load((model, example), "torch"), deploydcn.load(output)
    for height, width in ((128, 160), (224, 128), (160, 256)):
        images = [picture(height, width, 2).numpy()]
        expected, got = reference.run(images), runner.run(images)
        for index in range(2):
            ours, theirs = detections(got, index), detections(expected, index)
            pairs = match_detections(theirs, ours, iou=0.99)
            console.print(f"{height}x{width}, image {index}: {len(theirs)} boxes in PyTorch, {len(pairs)} matched in ONNX Runtime")
            if not len(ours) == len(theirs) == len(pairs) > 0:
                raise SystemExit("wanted every box matched")


if __name__ == "__main__":
    main()
