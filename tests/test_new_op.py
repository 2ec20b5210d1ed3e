"""`make new-op`: in a copy of the checkout, the skeleton builds and passes every test an operator has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from deploydcn.errors import InvalidArgument
from deploydcn.new_op import create, snake_case
from deploydcn.testing.native import find_nvcc

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("name", "wanted"), [("DeformConv2d", "deform_conv2d"), ("MSDeformAttn", "ms_deform_attn"), ("ScaleBy", "scale_by")]
)
def test_snake_case(name: str, wanted: str) -> None:
    assert snake_case(name) == wanted


@pytest.mark.parametrize("name", ["lower", "With Space", "", "Dash-ed"])
def test_bad_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgument, match="wanted CamelCase"):
        create(tmp_path, name)


@pytest.mark.slow
@pytest.mark.backend("ort")
def test_skeleton_compiles_and_passes(tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in tracked.splitlines():
        if (ROOT / name).is_symlink() or (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    create(copy, "ScaleBy")
    # -S keeps the editable install's import hook out: the copy must test itself.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(copy), sysconfig.get_path("purelib")])}
    python = [sys.executable, "-S"]

    def run(*command: str) -> None:
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]

    run(*python, "-m", "deploydcn.codegen")
    run("cmake", "-S", ".", "-B", "build/copy", "-DDEPLOYDCN_WERROR=ON", "-DDEPLOYDCN_CUDA=OFF", "-G", "Ninja")
    run("cmake", "--build", "build/copy", "-j", "2")
    run("cmake", "--install", "build/copy", "--prefix", str(copy))
    tests = [*python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    run(
        *tests,
        "tests/conformance/test_conformance.py",
        "tests/conformance/test_conformance_types.py",
        "tests/convert/test_conformance.py",
        "tests/test_spec.py",
        "-k",
        "scale_by",
    )
    if find_nvcc():
        gpu = ("-DDEPLOYDCN_EMULATION=ON", "-DDEPLOYDCN_EMULATION_PTX=OFF", "-DDEPLOYDCN_WERROR=ON")
        run("cmake", "-S", ".", "-B", "build/emulation", "-G", "Ninja", *gpu)
        run(*tests, "tests/tensorrt/test_emulated_conformance.py", "-k", "scale_by and not ptx and not sanitizers")
    listing = subprocess.run(
        [*python, "-c", "from deploydcn.ops import OPS; print(OPS[-1].spec.name)"],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert listing.stdout.strip() == "ScaleBy"
