"""The classes of installed frameworks themselves, with large offsets: published outputs where there are some, and files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from tests.frontends.helpers import DYNAMIC, Golden, exported, goldens, image, largest, replaced, with_large_offsets
from tests.frontends.test_deform_conv import TOLERANCE, load

MISSING = "not compared: it does not run on this machine (RuntimeError: mmcv._ext is not compiled)"


# ----------------------------------------------------------------------------------------------------------------- mmcv
@pytest.mark.backend("mmcv")
@pytest.mark.parametrize("case", goldens("mmcv_modulateddeformconv2dpack"), ids=str)
def test_mmcv_modulated_pack(case: Golden) -> None:
    from mmcv.ops.modulated_deform_conv import ModulatedDeformConv2dPack

    module = load(ModulatedDeformConv2dPack(4, 6, 3, **case.options), case)
    output, notes = replaced(module, case.inputs["x"], runs_here=False)
    assert largest(output, case.outputs["output"]) < TOLERANCE
    assert notes == [f"mmcv.ops.modulated_deform_conv.ModulatedDeformConv2dFunction replaced (mmcv); {MISSING}"]


@pytest.mark.backend("mmcv")
@pytest.mark.parametrize("case", goldens("mmcv_deformconv2d_module"), ids=str)
def test_mmcv_deform_conv(case: Golden) -> None:
    """Inputs smaller than the kernel too: mmcv pads and crops them."""
    from mmcv.ops.deform_conv import DeformConv2d

    module = load(DeformConv2d(3, 4, 3, **case.options), case)
    output, _ = replaced(module, case.inputs["x"], case.inputs["offset"], runs_here=False)
    assert largest(output, case.outputs["output"]) < TOLERANCE


class MmcvStack(nn.Module):
    """As in an mmdetection backbone: a pack of each kind, and norms between."""

    def __init__(self) -> None:
        super().__init__()
        from mmcv.ops.deform_conv import DeformConv2dPack
        from mmcv.ops.modulated_deform_conv import ModulatedDeformConv2dPack

        self.first = ModulatedDeformConv2dPack(4, 8, 3, stride=2, padding=2, dilation=2, deform_groups=2)
        self.norm = nn.BatchNorm2d(8)
        self.second = DeformConv2dPack(8, 6, 3, padding=1, groups=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.norm(self.first(x))))


@pytest.mark.slow
@pytest.mark.backend("ort")
@pytest.mark.backend("mmcv")
def test_mmcv_exported_with_dynamic_sizes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = with_large_offsets(MmcvStack())
    _, report = exported(model, (image(),), tmp_path, dynamic_shapes=(DYNAMIC,))
    assert report.operators == {"deploydcn::DeformConv2d": 2}
    assert len(report.checks) > 2
    assert report.notes[0].startswith("the model itself does not run on this machine (RuntimeError: mmcv._ext is not compiled)")
    assert sum(MISSING in note for note in report.notes) == 2


# -------------------------------------------------------------------------------------------------------------- BasicSR
class Align(nn.Module):
    """EDVR's alignment: offsets of one feature map, taken from another."""

    def __init__(self, pack: nn.Module) -> None:
        super().__init__()
        self.pack = pack

    def forward(self, x: torch.Tensor, neighbour: torch.Tensor) -> torch.Tensor:
        return self.pack(neighbour, x)


def align(case: Golden) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    from basicsr.archs.arch_util import DCNv2Pack

    return Align(load(DCNv2Pack(8, 6, **case.options), case)), case.inputs["feat"], case.inputs["x"]


@pytest.mark.slow
@pytest.mark.backend("basicsr")
@pytest.mark.parametrize("case", goldens("basicsr_dcnv2pack"), ids=str)
def test_basicsr_pack(case: Golden) -> None:
    output, notes = replaced(*align(case))
    assert largest(output, case.outputs["output"]) < TOLERANCE
    assert notes[0].startswith("1 basicsr.archs.arch_util.DCNv2Pack replaced (EDVR); equal within")


@pytest.mark.slow
@pytest.mark.backend("ort")
@pytest.mark.backend("basicsr")
def test_basicsr_exported_with_dynamic_sizes(tmp_path: Path) -> None:
    case = goldens("basicsr_dcnv2pack")[0]
    model, *arguments = align(case)
    outputs, report = exported(model, tuple(arguments), tmp_path, dynamic_shapes=(DYNAMIC, DYNAMIC))
    assert largest(outputs[0], case.outputs["output"]) < TOLERANCE
    assert report.operators == {"deploydcn::DeformConv2d": 1}


# --------------------------------------------------------------------------------------------------------------- kornia
def aliked_layer() -> nn.Module:
    from kornia.feature.aliked.aliked import DeformableConv2d

    layer = DeformableConv2d(4, 6, kernel_size=3, stride=1, padding=1, mask=True)
    return nn.Sequential(layer, nn.SELU())


@pytest.mark.backend("kornia")
def test_kornia_aliked_layer() -> None:
    torch.manual_seed(0)
    model = with_large_offsets(aliked_layer())
    with torch.no_grad():
        wanted = model(image())
    output, notes = replaced(model, image())
    assert largest(output, wanted) < 1e-5
    assert notes[0].startswith("kornia.feature.aliked.deform_conv2d.deform_conv2d replaced (kornia); equal within")


@pytest.mark.slow
@pytest.mark.backend("ort")
@pytest.mark.backend("kornia")
def test_kornia_aliked_exported_with_dynamic_sizes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = with_large_offsets(aliked_layer())
    with torch.no_grad():
        wanted = model(image())
    outputs, report = exported(model, (image(),), tmp_path, dynamic_shapes=(DYNAMIC,))
    assert largest(outputs[0], wanted) < 1e-4
    assert report.operators == {"deploydcn::DeformConv2d": 1}


# --------------------------------------------------------------------------------------------------------- torchvision
class BiRefNetBlock(nn.Module):
    """Offsets and mask of a layer's own window; mask twice a sigmoid, so that it starts at one; windows 1, 3 and 7."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for kernel in (1, 3, 7):
            regular = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
            offset = nn.Conv2d(channels, 2 * kernel * kernel, kernel, padding=kernel // 2)
            modulator = nn.Conv2d(channels, kernel * kernel, kernel, padding=kernel // 2)
            self.layers.append(nn.ModuleDict({"regular_conv": regular, "offset_conv": offset, "modulator_conv": modulator}))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        results = []
        for layer in self.layers:
            conv = layer["regular_conv"]
            mask = 2.0 * torch.sigmoid(layer["modulator_conv"](x))
            results.append(torchvision.ops.deform_conv2d(x, layer["offset_conv"](x), conv.weight, conv.bias, 1, conv.padding, mask=mask))
        return torch.cat(results, dim=1)


@pytest.mark.slow
@pytest.mark.backend("ort")
def test_birefnet_block_exported_with_dynamic_sizes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = with_large_offsets(BiRefNetBlock())
    with torch.no_grad():
        wanted = model(image())
    outputs, report = exported(model, (image(),), tmp_path, dynamic_shapes=(DYNAMIC,))
    assert largest(outputs[0], wanted) < 1e-4
    assert report.operators == {"deploydcn::DeformConv2d": 3}
