"""`visualize` as a whole: the report, the picture, the command, and what users get wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import deploydcn
from deploydcn.errors import InvalidArgument, InvalidModel, RuntimeFailure
from deploydcn.nn import DeformConv2d
from deploydcn.visual.visualize import DENSITY, GRADIENT
from tests.export.models import with_offsets
from tests.visual.models import photograph

pytestmark = [pytest.mark.backend("ort"), pytest.mark.backend("matplotlib")]

NAMES = ["1", "3", "4"]
FACTORY = """
import torch
from tests.visual.test_visualize import small_net
def build():
    return small_net(), torch.zeros(1, 3, 48, 64)
def plain():
    return torch.nn.Conv2d(3, 3, 3), torch.zeros(1, 3, 48, 64)
"""


def small_net() -> nn.Module:
    """Three deformable layers, the second with two offset groups and half the size."""
    torch.manual_seed(0)
    return with_offsets(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            DeformConv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            DeformConv2d(8, 8, 3, stride=2, padding=1, offset_groups=2),
            DeformConv2d(8, 4, 3, padding=1, modulated=False),
        )
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("visualize")
    (path / "net.py").write_text(FACTORY)
    Image.fromarray(photograph()).save(path / "photo.png")
    deploydcn.export_onnx(small_net(), torch.rand(1, 3, 48, 64), path / "net.onnx", dynamic_shapes=({0: "n", 2: "h", 3: "w"},))
    return path


def watched(model: Any, **options: Any) -> deploydcn.VisualReport:
    return deploydcn.visualize(model, photograph(), **options)


@pytest.mark.slow
def test_a_model_and_its_file_look_at_the_same_points(folder: Path) -> None:
    example = torch.zeros(1, 3, 48, 64)
    eager, file = watched((small_net(), example)), watched(folder / "net.onnx", size=(48, 64))
    for left, right in zip(eager.layers, file.layers, strict=True):
        assert (left.name, left.parent, left.grid) == (right.name, right.parent, right.grid)
        assert np.abs(left.points.y - right.points.y).max() < 1e-4  # offsets in float32, of another order of sums
        assert np.abs(left.points.weight - right.points.weight).max() < 1e-4
    assert [layer.name for layer in eager.layers] == NAMES
    assert eager.shown.keys() == {0, 1, 2}
    assert [len(step.y) for step in eager.shown[2][0].traces][:2] == [9, 81]
    methods = [{view.method for views in report.shown.values() for view in views} for report in (eager, file)]
    assert methods == [{GRADIENT}, {DENSITY}]
    assert any("not by gradients: an ONNX file has no gradients" in note for note in file.notes)


@pytest.mark.slow
def test_the_report_says_what_it_drew(folder: Path) -> None:
    report = watched(folder / "net.onnx", size=(48, 64), layers=["3"], pixels=[(2, 5)], levels=2, group=1)
    (shown,) = (layer for layer in report.to_json()["layers"] if layer["pixels"])
    assert (shown["name"], shown["after"], shown["groups"], shown["output"]) == ("3", "1", 2, [12, 16])
    assert shown["pixels"][0]["pixel"] == [2, 5]
    assert [level["layer"] for level in shown["pixels"][0]["levels"]] == ["3", "1"]
    layer = report.layers[1]
    assert shown["pixels"][0]["levels"][0]["y"] == pytest.approx(layer.image_points()[0][layer.site((2, 5)), 1], abs=1e-3)
    json.dumps(report.to_json(), allow_nan=False)


@pytest.mark.slow
def test_the_picture_has_a_row_per_layer(folder: Path) -> None:
    heights = []
    for names in (NAMES, NAMES[:1]):
        watched(folder / "net.onnx", outputs=folder / "p.png", size=(48, 64), layers=names)
        picture = np.asarray(Image.open(folder / "p.png").convert("RGB")).astype(int)
        assert picture.shape[1] > 1000
        heights.append(picture.shape[0])
        columns = np.array_split(picture, 4, axis=1)
        assert all(part.std() > 20 for part in columns), "a panel is empty"
        # The dots of the first pixel are in Okabe and Ito's orange, in the first panel only.
        orange = [int((np.abs(part - [230, 159, 0]).max(2) < 12).sum()) for part in columns]
        assert orange[0] > 100
    assert heights[0] == pytest.approx(3 * heights[1], rel=0.05)


def test_grey_models_and_other_inputs_are_fed() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = with_offsets(DeformConv2d(1, 4, 3, padding=1))

        def forward(self, gate: torch.Tensor, grey: torch.Tensor) -> torch.Tensor:
            return self.layer(grey) * gate

    report = watched((Gated(), (torch.ones(4, 1, 1), torch.zeros(2, 1, 24, 32))))
    assert report.layers[0].shapes["X"] == (2, 1, 24, 32)
    assert report.photo.size == (24, 32)


@pytest.mark.slow
def test_what_the_model_receives_can_be_given(folder: Path) -> None:
    given = np.random.default_rng(0).standard_normal((1, 3, 48, 64)).astype(np.float32)
    plain, other = (watched(folder / "net.onnx", size=(48, 64), inputs=inputs) for inputs in ({}, {"input": given}))
    assert np.abs(plain.layers[0].points.y - other.layers[0].points.y).max() > 0.01
    shifted = watched(folder / "net.onnx", size=(48, 64), mean=(0.5, 0.4, 0.3), std=(0.2,))
    assert np.abs(plain.layers[0].points.y - shifted.layers[0].points.y).max() > 0.01


def test_scripted_models_are_watched_without_gradients() -> None:
    class Torchvision(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            import torchvision

            self.offset = nn.Conv2d(3, 18, 3, padding=1)
            self.layer = torchvision.ops.DeformConv2d(3, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x, self.offset(x))

    example = torch.zeros(1, 3, 24, 32)
    report = watched((torch.jit.trace(Torchvision(), example), example))
    assert len(report.layers) == 1
    assert report.shown[0][0].method == DENSITY
    assert any("a scripted model hides it" in note for note in report.notes)


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_offsets_that_are_no_numbers_are_drawn_as_outside(value: float, tmp_path: Path) -> None:
    model = small_net()
    model[1].offset_conv.bias.data[0] = value
    model[4].offset_conv.bias.data[3] = value
    report = watched((model, torch.zeros(1, 3, 48, 64)), outputs=[tmp_path / "p.png", tmp_path / "p.html"])
    json.dumps(report.to_json(), allow_nan=False)
    assert report.statistics[0].outside > 1 / 9
    assert (report.statistics[0].not_finite > 0) == (not np.isfinite(value))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layers": ["5"]}, InvalidArgument, "no deformable layer '5'; the model has 1, 3, 4"),
        ({"pixels": [(99, 0)]}, InvalidArgument, "pixel 99,0 is outside the output of '1'; wanted one from 0,0 to 23,31"),
        ({"levels": 4}, InvalidArgument, "levels is 4; wanted 1 to 3"),
        ({"group": 1}, InvalidArgument, "group is 1; '1' has 1, numbered from 0"),
        ({"size": (40, 64)}, RuntimeFailure, "failed"),
        ({"mean": (0.1, 0.2)}, InvalidArgument, "mean has 2 numbers; wanted 1 or 3"),
        ({"std": (0.0,)}, InvalidArgument, "wanted numbers above 0"),
        ({"inputs": {"other": np.zeros(3)}}, InvalidArgument, "no input named 'other'"),
        ({"outputs": "m.svg"}, InvalidArgument, "m.svg: what to write follows from the name; wanted .png or .html"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    class Fixed(nn.Module):
        """Takes one size only."""

        def __init__(self) -> None:
            super().__init__()
            self.net = small_net()

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return self.net(input) + torch.zeros(1, 4, 12, 16)

    with pytest.raises(error, match=message):
        watched((nn.Sequential(*small_net()) if "size" not in options else Fixed(), torch.zeros(1, 3, 48, 64)), **options)


@pytest.mark.slow
def test_models_that_cannot_be_shown_are_named(folder: Path) -> None:
    with pytest.raises(InvalidModel, match=r"^Conv2d has no deformable layer; looked for DeformConv2d, QLinearDeformConv2d, DCNv3"):
        watched((nn.Conv2d(3, 3, 3), torch.zeros(1, 3, 8, 8)))
    with pytest.raises(InvalidArgument, match=r"no input takes an image; the model has input"):
        watched((nn.Linear(4, 4), torch.zeros(1, 4)))
    with pytest.raises(InvalidArgument, match="give the ONNX file it was built from"):
        watched("net.engine")
    with pytest.raises(InvalidModel, match="does not exist; wanted an ONNX file"):
        watched("none.onnx")


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = "from deploydcn.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    return subprocess.run([sys.executable, "-c", code, "visualize", *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_the_command_writes_both_and_tells(folder: Path) -> None:
    done = run("net.py:build", "--image", "photo.png", "-o", "a.png", "-o", "a.html", "--pixel", "3,4", "--layer", "3", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "a.html: 0." in done.stdout
    assert (folder / "a.png").stat().st_size > 20_000
    assert "<canvas" in (folder / "a.html").read_text()
    listed = run("net.onnx", "--image", "photo.png", "--list", cwd=folder)
    assert "offset[1x36x16x16]" in listed.stdout  # of 48x64, in multiples of 32
    told = json.loads(run("net.onnx", "--image", "photo.png", "--size", "32x32", "--json", cwd=folder).stdout)
    assert [layer["name"] for layer in told["layers"]] == NAMES


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["net.onnx", "--image", "none.png"], "none.png does not exist; wanted an image file"),
        (["net.onnx", "--image", "net.py"], "net.py is not a readable image"),
        (["net.py:plain", "--image", "photo.png"], "has no deformable layer"),
        (["net.onnx", "--image", "photo.png", "--pixel", "3;4"], "--pixel '3;4'; wanted row and column"),
        (["net.onnx", "--image", "photo.png", "--size", "64"], "--size '64'; wanted HEIGHTxWIDTH"),
        (["net.onnx", "--image", "photo.png", "--mean", "a"], "--mean 'a'; wanted a number, or three"),
        (["net.onnx", "--image", "photo.png", "-o", "no/such/a.html"], "folder no/such does not exist"),
        (["net.onnx", "--image", "photo.png", "--list", "-o", "b.png"], "got --list and --output"),
    ],
)
def test_mistakes_end_in_one_sentence_and_leave_nothing(folder: Path, arguments: list[str], message: str) -> None:
    before = sorted(folder.iterdir())
    done = run(*arguments, cwd=folder)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(folder.iterdir()) == before


@pytest.mark.slow
def test_a_picture_that_fails_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    def fail(self: Figure, path: Path, **options: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    report = watched(folder / "net.onnx", size=(48, 64))
    before = sorted(folder.iterdir())
    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="no space left"):
        report.write(folder / "half.png")
    assert sorted(folder.iterdir()) == before
