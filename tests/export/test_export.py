"""PyTorch -> ONNX: right numbers, fused where that is right, kept names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import deploydcn
from deploydcn.errors import InvalidArgument
from deploydcn.export import TARGETS
from deploydcn.nn import deform_conv2d
from deploydcn.testing.parity_fixture import Parity
from tests.export import models
from tests.export.helpers import DYNAMIC, NATIVE, image, operators

pytestmark = [pytest.mark.backend("ort"), pytest.mark.slow]  # a quick selection is in test_quick.py


# ------------------------------------------------------------------------------------------------------- numbers
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"modulated": False},
        {"bias": False},
        {"groups": 2, "offset_groups": 4},
        {"groups": 4, "offset_groups": 2, "modulated": False, "bias": False},
    ],
    ids=lambda options: "_".join(f"{key}_{value}" for key, value in options.items()) or "plain",
)
def test_torchvision_layers(tmp_path: Path, target: str, options: dict[str, int]) -> None:
    path = tmp_path / "m.onnx"
    report = deploydcn.export_onnx(
        models.with_offsets(models.TorchvisionDcn(**options)), image(), path, dynamic_shapes=DYNAMIC, target=target
    )
    left = {"standard": {"DeformConv": 1}, "portable": {}}
    assert report.operators == left.get(target, {"deploydcn::DeformConv2d": 1})
    assert [check.label.partition(",")[0] for check in report.checks][:2] == ["example", "x[0] (n)=3"]
    assert max(check.worst for check in report.checks) < 1e-5


@pytest.mark.parametrize("opset", range(19, 26))
def test_every_opset(tmp_path: Path, opset: int) -> None:
    path = tmp_path / "m.onnx"
    deploydcn.export_onnx(models.with_offsets(models.PureDeform()), image(3), path, opset=opset)
    model = onnx.load(path)
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": opset, "deploydcn": 1}
    assert model.ir_version == 10


@pytest.mark.parametrize("opset", [11, 18, 26])
def test_opsets_without_the_operator_are_refused(tmp_path: Path, opset: int) -> None:
    with pytest.raises(InvalidArgument, match=f"opset is {opset}; wanted 19 to 25"):
        deploydcn.export_onnx(models.PureDeform(), image(3), tmp_path / "m.onnx", opset=opset)


@pytest.mark.skipif(not NATIVE, reason="this onnxruntime has no DeformConv")
def test_standard_files_run_in_a_plain_onnxruntime(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = models.with_offsets(models.Fusable())
    deploydcn.export_onnx(model, image(4), path, dynamic_shapes=DYNAMIC, target="standard")
    assert all("::" not in name for name in operators(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for size, batch in (((14, 17), 2), ((9, 30), 1), ((33, 8), 5)):
        x = image(4, size, batch)
        with torch.no_grad():
            wanted = model(x)
        got = dict(zip(wanted, session.run(None, {"x": x.numpy()}), strict=True))
        assert all(np.abs(got[name] - wanted[name].numpy()).max() < 1e-4 for name in wanted)


def test_three_shapes_through_one_file(parity: Parity, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = models.with_offsets(models.Fusable())
    deploydcn.export_onnx(model, image(4), path, dynamic_shapes=DYNAMIC)
    inputs = [{"x": image(4, size, batch).numpy()} for size, batch in (((14, 17), 2), ((9, 30), 1), ((33, 8), 5))]
    report = parity((model, image(4)), path, inputs, locate=True)
    assert len(report.cases) == 3


def test_half_precision_keeps_float32_offsets(tmp_path: Path) -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 4, 3, 3).half() * 0.2)

        def forward(self, x: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
            return deform_conv2d(x, self.weight, offset, padding=1)

    arguments = (image(4, (9, 600)).half(), torch.randn(2, 18, 9, 600))
    path = tmp_path / "m.onnx"
    deploydcn.export_onnx(Half(), arguments, path)
    assert "Cast" not in operators(path)
    report = deploydcn.export_onnx(Half(), arguments, path, target="standard", check=NATIVE)
    assert "Cast" in operators(path)
    assert any("offsets cast from FLOAT to FLOAT16" in note for note in report.notes)


def test_float64_models(tmp_path: Path) -> None:
    report = deploydcn.export_onnx(models.with_offsets(models.PureDeform()).double(), image(3).double(), tmp_path / "m.onnx")
    assert max(check.worst for check in report.checks) < 1e-12


# -------------------------------------------------------------------------------------------------------- fusing
def test_what_can_be_fused_is_and_the_rest_is_not(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    report = deploydcn.export_onnx(models.with_offsets(models.Fusable()), image(4), path, dynamic_shapes=DYNAMIC)
    names = operators(path)
    nodes = [node for node in onnx.load(path).graph.node if node.op_type == "DeformConv2d"]
    activations = [attribute.s.decode() for node in nodes for attribute in node.attribute if attribute.name == "activation"]
    assert activations == ["silu", "relu6"]
    assert names.count("BatchNormalization") == 1  # behind the output that is used three times
    assert names.count("Relu") == 1
    assert [node.name for node in nodes] == ["folds.0", "relu6.0", "twice"]
    assert report.notes == ("1 batch normalizations folded into our convolutions", "2 activations fused into our convolutions")
    constants = {constant.name for constant in onnx.load(path).graph.initializer}
    used = {name for node in onnx.load(path).graph.node for name in node.input}
    assert constants <= used


def test_grouped_convolutions_use_our_operator_where_it_is_faster(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = nn.Sequential(
        nn.Conv2d(32, 32, 3, padding=1, groups=4), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=2, dilation=2, groups=32)
    ).eval()
    deploydcn.export_onnx(model, image(32), path, dynamic_shapes={"input": {0: "n"}})
    assert operators(path) == ["deploydcn::GroupedConv2d", "Conv"]


# --------------------------------------------------------------------------------------------------------- names
def test_names_of_keyword_nested_unused_and_repeated_tensors(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    args = (image(3), {"wide": torch.ones(4), "narrow": torch.ones(2)}, torch.zeros(1))
    gain = {"gain": torch.tensor(2.0)}
    report = deploydcn.export_onnx(
        models.Mixed(), args, path, kwargs=gain, dynamic_shapes={"image": {0: "n"}, "boxes": {"narrow": {0: "k"}}}
    )
    assert [str(info) for info in report.inputs] == [
        "image: float32[nx3x14x17]",
        "boxes_wide: float32[4]",
        "boxes_narrow: float32[k]",
        "unused: float32[1]",
        "gain: float32[]",
    ]
    assert [info.name for info in report.outputs] == ["y", "same", "image_out", "narrow"]
    outputs = deploydcn.load(path).run(
        [
            np.ones((1, 3, 2, 2), np.float32)[:, :, :1].repeat(14, 2).repeat(9, 3)[..., :17],
            np.ones(4, np.float32),
            np.ones(5, np.float32),
            np.zeros(1, np.float32),
            np.float32(3),
        ]
    )
    assert outputs["y"].max() == 7
    assert outputs["narrow"].shape == (5,)


def test_output_names_can_be_given(tmp_path: Path) -> None:
    report = deploydcn.export_onnx(models.PureDeform(), image(3), tmp_path / "m.onnx", output_names=["features"])
    assert [info.name for info in report.outputs] == ["features"]
    with pytest.raises(InvalidArgument, match="output_names has 2 names; the model returns 1"):
        deploydcn.export_onnx(models.PureDeform(), image(3), tmp_path / "m.onnx", output_names=["a", "b"])


def test_files_tell_modules_but_not_source_lines(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    deploydcn.export_onnx(models.PureDeform(), image(3), path)
    text = path.read_bytes()
    assert b"features.2" in text
    assert b"models.py" not in text
    assert str(Path.cwd()).encode() not in text
