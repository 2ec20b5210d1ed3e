"""Detectors of torchvision and ultralytics whose 3x3 convolutions are made deformable."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from tests.models.zoo import IMAGE, Model, image

PICTURES = {"images": {2: "h", 3: "w"}}
DCN = ("deploydcn::DeformConv2d",)


def faster_rcnn() -> tuple[nn.Module, dict[str, Any]]:
    from s06_faster_rcnn import build

    return build(batch=2)


def faster_rcnn_dense() -> tuple[nn.Module, dict[str, Any]]:
    from s06_faster_rcnn import build_dense

    return build_dense()


def fcos() -> tuple[nn.Module, dict[str, Any]]:
    """torchvision's own forward, its resizing included: one size of images."""
    import torchvision
    from s06_faster_rcnn import picture
    from seeding import calibrate_batch_norm, deformable_copy, seed_offsets
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    body = torchvision.models.resnet18(weights=None)
    for stage in (body.layer3, body.layer4):
        for block in stage:
            block.conv2 = deformable_copy(block.conv2)
    levels = {"layer2": "0", "layer3": "1", "layer4": "2"}
    backbone = BackboneWithFPN(body, levels, [128, 256, 512], 256, LastLevelP6P7(256, 256))
    model = torchvision.models.detection.FCOS(backbone, 6, min_size=128, max_size=256, score_thresh=1e-3, detections_per_img=20).eval()
    seed_offsets(model)
    images = picture(128, 160, 1)
    calibrate_batch_norm(body, images)
    _spread(model, model.head, images[0])
    return model, {"images": [images[0]]}


def _yolo(configuration: str, *, stages: tuple[int, ...] = (), stem: bool = False) -> tuple[nn.Module, dict[str, Any]]:
    """An ultralytics detector with deformable bottlenecks in `stages`, or a deformable stride-2 stem."""
    os.environ.setdefault("YOLO_OFFLINE", "1")
    from seeding import calibrate_batch_norm, deformable_copy, seed_offsets
    from ultralytics.nn.modules import Bottleneck
    from ultralytics.nn.tasks import DetectionModel

    model = DetectionModel(configuration, nc=5, verbose=False)
    for index in stages:
        for module in model.model[index].modules():
            if isinstance(module, Bottleneck):
                module.cv2.conv = deformable_copy(module.cv2.conv)
    if stem:
        model.model[0].conv = deformable_copy(model.model[0].conv)
    seed_offsets(model)
    pictures = image(128, 160)
    calibrate_batch_norm(model, pictures)
    return model.eval(), {"x": pictures}


@torch.no_grad()
def _spread(model: nn.Module, head: nn.Module, picture: Tensor) -> None:
    """Scale class logits and box deltas so that neither scores nor boxes saturate: the order of equals is rounding's."""
    boxes = head.regression_head.bbox_reg
    for layer, deviation in ((head.classification_head.cls_logits, 0.5), (boxes, 0.2)):
        seen: list[Tensor] = []
        hook = layer.register_forward_hook(lambda _m, _i, out, seen=seen: seen.append(out.flatten()))
        model([picture])
        hook.remove()
        layer.weight.mul_(deviation / torch.cat(seen).std())


def yolov8_c2f() -> tuple[nn.Module, dict[str, Any]]:
    return _yolo("yolov8n.yaml", stages=(6, 8))


def yolov8_stem() -> tuple[nn.Module, dict[str, Any]]:
    return _yolo("yolov8n.yaml", stem=True)


def yolo11() -> tuple[nn.Module, dict[str, Any]]:
    return _yolo("yolo11n.yaml", stages=(6, 8))


def rtdetr_of_ultralytics() -> tuple[nn.Module, dict[str, Any]]:
    os.environ.setdefault("YOLO_OFFLINE", "1")
    from seeding import calibrate_batch_norm, seed_offsets
    from ultralytics.nn.tasks import RTDETRDetectionModel

    model = RTDETRDetectionModel("rtdetr-l.yaml", nc=5, verbose=False).eval()
    model.model[-1].num_queries = 20  # of 420 places: the order of more would be rounding's
    pictures = image(128, 160)
    calibrate_batch_norm(model, pictures)
    seed_offsets(model)
    return FirstOutput(model), {"x": pictures}


class FirstOutput(nn.Module):
    """Boxes and scores; the other outputs serve training."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> (N, Q, 4 + classes)."""
        outputs = self.model(x)
        return outputs[0] if isinstance(outputs, tuple | list) else outputs


YOLO = {"x": IMAGE}
MODELS = (
    Model("Faster R-CNN, deformable ResNet-FPN", "torchvision", faster_rcnn, PICTURES, quick=True, operators=DCN),
    Model("Faster R-CNN up to the proposal head", "torchvision", faster_rcnn_dense, {"images": IMAGE}, operators=DCN),
    Model("FCOS, deformable ResNet-FPN", "torchvision", fcos, None, operators=DCN, note="one image size; the file resizes"),
    Model("YOLOv8n, deformable C2f", "ultralytics", yolov8_c2f, YOLO, operators=DCN),
    Model("YOLOv8n, deformable stride-2 stem", "ultralytics", yolov8_stem, YOLO, quick=True, operators=DCN),
    Model("YOLO11n, deformable C3k2", "ultralytics", yolo11, YOLO, operators=DCN),
    Model("RT-DETR-L of ultralytics", "ultralytics", rtdetr_of_ultralytics, YOLO, operators=("deploydcn::MSDeformAttn",)),
)
