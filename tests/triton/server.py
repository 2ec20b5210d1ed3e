"""A tritonserver without a container: `python -m tests.triton.server` puts it into build/tritonserver.

The wheel nvidia-pytriton (55 MB) brings the server, 2.51, with its Python backend only. A backend called onnxruntime, written in Python
(tests/triton/backend/model.py), takes the place of the real one, so that repositories are loaded as they are. The backend's interpreter
is a virtual environment with NumPy 1: with NumPy 2 this version of the Python backend reads and writes nothing.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "tritonserver"
PROGRAM = FOLDER / "tritonserver"
WHEEL = "nvidia-pytriton==0.7.0"
NUMPY = "numpy==1.26.4"
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

SCRIPT = """#!/bin/sh
export LD_LIBRARY_PATH={libraries}
export PATH={environment}/bin:$PATH
exec {server} --backend-directory={backends} "$@"
"""


def missing() -> str:
    """Why there is no server, "" when there is."""
    return "" if PROGRAM.is_file() else "no server in build/tritonserver; python -m tests.triton.server puts one there (80 MB)"


def install() -> None:
    """Download and arrange everything; PROGRAM comes last."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    _pip("download", "--dest", FOLDER, WHEEL)
    (wheel,) = FOLDER.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(FOLDER / "wheel")
    wheel.unlink()
    parts = FOLDER / "wheel" / "pytriton" / "tritonserver"
    backends = FOLDER / "backends"
    shutil.copytree(parts / "backends" / "python", backends / "python")
    stub = shutil.copy(parts / "python_backend_stubs" / VERSION / "triton_python_backend_stub", backends / "python")
    (backends / "onnxruntime").symlink_to(Path(__file__).parent / "backend")
    server = parts / "bin" / "tritonserver"
    for program in (server, Path(stub)):
        program.chmod(0o755)
    environment = FOLDER / "environment"
    venv.create(environment, with_pip=False)
    packages = environment / "lib" / f"python{VERSION}" / "site-packages"
    _pip("install", "--target", packages, NUMPY)
    (packages / "parent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    libraries = f"{FOLDER / 'wheel' / 'nvidia_pytriton.libs'}:{sysconfig.get_config_var('LIBDIR')}"  # its own, and libpython
    script = FOLDER / "script"
    script.write_text(SCRIPT.format(libraries=libraries, environment=environment, server=server, backends=backends))
    script.chmod(0o755)
    script.rename(PROGRAM)


def _pip(*arguments: object) -> None:
    head, *rest = map(str, arguments)
    command = [sys.executable, "-m", "pip", head, "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", *rest]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    install()
    print(PROGRAM)
