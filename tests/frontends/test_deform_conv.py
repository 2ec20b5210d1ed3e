"""Frontends for everything that computes a DCNv1 or DCNv2 convolution: against published outputs, then through a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from deploydcn.nn import deform_conv2d_2017, paddle_deform_conv2d
from tests.frontends import foreign
from tests.frontends.helpers import DYNAMIC, Golden, exported, golden, goldens, image, largest, replaced, with_large_offsets

TOLERANCE = 5e-6  # float32: outputs of up to 10, other orders of additions


def load(module: nn.Module, case: Golden, names: dict[str, str] | None = None) -> nn.Module:
    """The golden case's parameters, whose names have _ for dots."""
    state = {name: case.inputs[(names or {}).get(name, name.replace(".", "_"))] for name in module.state_dict()}
    module.load_state_dict(state)
    return module.eval()


# ------------------------------------------------------------------------------------------------------- plain PyTorch
def predicting(case: Golden) -> nn.Module:
    channels, outputs = case.inputs["x"].shape[1], case.inputs["conv_weight"].shape[0]
    options = {name: case.options[name] for name in ("kernel_size", "padding", "stride", "modulation")}
    return load(foreign.DeformConv2d(channels, outputs, bias="conv_bias" in case.inputs, **options), case)


@pytest.mark.parametrize("case", goldens("pytorch_deformconv2d_4uiiurz1"), ids=str)
def test_plain_pytorch_deform_conv(case: Golden) -> None:
    module, x = predicting(case), case.inputs["x"]
    with torch.no_grad():
        assert largest(module(x), case.outputs["output"]) < TOLERANCE  # the class of this test is the published one
    output, notes = replaced(module, x)
    assert largest(output, case.outputs["output"]) < TOLERANCE
    assert notes[0].startswith("1 tests.frontends.foreign.DeformConv2d replaced (pure PyTorch); equal within")


@pytest.mark.parametrize("case", goldens("pytorch_deformconv2d_old"), ids=str)
def test_older_plain_pytorch_deform_conv(case: Golden) -> None:
    options = {name: case.options[name] for name in ("kernel_size", "padding")}
    module = load(foreign.DeformConv2D(3, 4, **options), case)
    arguments = case.inputs["x"], case.inputs["offset"]
    with torch.no_grad():
        assert largest(module(*arguments), case.outputs["output"]) < TOLERANCE
    output, _ = replaced(module, *arguments)
    assert largest(output, case.outputs["output"]) < TOLERANCE


@pytest.mark.parametrize("case", goldens("oeway_convoffset2d"), ids=str)
def test_conv_offset_2d(case: Golden) -> None:
    module = load(foreign.ConvOffset2D(case.inputs["x"].shape[1]), case)
    with torch.no_grad():
        assert largest(module(case.inputs["x"]), case.outputs["output"]) < TOLERANCE
    output, _ = replaced(module, case.inputs["x"])
    assert largest(output, case.outputs["output"]) < TOLERANCE


@pytest.mark.parametrize("case", goldens("deform_conv2d_mxnet2017"), ids=str)
def test_border_rule_of_2017(case: Golden) -> None:
    options = case.options
    output = deform_conv2d_2017(
        case.inputs["input"],
        case.inputs["weight"],
        case.inputs["offset"],
        stride=options["stride"],
        padding=options["pad"],
        dilation=options["dilation"],
        offset_groups=options["offset_group"],
    )
    assert largest(output, case.outputs["output"]) < TOLERANCE


def test_paddle_argument_order() -> None:
    generator = torch.Generator().manual_seed(0)
    x, offset, mask = (torch.randn(2, channels, 6, 7, generator=generator) for channels in (4, 36, 18))
    weight, bias = torch.randn(6, 2, 3, 3, generator=generator), torch.randn(6, generator=generator)
    output = paddle_deform_conv2d(x, offset, weight, bias, 1, 1, 1, 2, 2, mask)
    wanted = torchvision.ops.deform_conv2d(x, offset, weight, bias, padding=1, mask=mask)
    assert largest(output, wanted) < TOLERANCE


# ------------------------------------------------------------------------------------------------- kernels of extensions
@pytest.mark.parametrize("case", goldens("charlesshang_dcn_module"), ids=str)
@pytest.mark.parametrize("runs_here", [True, False], ids=["compiled", "missing"])
def test_charlesshang_dcn(case: Golden, runs_here: bool) -> None:
    module = load(foreign.DCN(4, 5, 3, case.options["stride"], 1, deformable_groups=case.options["deformable_groups"]), case)
    if runs_here:
        with foreign.compiled():
            output, notes = replaced(module, case.inputs["x"])
        assert "tests.frontends.foreign._DCNv2 replaced (CharlesShang/DCNv2); equal within" in notes[0]
    else:
        output, notes = replaced(module, case.inputs["x"], runs_here=False)
        assert "not compared: it does not run on this machine (RuntimeError: the extension is not compiled)" in notes[0]
    assert largest(output, case.outputs["output"]) < TOLERANCE


class Align(nn.Module):
    def __init__(self, pack: nn.Module, as_list: bool) -> None:
        super().__init__()
        self.pack, self.as_list = pack, as_list

    def forward(self, x: torch.Tensor, feat: torch.Tensor) -> torch.Tensor:
        return self.pack([x, feat]) if self.as_list else self.pack(x, feat)


