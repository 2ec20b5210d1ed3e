"""Sample 01: torchvision's ResNet-50 with modulated deformable 3x3 convolutions in conv3 to conv5 (Zhu et al. 2019).

    deploydcn export samples/s01_resnet50_dcn.py:build -o resnet50_dcn.onnx --dynamic x:0=n,2=h,3=w
    deploydcn verify samples/s01_resnet50_dcn.py:build resnet50_dcn.onnx

The weights are seeded, not trained; see seeding.py.
"""

from __future__ import annotations

import torch
import torchvision
from seeding import calibrate_batch_norm, deformable_copy, seed_offsets
from torch import Tensor, nn


def build(size: int = 224) -> tuple[nn.Module, Tensor]:
    """The model and an example image (1, 3, size, size)."""
    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None)
    for stage in (model.layer2, model.layer3, model.layer4):
        for block in stage:
            block.conv2 = deformable_copy(block.conv2)
    for module in model.modules():
        if isinstance(module, torchvision.models.resnet.Bottleneck):
            nn.init.constant_(module.bn3.weight, 0.2)  # damped residuals
    seed_offsets(model)
    images = torch.nn.functional.interpolate(torch.randn(4, 3, 16, 16), size=(size, size), mode="bicubic")
    calibrate_batch_norm(model, images)
    return model.eval(), images[:1]
