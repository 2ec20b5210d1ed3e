"""torchvision's detectors: what stands in for its functions while they are traced computes the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import deploydcn
from deploydcn.export.frontends.torchvision import _paste_masks_in_image
from deploydcn.nn import DeformConv2d

BOXES = {
    "inside": [3.2, 4.1, 30.0, 20.5],
    "beyond every border": [-6.0, -3.0, 200.0, 90.0],
    "beyond the corner": [60.0, 40.0, 200.0, 300.0],
    "smaller than a pixel": [50.0, 10.0, 50.2, 10.3],
    "narrow": [5.0, 5.0, 6.0, 60.0],
}


@pytest.mark.parametrize("boxes", [*[[box] for box in BOXES.values()], list(BOXES.values())], ids=[*BOXES, "all"])
def test_masks_are_pasted_alike(boxes: list[list[float]]) -> None:
    """float32 positions along 200 pixels: 1e-5 of a mask's cell."""
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    masks = torch.rand(len(boxes), 1, 28, 28, generator=torch.Generator().manual_seed(0))
    wanted = paste_masks_in_image(masks, torch.tensor(boxes), (64, 80))
    assert wanted.any()
    torch.testing.assert_close(_paste_masks_in_image(masks, torch.tensor(boxes), (64, 80)), wanted, rtol=0, atol=1e-5)


def test_no_mask_is_pasted() -> None:
    assert _paste_masks_in_image(torch.rand(0, 1, 28, 28), torch.rand(0, 4), (64, 80)).shape == (0, 1, 64, 80)


class Instances(nn.Module):
    """A small Mask R-CNN on one deformable feature map."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models.detection import MaskRCNN
        from torchvision.models.detection.anchor_utils import AnchorGenerator
        from torchvision.ops import MultiScaleRoIAlign

        features = nn.Sequential(nn.Conv2d(3, 8, 7, 4, 3), nn.ReLU(), DeformConv2d(8, 16, 3, padding=1), nn.Tanh())
        features.out_channels = 16  # type: ignore[assignment]
        self.detector = MaskRCNN(
            features,
            num_classes=3,
            min_size=64,
            max_size=96,
            rpn_anchor_generator=AnchorGenerator(((16, 32),), ((0.5, 1.0),)),
            box_roi_pool=MultiScaleRoIAlign(["0"], 5, 2),
            mask_roi_pool=MultiScaleRoIAlign(["0"], 6, 2),
            rpn_post_nms_top_n_test=10,
            box_detections_per_img=5,
        )

    def forward(self, picture: Tensor) -> dict[str, Tensor]:
        (found,) = self.detector([picture])
        return {name: found[name] for name in ("boxes", "scores", "masks")}


@pytest.mark.slow
@pytest.mark.backend("ort")
def test_mask_r_cnn_with_its_masks_in_the_picture(tmp_path: Path) -> None:
    torch.manual_seed(0)
    picture = torch.rand(3, 64, 80)
    model = Instances().eval()
    report = deploydcn.export_onnx(model, picture, tmp_path / "m.onnx")
    assert report.operators == {"deploydcn::DeformConv2d": 1}
    masks = model(picture)["masks"]
    assert masks.shape[0] > 0
    assert masks.shape[1:] == (1, 64, 80)
