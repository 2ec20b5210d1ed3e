"""PyTorch's side of the search: modules that share, write in place, return several tensors; exported, changed, and found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

import deploydcn  # noqa: E402
from deploydcn.nn import DeformConv2d  # noqa: E402
from deploydcn.parity import Location, write_repro  # noqa: E402
from deploydcn.parity.taps import taps_of  # noqa: E402
from tests.parity.plants import Plant, channels, planted  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.backend("ort"), pytest.mark.backend("torch")]


class Block(nn.Module):
    """One activation for all blocks, in place; code of its own around its modules; a tuple as result."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.conv = DeformConv2d(8, 8, 3, padding=1, offset_groups=2)
        nn.init.normal_(self.conv.offset_conv.weight, std=0.2)
        self.norm, self.act = nn.BatchNorm2d(8), activation

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.act(self.norm(self.conv(x)) + x)
        return y * 0.5, y.mean((2, 3))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        activation = nn.ReLU(inplace=True)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), activation, nn.Dropout(0.5))
        self.blocks = nn.ModuleList(Block(activation) for _ in range(3))
        self.head = nn.Linear(8, 4)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = self.stem(image)
        means = []
        for block in self.blocks:
            x, mean = block(x)
            means.append(mean)
        return {"scores": self.head(torch.stack(means).sum(0)), "features": x}


def network(seed: int = 0) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(seed)
    model = Net().eval()
    for norm in (block.norm for block in model.blocks):
        norm.running_mean.uniform_(-0.2, 0.2)
        norm.running_var.uniform_(0.5, 1.5)
    return model, torch.randn(1, 3, 12, 10)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    path = tmp_path_factory.mktemp("torch") / "net.onnx"
    deploydcn.export_onnx(*network(), path)
    return onnx.load(path)


def located(reference: Any, candidate: Any) -> Location:
    report = deploydcn.verify(reference, candidate, locate=True)
    assert not report.passed
    assert report.location is not None
    assert report.location.finding is not None, report.location.explanation
    return report.location


def test_taps_are_the_tensors_that_modules_return_each_once() -> None:
    runner = deploydcn.load(network(), "torch")
    taps = taps_of(runner, runner.example)
    assert taps is not None
    names = list(taps.taps)
    assert names[:3] == ["stem.0", "stem.1", "blocks.0.conv.offset_conv"]  # Dropout and Sequential return what they were given
    assert "blocks.2.act" in names  # the shared activation goes by its block's name for it
    assert {"blocks.1[0]", "blocks.1[1]"} <= set(names)
    assert taps.outputs == {"scores": "head", "features": "blocks.2[0]"}
    assert taps.taps["blocks.1.act"].sources == ("blocks.1.norm", "blocks.0[0]")
    assert taps.taps["head"].sources == ("blocks.0[1]", "blocks.1[1]", "blocks.2[1]")
    assert taps.taps["stem.0"].sources == ("input image",)


def test_recomputing_all_from_themselves_changes_nothing() -> None:
    """Every module fed with the model's own tensors: what hooks replace is what was there."""
    runner = deploydcn.load(network(), "torch")
    taps = taps_of(runner, runner.example)
    assert taps is not None
    _, values = taps.observe(list(taps.taps))
    again = taps.recompute(values, list(taps.taps))
    assert values.keys() == again.keys() == taps.taps.keys()
    assert all(np.array_equal(values[name], again[name]) for name in values)


@pytest.mark.parametrize("target", ["ort", "standard", "portable"])
def test_exported_modules_agree_one_by_one(exported: onnx.ModelProto, target: str, tmp_path: Path) -> None:
    """Norms and activations are in the convolution's node, or beside it, or everything is in pieces: a module's output is known in each."""
    onnx.save(exported, str(tmp_path / "source.onnx"))
    deploydcn.convert(tmp_path / "source.onnx", tmp_path / "net.onnx", target=target, check=False)
    report = deploydcn.verify(network(), tmp_path / "net.onnx", locate=True)
    assert report.passed
    assert report.location is not None
    assert report.location.verdict == "agree"
    pairs = {layer.reference: layer for layer in report.location.layers}
    assert {"stem.1", "blocks.0.act", "blocks.1.act", "blocks.2.act", "blocks.0.conv.offset_conv", "head"} <= set(pairs)
    assert max(layer.accumulated_error for layer in report.location.layers) < 1e-5


