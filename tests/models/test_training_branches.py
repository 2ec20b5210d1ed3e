"""Branches that only training has leave nothing in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import deploydcn
from deploydcn.nn import DeformConv2d

pytestmark = [pytest.mark.backend("ort"), pytest.mark.slow]


def features(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, 2, 1), nn.BatchNorm2d(channels), nn.ReLU(), DeformConv2d(channels, channels, 3, padding=1), nn.ReLU()
    )


class Mimicking(nn.Module):
    """R-CNN feature mimicking (Deformable ConvNets v2, section 4): while training, a second network sees the cropped region alone, and the
    detector's features there are pulled towards its. always: the mistake of computing that at inference too."""

    def __init__(self, *, always: bool = False) -> None:
        super().__init__()
        self.always = always
        self.backbone = features(8)
        self.classify = nn.Linear(8, 5)
        self.mimic = features(6)
        self.mimic_embed, self.embed = nn.Linear(6, 16), nn.Linear(8, 16)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        whole = self.backbone(images)
        outputs = {"logits": self.classify(whole.mean((2, 3)))}
        if self.training or self.always:
            region = whole[:, :, 2:10, 2:10].mean((2, 3))
            crop = F.interpolate(images[:, :, 4:20, 4:20], scale_factor=2.0)
            outputs["mimic_loss"] = 1 - F.cosine_similarity(self.embed(region), self.mimic_embed(self.mimic(crop).mean((2, 3))))
        return outputs


TRAINING_ONLY = ("mimic", "mimic_embed", "embed")


def built(*, always: bool = False) -> Mimicking:
    """Weights and offsets that are not zero; in training mode, as a training script leaves it."""
    torch.manual_seed(0)
    model = Mimicking(always=always)
    for module in model.modules():
        if isinstance(module, DeformConv2d):
            nn.init.normal_(module.offset_conv.weight, std=0.05)
            nn.init.normal_(module.offset_conv.bias)
    return model.train()


def traces(path: Path, model: nn.Module) -> list[str]:
    """Nodes and weights of the training-only parts in a file."""
    graph = onnx.load(path).graph
    weights = [value.numpy() for name, value in model.state_dict().items() if name.partition(".")[0] in TRAINING_ONLY and value.ndim]
    nodes = [node.name for node in graph.node if node.name.partition(".")[0].partition("/")[0] in TRAINING_ONLY]
    held = [numpy_helper.to_array(tensor) for tensor in graph.initializer]
    alike = [str(weight.shape) for weight in weights if any(_holds(array, weight) for array in held)]
    return nodes + alike


def _holds(array: np.ndarray, weight: np.ndarray) -> bool:
    return weight.size > 1 and np.ptp(weight) > 0 and array.size == weight.size and bool(np.isin(weight, array).all())


def test_a_model_in_training_mode_exports_without_its_training_branch(tmp_path: Path) -> None:
    model, images = built(), torch.rand(2, 3, 32, 32)
    path, other = tmp_path / "m.onnx", tmp_path / "other.onnx"
    report = deploydcn.export_onnx(model, images, path, dynamic_shapes=({0: "n"},))
    assert [info.name for info in report.outputs] == ["logits"]
    assert report.operators == {"deploydcn::DeformConv2d": 1}
    assert not traces(path, model)
    assert model.training
    assert "mimic_loss" in model(images)
    # What the branch weighs does not matter to a single byte.
    with torch.no_grad():
        for name in TRAINING_ONLY:
            for parameter in getattr(model, name).parameters():
                parameter.add_(1)
    model.load_state_dict({**model.state_dict(), **{k: v for k, v in built().state_dict().items() if k.startswith("backbone")}})
    deploydcn.export_onnx(model, images, other, dynamic_shapes=({0: "n"},))
    assert path.read_bytes() == other.read_bytes()


def test_a_branch_that_stays_would_be_found(tmp_path: Path) -> None:
    """The planted mistake: the same branch, not conditional on training."""
    model, path = built(always=True), tmp_path / "m.onnx"
    report = deploydcn.export_onnx(model, torch.rand(2, 3, 32, 32), path)
    assert len(report.outputs) == 2
    assert report.operators == {"deploydcn::DeformConv2d": 2}
    found = traces(path, model)
    assert any(name.startswith("mimic") for name in found), found
    assert any(name.startswith("(") for name in found), found
