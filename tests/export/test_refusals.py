"""Refusals that say why, and leave nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import deploydcn
from deploydcn.errors import ExportError, InvalidArgument, InvalidModel
from tests.export import models
from tests.export.helpers import image

pytestmark = [pytest.mark.backend("ort"), pytest.mark.slow]  # a quick selection is in test_quick.py


# ------------------------------------------------------------------------------------------------------ refusals
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
    monkeypatch.setattr("deploydcn.export.graph.EXTERNAL_DATA_THRESHOLD", 1000)
    path = tmp_path / "m.onnx"
    deploydcn.export_onnx(models.with_offsets(models.PureDeform()), image(3), path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    assert deploydcn.load(path).run([image(3).numpy()])["output"].shape == (2, 8, 14, 17)


def test_models_in_a_folder_named_like_us_are_users_too() -> None:
    """A clone of this project is called deploydcn: only the package's own folders are not the user's."""
    from deploydcn import nn as package
    from deploydcn.export.translation import _is_users

    assert _is_users("/somewhere/deploydcn/my_models/net.py")
    assert _is_users("/data/torch/net.py")
    assert not _is_users(str(Path(package.__file__)))
    assert not _is_users(str(Path(torch.nn.__file__)))
    assert not _is_users("<string>")
