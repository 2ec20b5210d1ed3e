"""PyTorch -> ONNX: right numbers, kept names, true dynamic shapes, and refusals that say why and leave nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import deploydcn
from deploydcn.errors import ExportError, InvalidArgument, InvalidModel
from deploydcn.export import TARGETS
from deploydcn.nn import DeformConv2d, deform_conv2d
from tests.export import models

pytestmark = [pytest.mark.backend("ort"), pytest.mark.slow]  # a quick selection is in test_quick.py

DYNAMIC = ({0: "n", 2: "h", 3: "w"},)
NATIVE = tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 25)


def image(channels: int = 8, size: tuple[int, int] = (14, 17), batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(1))


def operators(path: Path) -> list[str]:
    return [f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in onnx.load(path).graph.node]


# ------------------------------------------------------------------------------------------------------------ numbers
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
    assert report.operators == {"deploydcn::DeformConv2d" if target == "ort" else "DeformConv": 1}
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


def test_three_shapes_through_one_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = models.with_offsets(models.Fusable())
    deploydcn.export_onnx(model, image(4), path, dynamic_shapes=DYNAMIC)
    inputs = [{"x": image(4, size, batch).numpy()} for size, batch in (((14, 17), 2), ((9, 30), 1), ((33, 8), 5))]
    report = deploydcn.verify((model, image(4)), path, inputs)
    assert report.passed
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


# ------------------------------------------------------------------------------------------------------------- fusing
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
    assert report.notes == ("1 batch normalizations folded into deformable convolutions", "2 activations fused into our convolutions")
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


# -------------------------------------------------------------------------------------------------------------- names
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


# ------------------------------------------------------------------------------------------------------ dynamic shapes
def test_an_example_batch_of_one_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    deploydcn.export_onnx(models.with_offsets(models.PureDeform()), image(3, batch=1), path, dynamic_shapes=DYNAMIC)
    assert deploydcn.load(path).run([image(3, (5, 6), 7).numpy()])["output"].shape == (7, 8, 5, 6)


def test_torch_dims_are_taken_as_they_are(tmp_path: Path) -> None:
    from torch.export import Dim

    path = tmp_path / "m.onnx"
    shapes = {"x": {0: Dim("batch", max=8), 2: Dim("rows", min=4, max=64)}}
    report = deploydcn.export_onnx(models.with_offsets(models.PureDeform()), image(3), path, dynamic_shapes=shapes)
    assert report.inputs[0].shape == ("batch", 3, "rows", 17)
    assert all(shape[2] <= 64 for check in report.checks for shape in check.shapes.values())


def test_a_file_that_only_pretends_to_be_dynamic_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(ExportError, match=r"axis x\[2\] \(h\) is dynamic in name only: at .*differs from PyTorch"):
        deploydcn.export_onnx(models.BakedHeight(), image(3, (16, 16)), path, dynamic_shapes=DYNAMIC)
    assert not list(tmp_path.iterdir())
    deploydcn.export_onnx(models.BakedHeight(), image(3, (16, 16)), path, dynamic_shapes=({0: "n", 3: "w"},))


def test_an_axis_that_pytorch_cannot_change_is_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 14 * 17, 2))
    with pytest.raises(ExportError, match=r"input\[2\]|static"):
        deploydcn.export_onnx(model, image(3), tmp_path / "m.onnx", dynamic_shapes=({2: "h"},))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"y": {0: "n"}}, "dynamic_shapes names 'y'; the example has arguments x"),
        (({0: "n"}, None), "dynamic_shapes has 2 entries; wanted 1"),
        (({7: "n"},), "names axis 7; the example has shape"),
        (({0: "not a name"},), "is named 'not a name'"),
    ],
)
def test_wrong_dynamic_shapes_are_explained(tmp_path: Path, shapes: object, message: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        deploydcn.export_onnx(models.PureDeform(), image(3), tmp_path / "m.onnx", dynamic_shapes=shapes)
    assert message in str(raised.value)


# ------------------------------------------------------------------------------------------------------------ refusals
def test_a_data_dependent_branch_is_located(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"cannot trace DataDependent at models.py line \d+: if x.sum\(\) > 0:"):
        deploydcn.export_onnx(models.DataDependent(), image(3), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_an_unsupported_operator_is_named_with_its_module(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as raised:
        deploydcn.export_onnx(models.Unsupported(), torch.eye(4), tmp_path / "m.onnx")
    message = str(raised.value)
    assert "matrix_exp" in message
    assert "inner (UnsupportedInner), models.py line" in message
    assert "return torch.linalg.matrix_exp(x)" in message
    assert not list(tmp_path.iterdir())


def test_a_failed_export_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    deploydcn.export_onnx(models.PureDeform(), image(3), path)
    before = path.read_bytes()
    with pytest.raises(ExportError):
        deploydcn.export_onnx(models.DataDependent(), image(3), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"target": "coreml"}, InvalidArgument, "target is 'coreml'; wanted one of ort, standard"),
        ({"path": "missing/folder/m.onnx"}, InvalidArgument, "folder missing/folder does not exist"),
        ({"model": "resnet"}, InvalidModel, "got a str; wanted a torch.nn.Module"),
        ({"args": None}, InvalidArgument, "needs example inputs"),
    ],
)
def test_bad_arguments(tmp_path: Path, arguments: dict[str, object], error: type[Exception], message: str) -> None:
    complete = {"model": models.PureDeform(), "args": image(3), "path": tmp_path / "m.onnx", **arguments}
    with pytest.raises(error) as raised:
        deploydcn.export_onnx(**complete)
    assert message in str(raised.value)


def test_training_flags_and_statistics_survive(tmp_path: Path) -> None:
    model = models.with_offsets(models.Fusable()).train()
    model.norm.eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    report = deploydcn.export_onnx(model, image(4), tmp_path / "m.onnx")
    assert model.training
    assert not model.norm.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert report.notes[0] == "exported in eval mode; the model itself stays in training mode"


def test_external_data_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deploydcn.export import exporter

    monkeypatch.setattr(exporter, "EXTERNAL_DATA_THRESHOLD", 1000)
    path = tmp_path / "m.onnx"
    deploydcn.export_onnx(models.with_offsets(models.PureDeform()), image(3), path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    assert deploydcn.load(path).run([image(3).numpy()])["output"].shape == (2, 8, 14, 17)


# ------------------------------------------------------------------------------------------------------- our own module
@pytest.mark.parametrize("modulated", [True, False])
def test_the_module_starts_as_a_plain_convolution(modulated: bool) -> None:
    layer = DeformConv2d(4, 6, (3, 5), stride=(1, 2), padding=(1, 2, 0, 1), dilation=(1, 2), groups=2, modulated=modulated)
    x = image(4)
    padded = nn.functional.pad(x, (2, 1, 1, 0))
    wanted = nn.functional.conv2d(padded, layer.weight * (0.5 if modulated else 1), layer.bias, (1, 2), 0, (1, 2), 2)
    assert torch.allclose(layer(x), wanted, atol=1e-5)


def test_gradients_are_right() -> None:
    torch.manual_seed(0)
    arguments = [
        torch.randn(1, 4, 5, 4, dtype=torch.float64, requires_grad=True),
        torch.randn(6, 2, 3, 3, dtype=torch.float64, requires_grad=True),
        (torch.randn(1, 36, 5, 4, dtype=torch.float64) * 0.7 + 0.2).requires_grad_(),
        torch.randn(6, dtype=torch.float64, requires_grad=True),
        torch.rand(1, 18, 5, 4, dtype=torch.float64, requires_grad=True),
    ]

    def call(x, w, offset, bias, mask):
        return deform_conv2d(x, w, offset, bias=bias, mask=mask, padding=(1, 0, 1, 2), groups=2, offset_groups=2, activation="silu")

    assert torch.autograd.gradcheck(call, arguments)


def test_torch_operator_passes_torchs_own_checks() -> None:
    layer = models.with_offsets(DeformConv2d(4, 6, 3, padding=1))
    offset = torch.randn(2, 18, 14, 17)
    arguments = (image(4), layer.weight.detach(), offset, None, torch.rand(2, 9, 14, 17), [1, 1], [1, 1, 1, 1], [1, 1], 1, 1, "")
    torch.library.opcheck(torch.ops.deploydcn.deform_conv2d.default, arguments)


# --------------------------------------------------------------------------- graphs that hold near the example only
class PadsTo32(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        missing = (32 - x.shape[2] % 32) % 32
        return nn.functional.pad(x, (0, 0, 0, missing)) if missing else x


class Threshold(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(x, 2) if x.shape[2] > 40 else x * 3


class Steps(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (1 + int(x.shape[2] * 0.01))


@pytest.mark.parametrize("model", [PadsTo32(), Threshold(), Steps()], ids=lambda model: type(model).__name__)
def test_branches_on_sizes_are_refused(tmp_path: Path, model: nn.Module) -> None:
    with pytest.raises(ExportError, match=r"x\[2\]"):
        deploydcn.export_onnx(model, image(3, (64, 64)), tmp_path / "m.onnx", dynamic_shapes=({2: "h", 3: "w"},))
    assert not list(tmp_path.iterdir())


def test_a_noisy_output_does_not_excuse_another(tmp_path: Path) -> None:
    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            height = float(x.shape[2]) if not torch.compiler.is_exporting() else 64.0
            return torch.sin(x * 2e5), x * height

    with pytest.raises(ExportError, match="differs from PyTorch"):
        deploydcn.export_onnx(Noisy(), image(3, (64, 64)), tmp_path / "m.onnx", dynamic_shapes=({2: "h"},))


def test_random_models_are_refused(tmp_path: Path) -> None:
    class Random(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 0.01 * torch.rand_like(x)

    with pytest.raises(ExportError, match="draws random numbers or keeps state"):
        deploydcn.export_onnx(Random(), image(3), tmp_path / "m.onnx")


def test_models_that_keep_state_are_refused_and_left_alone(tmp_path: Path) -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count += 1
            x += 1
            return x + self.count

    model, x = Counter(), image(3)
    before = x.clone()
    with pytest.raises(ExportError, match="forward changes count; an ONNX file keeps no state"):
        deploydcn.export_onnx(model, x, tmp_path / "m.onnx")
    assert model.count == 0
    assert torch.equal(x, before)


# ---------------------------------------------------------------------------------------------- unusual structures
class Pair(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor


class TakesPair(nn.Module):
    def forward(self, pair: Pair, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"scale": pair.left * scale + pair.right, "scale_out": scale * 2}


def test_namedtuples_scalars_and_clashing_names(tmp_path: Path) -> None:
    arguments = (Pair(torch.randn(2, 3), torch.randn(2, 3)), torch.tensor(3.0))
    path = tmp_path / "m.onnx"
    report = deploydcn.export_onnx(TakesPair(), arguments, path, dynamic_shapes=(Pair({0: "n"}, {0: "n"}), None))
    assert [str(info) for info in report.inputs] == ["pair_left: float32[nx3]", "pair_right: float32[nx3]", "scale: float32[]"]
    assert len({info.name for info in (*report.inputs, *report.outputs)}) == 5
    outputs = deploydcn.load(path).run([np.ones((4, 3), np.float32), np.ones((4, 3), np.float32), np.float32(2)])
    assert [value.shape for value in outputs.values()] == [(4, 3), ()]


def test_derived_dimensions(tmp_path: Path) -> None:
    from torch.export import Dim

    class Doubles(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + torch.cat([y, y], 1)

    h = Dim("h", min=2, max=100)
    arguments = (torch.randn(3, 8), torch.randn(3, 4))
    report = deploydcn.export_onnx(Doubles(), arguments, tmp_path / "m.onnx", dynamic_shapes=({1: 2 * h}, {1: h}))
    assert {check.shapes["y"][1] * 2 - check.shapes["x"][1] for check in report.checks} == {0}
    assert len({check.shapes["y"] for check in report.checks}) > 2


def test_axes_of_one_name_must_be_equal(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="dynamic axes named 'n' have sizes 4 and 5 in the example"):
        deploydcn.export_onnx(
            TakesPair(),
            (Pair(torch.randn(4, 3), torch.randn(5, 3)), torch.tensor(1.0)),
            tmp_path / "m.onnx",
            dynamic_shapes=(Pair({0: "n"}, {0: "n"}), None),
        )


def test_what_is_used_in_a_branch_is_not_fused(tmp_path: Path) -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(32, 32, 3, padding=1, groups=4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, lambda y, x: torch.relu(y), lambda y, x: x * 2, (self.conv(x), x))

    report = deploydcn.export_onnx(Branches(), image(32), tmp_path / "m.onnx")
    assert report.operators == {"deploydcn::GroupedConv2d": 1}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda x: {"a": x, "n": 3}, "output ['n'] is a int; a file returns tensors only"),
        (lambda x: (x, x.shape[2]), "output [1] is a int"),
        (lambda x: "text", "returned str without a tensor in it"),
    ],
)
def test_outputs_that_are_no_tensors_are_named(tmp_path: Path, result, message: str) -> None:
    class Returns(nn.Module):
        def forward(self, x: torch.Tensor):
            return result(x + 1)

    with pytest.raises(deploydcn.UserError) as raised:
        deploydcn.export_onnx(Returns(), image(3), tmp_path / "m.onnx")
    assert message in str(raised.value)


def test_batch_norm_without_statistics_and_a_name_for_the_batch(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8, track_running_stats=False))
    report = deploydcn.export_onnx(model, image(3), tmp_path / "m.onnx", dynamic_shapes=({0: "n"},))
    assert report.outputs[0].shape == ("n", 8, 14, 17)


WRONG_TYPES = [
    {"opset": "20"},
    {"target": ["ort"]},
    {"dynamic_shapes": 5},
    {"dynamic_shapes": {"x": 5}},
    {"dynamic_shapes": {"x": {0: 1.5}}},
    {"path": None},
    {"output_names": [1]},
    {"output_names": ["a", "a"]},
    {"kwargs": [1]},
]


@pytest.mark.parametrize("arguments", WRONG_TYPES, ids=str)
def test_arguments_of_a_wrong_type(tmp_path: Path, arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        deploydcn.export_onnx(**{"model": models.PureDeform(), "args": image(3), "path": tmp_path / "m.onnx", **arguments})


def test_autocast_keeps_offsets_precise() -> None:
    layer = models.with_offsets(DeformConv2d(4, 6, 3, padding=1))
    x = image(4)
    with torch.autocast("cpu", torch.bfloat16):
        low = layer(x)
    assert low.dtype == torch.bfloat16
    assert (low.float() - layer(x)).abs().max() < 0.1
