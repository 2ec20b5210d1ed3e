"""Builds the C++ targets that tests need, in a source checkout, on first use."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sysconfig
from functools import cache
from pathlib import Path

from deploydcn.errors import InternalError, UserError


def source_root() -> Path:
    """The source checkout this package runs from.

    Raises:
        UserError: the package was installed from a wheel, which has no C++ sources.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / "CMakeLists.txt").is_file() or not (root / "plugins").is_dir():
        raise UserError(
            f"emulated plugins need a source checkout, and {root} is none; clone the repository and install it with `pip install -e .`"
        )
    return root


@cache
def build_target(target: str, variant: str, *definitions: str) -> Path:
    """Build one CMake target, incrementally, into build/<variant>; return that folder. Parallel callers share the build.

    definitions: CMake cache entries, as in NAME=VALUE.
    """
    root = source_root()
    folder = root / "build" / variant
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-DDEPLOYDCN_WERROR=ON", *(f"-D{entry}" for entry in definitions)]
    configure = ["cmake", "-S", str(root), "-B", str(folder), "-G", "Ninja", *options]
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (configure, ["cmake", "--build", str(folder), "--target", target, "-j", "2"]):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise InternalError(f"building {target} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return folder


@cache
def find_nvcc() -> Path | None:
    """The CUDA compiler that the build would take (cmake/cuda.cmake): PATH, CUDA_HOME, or the PyPI packages."""
    homes = [Path(os.environ[name]) / "bin" for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    packages = sorted(Path(sysconfig.get_paths()["purelib"]).glob("nvidia/cu*/bin"), reverse=True)
    search = [os.environ.get("PATH", ""), *map(str, (*homes, Path("/usr/local/cuda/bin"), *packages))]
    found = shutil.which("nvcc", path=os.pathsep.join(search))
    return Path(found) if found else None
