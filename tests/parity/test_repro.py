"""The folder that shows one layer's mismatch by itself: run as its reader would, without this package where it promises so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import deploydcn
from deploydcn.errors import InvalidArgument
from deploydcn.parity import write_repro
from tests.parity.graphs import change_weight, residual_network

pytestmark = pytest.mark.backend("ort")

FILES = {"README.txt", "candidate.npz", "environment.json", "finding.json", "inputs.npz", "reference.npz", "reproduce.py"}


def run(folder: Path, *, without: str = "") -> subprocess.CompletedProcess[str]:
    """Start the script in a process in which one package cannot be imported."""
    block = f"import sys; sys.modules['{without}'] = None; " if without else ""
    code = f"{block}import runpy; runpy.run_path('{folder / 'reproduce.py'}', run_name='__main__')"
    return subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    good = residual_network()
    report = deploydcn.verify(good, change_weight(good, "w3", 1.01), locate=True)
    assert report.location is not None
    return write_repro(report.location, tmp_path / "repro")


def test_the_script_shows_the_mismatch_without_this_package(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == FILES | {"model.onnx"}
    assert [node.name for node in onnx.load(folder / "model.onnx").graph.node] == ["conv3"]
    done = run(folder, without="deploydcn")
    assert done.returncode == 1, done.stderr
    finding = json.loads((folder / "finding.json").read_text())["finding"]
    assert f"largest error: {finding['layer']['local']['worst_channel']:.3g} of a channel's scale" in done.stdout
    assert set(np.load(folder / "inputs.npz")) == {"relu2_out"}
    assert json.loads((folder / "environment.json").read_text())["onnxruntime"]
    assert "conv3" in (folder / "README.txt").read_text()


def test_the_script_ends_with_0_once_the_layer_is_right(folder: Path) -> None:
    """Whoever repairs the layer puts the repaired one in the place of model.onnx."""
    model = onnx.load(folder / "model.onnx")
    onnx.save(change_weight(model, "w3", 1 / 1.01), str(folder / "model.onnx"))
    assert run(folder).returncode == 0


def test_nan_in_the_reference_must_stand_at_the_same_places(folder: Path) -> None:
    expected = np.load(folder / "candidate.npz")["result"].copy()
    expected[0, 0, 0, 0] = np.nan
    np.savez(folder / "reference.npz", result=expected)
    done = run(folder)
    assert done.returncode == 1
    assert "largest error: inf" in done.stdout


def test_an_older_folder_is_replaced_and_a_foreign_one_is_not(folder: Path, tmp_path: Path) -> None:
    good = residual_network()
    report = deploydcn.verify(good, change_weight(good, "w1", 1.01), locate=True)
    assert report.location is not None
    write_repro(report.location, folder)
    assert [node.name for node in onnx.load(folder / "model.onnx").graph.node] == ["conv1"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InvalidArgument, match=r"mine exists and holds no finding.json; wanted a new folder"):
        write_repro(report.location, tmp_path / "mine")
    with pytest.raises(InvalidArgument, match="does not exist; create it first"):
        write_repro(report.location, tmp_path / "no" / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "repro"]
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["thesis.txt"]


def test_no_permission(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused by the system call, since an administrator may write everywhere."""
    report = deploydcn.verify(residual_network(), change_weight(residual_network(), "w1", 1.01), locate=True)
    assert report.location is not None

    def refused(**_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("deploydcn.files.tempfile.mkdtemp", refused)
    with pytest.raises(InvalidArgument, match=r"cannot write .*other: Permission denied; check the folder's permissions"):
        write_repro(report.location, tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["repro"]


def test_a_failure_while_writing_leaves_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / "finding.json").read_text()
    good = residual_network()
    report = deploydcn.verify(good, change_weight(good, "w1", 1.01), locate=True)
    assert report.location is not None

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("deploydcn.parity.repro.environment", full)
    with pytest.raises(OSError, match="no space left"):
        write_repro(report.location, folder)
    assert (folder / "finding.json").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["repro"]


def test_nothing_found_is_nothing_to_write(tmp_path: Path) -> None:
    report = deploydcn.verify(residual_network(), residual_network(), locate=True)
    assert report.location is not None
    with pytest.raises(InvalidArgument, match="there is no layer to write: the outputs agree"):
        write_repro(report.location, tmp_path / "repro")


def test_weights_in_other_files_are_taken_along(tmp_path: Path) -> None:
    good = residual_network()
    paths = []
    for name, model in (("good", good), ("bad", change_weight(good, "w3", 1.01))):
        paths.append(tmp_path / f"{name}.onnx")
        onnx.save(model, str(paths[-1]), save_as_external_data=True, location=f"{name}.data", size_threshold=0)
    report = deploydcn.verify(str(paths[0]), str(paths[1]), locate=True)
    assert report.location is not None
    assert report.location.finding is not None
    assert [step.name for step in report.location.finding.layer.operators] == ["conv3"]
    folder = write_repro(report.location, tmp_path / "repro")
    for path in paths:
        path.with_suffix(".data").unlink()
    assert run(folder, without="deploydcn").returncode == 1
