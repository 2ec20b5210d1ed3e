"""Fragment layouts against CuTe's MMA_Traits: kernel and emulator must not share one belief."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

from tests.emulation.build import EMULATION, FOLDER, ROOT, configured, run

pytestmark = [pytest.mark.backend("emulation"), pytest.mark.slow]

CUTLASS = "nvidia-cutlass==4.2.0.0"


def cute_headers() -> Path:
    """CuTe's include folder, from PyPI on first use."""
    folder = ROOT / "build" / "cutlass"
    headers = folder / "cutlass_library" / "source" / "include"
    if not (headers / "cute").is_dir():
        done = run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", CUTLASS, "--dest", folder)
        wheels = list(folder.glob("*.whl"))
        if not wheels:
            pytest.skip(f"pip cannot download {CUTLASS}: {done.error[-500:]}")
        zipfile.ZipFile(wheels[0]).extractall(folder)
    return headers


def cuda_include() -> Path:
    cache = (configured("plain") / "CMakeCache.txt").read_text()
    return Path(next(line.split("=", 1)[1] for line in cache.splitlines() if line.startswith("DEPLOYDCN_CUDA_INCLUDE")))


def test_every_coordinate_is_cutes(tmp_path: Path) -> None:
    cuda = cuda_include()
    includes = [f"-I{EMULATION.parent}", *(f"-isystem{folder}" for folder in (cute_headers(), cuda, cuda / "cccl"))]
    compiled = run("g++", "-std=c++20", *includes, FOLDER / "fragment_layouts.cc", "-o", tmp_path / "compare")
    assert compiled.code == 0, compiled.error
    done = run(tmp_path / "compare")
    assert done.code == 0, done.output
    assert done.output.splitlines()[-1] == "compared 2176, different 0"