def test_offset_groups_in_another_order(exported: onnx.ModelProto) -> None:
    """(group, tap, y x) read as (tap, y x, group), in the second of three blocks."""
    order = channels(2, lambda size: np.arange(size).reshape(2, -1).T.reshape(-1), 36)
    bad, node = planted(exported, Plant("offset_groups", "blocks.1.conv", "DeformConv2d", order))
    finding = located(network(), bad).finding
    assert finding is not None
    assert finding.layer.path == "blocks.1.conv"
    assert node in [step.name for step in finding.layer.operators]


@pytest.mark.parametrize("reference", ["torch", "onnx"])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(("blocks.1.norm", lambda norm: setattr(norm, "eps", 0.05)), id="epsilon"),
        pytest.param(("blocks.2.conv", lambda conv: conv.weight.data.copy_(conv.weight.mT.clone())), id="transposed"),
        pytest.param(("stem.0", lambda conv: setattr(conv, "padding_mode", "reflect")), id="padding"),
        pytest.param(("head", lambda linear: linear.bias.data.add_(0.01)), id="bias"),
    ],
)
def test_changed_modules(exported: onnx.ModelProto, change: tuple[str, Any], reference: str) -> None:
    model, image = network()
    path, edit = change
    edit(model.get_submodule(path))
    if path == "stem.0":
        model.stem[0]._reversed_padding_repeated_twice = [1, 1, 1, 1]
    location = located(exported if reference == "onnx" else network(), (model, image))
    assert location.finding is not None
    names = [step.name for step in location.finding.layer.operators]
    assert path in names
    assert len(names) == 1 or reference == "onnx"  # the file has a convolution, its norm and more as one node
    if path == "blocks.1.norm" and reference == "torch":
        assert location.finding.differences == ("blocks.1.norm: eps is 0.05, in the reference 1e-05",)


def test_code_of_a_module_itself_is_located(exported: onnx.ModelProto) -> None:
    model, image = network()
    forward = model.blocks[1].forward
    model.blocks[1].forward = lambda x: (forward(x)[0] * 1.01, forward(x)[1])
    finding = located(network(), (model, image)).finding
    assert finding is not None
    assert finding.layer.path == "blocks.1"
    assert finding.layer.name == "blocks.1[0]"


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(*(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.SiLU()) for _ in range(3)))
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(x))


@pytest.mark.parametrize("dynamo", [True, False])
def test_files_of_pytorchs_own_exporters(tmp_path: Path, dynamo: bool) -> None:
    """The older one writes module paths into node names, and folds norms into convolutions that keep their name."""
    torch.manual_seed(0)
    model, image = Plain().eval(), torch.randn(1, 4, 9, 9)
    for stage in model.stages:
        stage[1].running_mean.uniform_(-0.5, 0.5)
    path = tmp_path / "plain.onnx"
    torch.onnx.export(model, (image,), path, dynamo=dynamo, opset_version=18)
    report = deploydcn.verify((model, image), str(path), locate=True)
    assert report.passed
    assert report.location is not None
    assert {"stages.0.1", "stages.1.1", "stages.2.1"} <= {layer.reference for layer in report.location.layers}
    assert max(layer.accumulated_error for layer in report.location.layers) < 1e-5
    model.stages[1][1].eps = 0.05
    finding = located((model, image), str(path)).finding
    assert finding is not None
    assert finding.layer.reference == "stages.1.1"


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, folder / "reproduce.py"], cwd="/", capture_output=True, text=True)


def test_a_torch_layer_is_written_with_its_modules(exported: onnx.ModelProto, tmp_path: Path) -> None:
    model, image = network()
    model.head.bias.data += 0.01
    folder = write_repro(located(exported, (model, image)), tmp_path / "repro")
    assert (folder / "call.pt").is_file()
    assert "torch module and the arguments of its call" in (folder / "README.txt").read_text()
    done = run(folder)
    assert done.returncode == 1, done.stderr
    call = torch.load(folder / "call.pt", weights_only=False)
    call["module"].bias.data -= 0.01
    torch.save(call, folder / "call.pt")
    assert run(folder).returncode == 0


def test_a_torch_layer_that_cannot_be_saved_is_written_with_its_weights(tmp_path: Path) -> None:
    model, image = network()
    model.head.bias.data += 0.01
    model.head.unpicklable = lambda: None
    folder = write_repro(located(network(), (model, image)), tmp_path / "repro")
    assert not (folder / "call.pt").exists()
    assert set(np.load(folder / "weights.npz")) == {"weight", "bias"}
    assert run(folder).returncode == 1
