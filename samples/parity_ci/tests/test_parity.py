"""Is what we ship what we trained? The fixture `parity` and the marks are deploydcn's pytest plugin."""

from __future__ import annotations

from pathlib import Path

import pytest

MODEL = f"{Path(__file__).resolve().parents[1] / 'model.py'}:build"

pytestmark = [pytest.mark.backend("ort"), pytest.mark.parity(locate=True)]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import deploydcn
    from deploydcn.runners.factory import build_model

    built = build_model(MODEL)
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    deploydcn.export_onnx(built.model, built.args, path, dynamic_shapes=({0: "n", 2: "h", 3: "w"},))
    return path


@pytest.mark.backend("torch")
def test_the_file_computes_what_pytorch_does(parity, exported: Path) -> None:
    parity(MODEL, exported, kinds=("zeros",))


@pytest.mark.backend("torch")
def test_another_size(parity, exported: Path) -> None:
    parity(MODEL, exported, shapes={"images": (2, 3, 64, 40)})


def test_the_numbers_are_those_of_the_release(parity, exported: Path) -> None:
    """PyTorch's outputs of that day lie in goldens/release.npz. When the model is meant to change: `pytest --parity-record`."""
    parity(MODEL, exported, golden="release")
