"""Deformable RoI pooling of mmcv, CharlesShang/DCNv2 and mmdetection 1, against published outputs and through files."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.autograd import Function

from tests.frontends import foreign
from tests.frontends.helpers import Golden, exported, golden, goldens, largest, replaced
from tests.frontends.test_deform_conv import TOLERANCE, load


class _DCNv2Pooling(Function):
    @staticmethod
    def forward(
        ctx,
        input,
        rois,
        offset,
        spatial_scale,
        pooled_size,
        output_dim,
        no_trans,
        group_size=1,
        part_size=None,
        sample_per_part=4,
        trans_std=0.0,
    ):
        foreign.require_compiled()


class DeformRoIPoolingFunction(Function):
    """mmdetection 1 has the same kernel under other names."""

    @staticmethod
    def forward(
        ctx,
        data,
        rois,
        offset,
        spatial_scale,
        out_size,
        out_channels,
        no_trans,
        group_size=1,
        part_size=None,
        sample_per_part=4,
        trans_std=0.0,
    ):
        foreign.require_compiled()


class DCNPooling(nn.Module):
    """A pass without offsets, a small network on it, and a pass with its offsets, times its mask."""

    function: type[Function] = _DCNv2Pooling

    def __init__(self, options: dict[str, float], hidden: int = 8) -> None:
        super().__init__()
        self.options = options
        size = options["pooled_size"] ** 2
        layers = [
            nn.Linear(options["output_dim"] * size, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 3 * size),
        ]
        self.offset_mask_fc = nn.Sequential(*layers)

    def pooled(self, x, rois, offset, no_trans):
        options = self.options
        return self.function.apply(
            x,
            rois,
            offset,
            options["spatial_scale"],
            options["pooled_size"],
            options["output_dim"],
            no_trans,
            options["group_size"],
            options["part_size"],
            options["sample_per_part"],
            options["trans_std"],
        )

    def forward(self, x, rois):
        first = self.pooled(x, rois, x.new_empty(0), True)
        size = self.options["pooled_size"]
        offset_x, offset_y, mask = self.offset_mask_fc(first.flatten(1)).view(-1, 3, size, size).chunk(3, 1)
        return self.pooled(x, rois, torch.cat((offset_x, offset_y), 1), False) * torch.sigmoid(mask)


class OldDeformRoIPoolingPack(DCNPooling):
    function = DeformRoIPoolingFunction


@pytest.mark.parametrize("kind", [DCNPooling, OldDeformRoIPoolingPack])
def test_position_sensitive_pooling(kind: type[DCNPooling]) -> None:
    case = golden("charlesshang_dcnpooling_module__basic")
    module = load(kind(case.options), case)
    output, _ = replaced(module, case.inputs["x"], case.inputs["rois"], runs_here=False)
    assert largest(output, case.outputs["output"]) < TOLERANCE


@pytest.mark.slow
@pytest.mark.backend("ort")
def test_position_sensitive_pooling_exported(tmp_path: Path) -> None:
    case = golden("charlesshang_dcnpooling_module__basic")
    arguments = case.inputs["x"], case.inputs["rois"]
    shapes = ({0: "n", 2: "h", 3: "w"}, {0: "boxes"})
    outputs, report = exported(load(DCNPooling(case.options), case), arguments, tmp_path, dynamic_shapes=shapes)
    assert largest(outputs[0], case.outputs["output"]) < TOLERANCE
    assert report.operators == {"deploydcn::DeformPSRoIPool": 2}


def mmcv_pack(case: Golden) -> nn.Module:
    module = importlib.import_module("mmcv.ops.deform_roi_pool")  # the package has a function of that name too
    return load(getattr(module, str(case))(output_channels=4, deform_fc_channels=8, **case.options), case)


@pytest.mark.slow
@pytest.mark.backend("mmcv")
@pytest.mark.parametrize("case", goldens("mmcv_roi_modules"), ids=str)
def test_mmcv_packs(case: Golden) -> None:
    output, _ = replaced(mmcv_pack(case), case.inputs["x"], case.inputs["rois"], runs_here=False)
    assert largest(output, case.outputs["output"]) < TOLERANCE


@pytest.mark.slow
@pytest.mark.backend("ort")
@pytest.mark.backend("mmcv")
def test_mmcv_pack_exported(tmp_path: Path) -> None:
    case = golden("mmcv_roi_modules__ModulatedDeformRoIPoolPack")
    arguments = case.inputs["x"], case.inputs["rois"]
    shapes = ({0: "n", 2: "h", 3: "w"}, {0: "boxes"})
    outputs, report = exported(mmcv_pack(case), arguments, tmp_path, dynamic_shapes=shapes)
    assert largest(outputs[0], case.outputs["output"]) < TOLERANCE
    assert report.operators == {"deploydcn::DeformRoIPool": 2}
