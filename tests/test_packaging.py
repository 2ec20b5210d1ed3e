"""The wheel: complete, importable with the base dependencies alone, and the same when built from the sdist."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from deploydcn.testing.native import find_nvcc
from tests.test_architecture import LIGHT

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow


def build(command: list[str], cwd: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", *command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One wheel from the checkout, with GPU kernels for one architecture where there is an nvcc; one from the sdist, without."""
    folder = tmp_path_factory.mktemp("dist")
    code = f"import scikit_build_core.build as b; print(b.build_sdist({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    one_architecture = [f"--config-settings=cmake.define.DEPLOYDCN_CUDA_{name}" for name in ("ARCHITECTURES=80", "PTX=")]
    without = ["--config-settings=cmake.define.DEPLOYDCN_CUDA=OFF"]
    for name, path, cuda in (("checkout", ROOT, one_architecture), ("sdist", source, without)):
        options = [
            "--no-build-isolation",
            "--no-deps",
            "-w",
            str(folder / name),
            f"--config-settings=build-dir={folder / ('build_' + name)}",
            *cuda,
        ]
        build(["wheel", *options, str(path)], folder)
    return {name: next((folder / name).glob("*.whl")) for name in ("checkout", "sdist")}


@pytest.mark.parametrize("origin", ["checkout", "sdist"])
def test_wheel_contents(wheels: dict[str, Path], origin: str) -> None:
    assert wheels[origin].name.startswith("deploydcn-")
    assert "-py3-none-linux" in wheels[origin].name
    names = set(zipfile.ZipFile(wheels[origin]).namelist())
    wanted = {"deploydcn/export/__init__.py", "deploydcn/export/frontends/torchvision.py", "deploydcn/lib/libdeploydcn_ort.so"}
    wanted |= {"deploydcn/visual/page.html", "deploydcn/report/page.html"}
    wanted |= {f"deploydcn/serving/page/{name}" for name in ("index.html", "page.js", "page.css")}
    assert wanted <= names
    assert ("deploydcn/lib/libdeploydcn_trt.so" in names) == (origin == "checkout" and find_nvcc() is not None)
    compiled = [name for name in names if name.endswith((".so", ".h", ".cc", ".cu", ".cuh")) and not name.startswith("deploydcn/testing/")]
    assert not any("emulat" in name or "harness" in name for name in compiled)
    assert "deploydcn/py.typed" in names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"deploydcn"}


def test_bare_environment(wheels: dict[str, Path], tmp_path: Path) -> None:
    """A real environment with numpy, onnx, typer, rich and what they bring; nothing else."""
    venv.create(tmp_path / "bare", with_pip=False)
    python = tmp_path / "bare" / "bin" / "python"
    build(["--python", str(python), "install", "--quiet", str(wheels["checkout"])], tmp_path)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run([str(python), "-c", LIGHT], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "light", done.stderr
    outside = subprocess.run([str(python), "-c", "import export"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "No module named 'export'" in outside.stderr
    for command in (["--help"], ["doctor"]):
        done = subprocess.run([str(python.parent / "deploydcn"), *command], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "missing" in done.stdout  # doctor names what is not installed, and is not broken by it
