"""samples/parity_ci as its reader would use it: copied to a folder of its own, run by its workflow's command."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "parity_ci"

pytestmark = [pytest.mark.slow, pytest.mark.backend("ort"), pytest.mark.backend("torch")]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SAMPLE, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache")))


def run(project: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    """The workflow's pytest command, as on GitHub."""
    (command,) = re.findall(r"- run: (pytest .*)", (project / ".github" / "workflows" / "parity.yml").read_text())
    environment = {**os.environ, "GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": str(project)}
    words = [sys.executable, "-m", *shlex.split(command), *extra]
    return subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True)


def test_the_workflow_passes_and_notices_a_changed_model(project: Path) -> None:
    done = run(project)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert "3 passed" in done.stdout
    assert "parity_worst_error" in (project / "parity.xml").read_text()
    source = (project / "model.py").read_text()
    changed = source.replace("32, 32, 3, padding=1, stride=2", "32, 32, 3, padding=2, stride=2")
    assert changed != source
    (project / "model.py").write_text(changed)
    golden_only = ("-n0", "-k", "release")
    done = run(project, *golden_only)
    assert "1 failed, 2 deselected" in done.stdout
    line = (project / "tests" / "test_parity.py").read_text().splitlines().index('    parity(MODEL, exported, golden="release")') + 1
    assert f"::error file=tests/test_parity.py,line={line},title=parity::FAIL" in done.stdout
    assert "if the model was meant to change, record it: pytest --parity-record" in done.stdout
    assert "recorded tests/goldens/release.npz" in run(project, *golden_only, "--parity-record").stdout
    assert run(project, *golden_only).returncode == 0


def test_the_readme_shows_a_part_of_it() -> None:
    (shown,) = re.findall(r"```py\n(.*?)```", (SAMPLE.parents[1] / "README.md").read_text(), re.S)
    assert shown in (SAMPLE / "tests" / "test_parity.py").read_text()


def test_a_faulty_export_is_located_and_kept(project: Path) -> None:
    """A bug in the exporter, played by a file whose second deformable layer has another padding: found, and its folder kept."""
    tests = project / "tests" / "test_parity.py"
    bug = """
    import onnx
    model = onnx.load(path)
    layers = [node for node in model.graph.node if node.op_type == "DeformConv2d"]
    pads = next(attribute for attribute in layers[-1].attribute if attribute.name == "pads")
    pads.ints[:] = [0, 0, 2, 2]
    onnx.save(model, path)
    return path
"""
    tests.write_text(tests.read_text().replace("    return path\n", bug))
    done = run(project)
    assert "3 failed" in done.stdout
    assert done.stdout.count("look_again.0 (deploydcn::DeformConv2d) after 1 more is the first layer that computes something else") >= 3
    folders = [path.parent for path in (project / "failures").glob("*/reproduce.py")]
    assert len(folders) == 3
    assert all(f"wrote failures/{folder.name}/" in done.stdout for folder in folders)
