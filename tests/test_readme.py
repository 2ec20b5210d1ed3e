"""Every command and program in README.md runs."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()

# Commands that something else runs: this very test suite is part of `make test`, and CI starts it on a clean machine.
RUN_ELSEWHERE = {
    "make test": ".ci/run",
    "make check": "Makefile: test depends on it",
    "pip install '.[export,cpu]'": "tests/test_packaging.py builds and installs the wheel",
    "make new-op NAME=MyOp": "tests/test_new_op.py",
}


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.S)
    return [line.partition("    #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def test_commands_run_elsewhere_really_do() -> None:
    assert set(RUN_ELSEWHERE) <= set(commands())
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert re.search(r"^test: .*\bcheck\b", (ROOT / "Makefile").read_text(), re.M)


def test_readme_names_existing_files() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's relative paths exist and whose files may be written."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "samples", folder / "samples")
    (folder / "photos").mkdir()
    shutil.copy(ROOT / "docs" / "detections.jpg", folder / "photos")
    return folder


@contextlib.contextmanager
def running(command: str, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """A server that answers while later commands run, and ends well when it is told to."""
    with (folder / "server.log").open("w+") as log:
        process = subprocess.Popen(shlex.split(command), cwd=folder, env=environment, stdout=log, stderr=log, text=True)
        try:
            end = time.monotonic() + 120
            while "HTTP http" not in (folder / "server.log").read_text():
                assert process.poll() is None, (folder / "server.log").read_text()
                assert time.monotonic() < end, "the server does not start"
                time.sleep(0.1)
            yield
            process.terminate()
            assert process.wait(60) == 0, (folder / "server.log").read_text()
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.backend("ort")
@pytest.mark.backend("ultralytics")
@pytest.mark.backend("tritonclient")
@pytest.mark.backend("ray")
def test_every_command(checkout: Path) -> None:
    bin_folder = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    left = [command for command in commands() if command not in RUN_ELSEWHERE]
    assert len(left) >= 6
    with contextlib.ExitStack() as servers:
        for command in left:
            where = ROOT if command.startswith("make") else checkout
            if command.startswith("deploydcn serve "):
                servers.enter_context(running(command, where, environment))
                continue
            done = subprocess.run(command, shell=True, cwd=where, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    assert (checkout / "resnet50_dcn.onnx").is_file()
    assert all((checkout / name).is_file() for name in ("discs.html", "discs.png", "discs_file.html"))
    for size in ("640x640", "480x640"):
        assert (ROOT / "demo" / f"detections_{size}.png").is_file()


PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.mark.slow
@pytest.mark.backend("ort")
@pytest.mark.parametrize("program", PROGRAMS, ids=["use", "own_layer"])
def test_python_examples(checkout: Path, program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "deploydcn::DeformConv2d" in done.stdout
