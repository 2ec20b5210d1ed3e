"""A candidate that raises while it runs: the layer that does is found, or it is said that none is to blame."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

import deploydcn  # noqa: E402
from deploydcn.parity import Location, write_repro  # noqa: E402
from deploydcn.report import write_report  # noqa: E402

pytestmark = pytest.mark.backend("torch")
EXAMPLE = (torch.linspace(0, 1, 3 * 8 * 8).reshape(1, 3, 8, 8),)


class Net(nn.Module):
    """Two branches that meet. fault: the module that is given a channel too few; "forward": the model's own code raises."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fault = fault
        self.stem, self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.tail = nn.Sequential(nn.Conv2d(4, 2, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        left = self.left(x[:, :3] if self.fault == "left" else x)
        y: Tensor = self.tail((left + self.right(x))[:, : 3 if self.fault == "tail" else 4])
        if self.fault == "forward":
            raise ValueError("not today")
        return y


def location_of(candidate: nn.Module, reference: Any = None) -> Location:
    report = deploydcn.verify(reference or (Net(), EXAMPLE), (candidate, EXAMPLE), locate=True, seeds=1)
    assert not report.passed
    assert report.worst[1].mismatch.startswith("the candidate does not run: torch")
    assert report.location is not None
    return report.location


@pytest.mark.parametrize(("fault", "module"), [("left", "left"), ("tail", "tail.0")])
def test_the_module_that_raises_is_found(fault: str, module: str) -> None:
    location = location_of(Net(fault))
    assert location.verdict == "layer"
    assert location.finding is not None
    assert location.finding.layer.path == module
    assert "it does not run: " in location.explanation
    assert "expected input[1, 3, 6, 6] to have 4 channels" in location.explanation


@pytest.mark.slow
def test_the_folder_shows_what_is_raised(tmp_path: Path) -> None:
    folder = write_repro(location_of(Net("left")), tmp_path / "repro")
    shown = subprocess.run([sys.executable, str(folder / "reproduce.py")], capture_output=True, text=True)
    assert shown.returncode == 1
    assert "to have 4 channels" in shown.stderr


def test_a_wrong_layer_before_it_is_to_blame() -> None:
    """A layer that gives too few rows raises where two branches meet, outside any module."""
    candidate = Net()
    candidate.left.padding = (0, 0)
    location = location_of(candidate)
    assert location.finding is not None
    assert location.finding.layer.path == "left"
    assert "shape [1, 4, 4, 4], wanted [1, 4, 6, 6]" in location.explanation
    assert location.finding.differences[0] == "left: padding is [0, 0], in the reference [1, 1]"


def test_code_of_the_model_itself_blames_no_layer() -> None:
    location = location_of(Net("forward"))
    assert (location.verdict, location.finding) == ("does not run", None)
    assert "ValueError: not today" in location.explanation


@pytest.mark.slow
@pytest.mark.backend("ort")
def test_against_a_file(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    deploydcn.export_onnx(Net(), *EXAMPLE, path, check=False)
    finding = location_of(Net("left"), path).finding
    assert finding is not None
    assert finding.layer.path == "left"


def test_reports_are_written_of_it(tmp_path: Path) -> None:
    models = (Net(), EXAMPLE), (Net("left"), EXAMPLE)
    report = deploydcn.verify(*models, locate=True, seeds=0)
    write_report(report, *(tmp_path / f"report{suffix}" for suffix in (".html", ".json", ".xml")), models=models)
    assert "does not run" in (tmp_path / "report.html").read_text()


def test_without_locate_it_is_an_error() -> None:
    with pytest.raises(deploydcn.errors.RuntimeFailure, match="to have 4 channels"):
        deploydcn.verify((Net(), EXAMPLE), (Net("left"), EXAMPLE))


def test_nothing_runs_to_find_out_what_a_runner_is() -> None:
    runner = deploydcn.load((Net("left"), EXAMPLE), "torch")
    for _ in range(2):  # before Python 3.12, isinstance asks for a protocol's members in any order
        assert not deploydcn.verify((Net(), EXAMPLE), runner, locate=True, seeds=0).passed