@pytest.mark.parametrize("kind", [foreign.DCN_sep, foreign.ModulatedDeformConvPack])
@pytest.mark.parametrize("case", goldens("basicsr_dcnv2pack"), ids=str)
def test_alignment_packs(kind: type[foreign.DCN_sep], case: Golden) -> None:
    options = case.options
    groups, size = options["deformable_groups"], options["kernel_size"]
    pack = kind(8, 6, size, options["stride"], options["padding"], options["dilation"], groups)
    names = {f"conv_offset_mask.{name}": f"conv_offset_{name}" for name in ("weight", "bias")}
    model = Align(load(pack, case, names), kind is foreign.ModulatedDeformConvPack)
    with foreign.compiled():
        output, notes = replaced(model, case.inputs["x"], case.inputs["feat"])
    assert largest(output, case.outputs["output"]) < TOLERANCE
    assert notes[-1].startswith(f"1 tests.frontends.foreign.{kind.__name__} replaced (EDVR); equal within")


class Offsets(nn.Module):
    """Predicts the offsets, and masks if `layer` takes them."""

    def __init__(self, layer: nn.Module, channels: int, offset_groups: int, mask: bool, stride: int = 1) -> None:
        super().__init__()
        self.offset = nn.Conv2d(channels, 18 * offset_groups, 3, stride, padding=1)
        self.offset_mask = nn.Conv2d(channels, 9 * offset_groups, 3, stride, padding=1) if mask else None
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.offset_mask is None:
            return self.layer(x, self.offset(x))
        return self.layer(x, self.offset(x), torch.sigmoid(self.offset_mask(x)))


def with_bias_and_no_defaults() -> nn.Module:
    class Layer(foreign.DeformConv):
        def forward(self, x, offset):
            return foreign.DeformConvFunction.apply(x, offset, self.weight, self.weight[:, 0, 0, 0], 1, 1, 1, 1, 2, 64)

    return Layer(4, 6, 3)


LAYERS = {
    "detectron2_v1": lambda: Offsets(foreign.DeformConv(4, 6, 3, 2, 1, 2, 2, nn.BatchNorm2d(6), torch.relu), 4, 2, mask=False, stride=2),
    "detectron2_v2": lambda: Offsets(foreign.ModulatedDeformConv(4, 6, 3, padding=1, norm=nn.BatchNorm2d(6)), 4, 1, mask=True),
    "deformable_convolution_v2_pytorch": lambda: Offsets(with_bias_and_no_defaults(), 4, 2, mask=False),
    "charlesshang": lambda: foreign.DCN(4, 6, 3, 1, 1, deformable_groups=2),
    "tutorial_v1": lambda: foreign.DeformConv2d(4, 6, bias=True),
    "tutorial_v2_stride": lambda: foreign.DeformConv2d(4, 6, 5, 2, 2, modulation=True),
    "tutorial_even": lambda: foreign.DeformConv2d(4, 6, 4, 1),
    "tutorial_without_padding": lambda: foreign.DeformConv2d(4, 6, 3, 0, modulation=True),
    "tutorial_rounding": lambda: foreign.Elsewhere.DeformConv2d(4, 6),
    "old_tutorial": lambda: Offsets(foreign.DeformConv2D(4, 6), 4, 1, mask=False),
    "conv_offset": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), foreign.ConvOffset2D(6)),
}


@pytest.mark.slow
@pytest.mark.backend("ort")
@pytest.mark.parametrize("build", LAYERS.values(), ids=LAYERS)
def test_exported_with_dynamic_sizes(build, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = with_large_offsets(build())
    with foreign.compiled():
        with torch.no_grad():
            wanted = model(image())
        outputs, report = exported(model, (image(),), tmp_path, dynamic_shapes=(DYNAMIC,))
    assert largest(outputs[0], wanted) < 1e-4
    assert report.operators == {"deploydcn::DeformConv2d": 1}
    assert len(report.checks) > 2
    assert any("equal within" in note for note in report.notes)


@pytest.mark.slow
@pytest.mark.backend("ort")
def test_exported_without_the_extension(tmp_path: Path) -> None:
    case = golden("charlesshang_dcn_module__dg2")
    module = load(foreign.DCN(4, 5, 3, 1, 1, deformable_groups=2), case)
    outputs, report = exported(module, (case.inputs["x"],), tmp_path, dynamic_shapes=(DYNAMIC,))
    assert largest(outputs[0], case.outputs["output"]) < TOLERANCE
    assert report.notes[0].startswith("the model itself does not run on this machine (RuntimeError: the extension is not compiled)")


@pytest.mark.slow
@pytest.mark.backend("ort")
def test_standard_files_hold_the_border_rules_too(tmp_path: Path) -> None:
    model = with_large_offsets(foreign.Elsewhere.DeformConv2d(4, 6))
    with torch.no_grad():
        wanted = model(image())
    outputs, report = exported(model, (image(),), tmp_path, target="standard")
    assert largest(outputs[0], wanted) < 1e-4
    assert report.operators == {"DeformConv": 1}
