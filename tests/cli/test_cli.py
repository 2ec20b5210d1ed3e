"""The command line: real processes, exit codes, JSON, and messages on standard error."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deploydcn.parity import verify
from deploydcn.parity.golden import GoldenRunner, read_golden

pytestmark = [pytest.mark.backend("ort"), pytest.mark.slow]  # every test starts processes

FACTORY = """
import torch
from deploydcn.nn import DeformConv2d
def build():
    torch.manual_seed(0)
    layer = DeformConv2d(3, 5, 3, padding=1)
    torch.nn.init.normal_(layer.offset_conv.weight, std=0.2)
    return torch.nn.Sequential(layer, torch.nn.ReLU()), torch.randn(1, 3, 9, 11)
def other():
    model, example = build()
    model[0].weight.data[2] *= 1.01
    return model, example
"""


def test_an_unexpected_exception_is_our_bug_and_exits_with_3(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(FACTORY)
    code = "import deploydcn.cli.run as r; r.load = None; import deploydcn.cli as c; c.app.registered_commands; c.main()"
    done = subprocess.run([sys.executable, "-c", code, "run", "m.onnx"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 3
    assert "bug in deploydcn" in done.stderr


def deploydcn(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = "from deploydcn.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli")
    (path / "net.py").write_text(FACTORY)
    done = deploydcn("export", "net.py:build", "-o", "net.onnx", "--dynamic", "input:0=n", "--dynamic", "input:2=h,3=w", "--json", cwd=path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["operators"] == {"deploydcn::DeformConv2d": 1}
    assert report["inputs"] == ["input: float32[nx3xhxw]"]
    assert len(report["checks"]) >= 2
    return path


def test_verify_passes_on_the_same_numbers(folder: Path) -> None:
    done = deploydcn("verify", "net.py:build", "net.onnx", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "PASS" in done.stdout


def test_verify_records_what_agrees_and_nothing_else(folder: Path) -> None:
    done = deploydcn("verify", "net.py:build", "net.onnx", "--record", "net.golden.npz", cwd=folder)
    assert done.returncode == 0, done.stderr
    golden = read_golden(folder / "net.golden.npz")
    assert golden.cases[0].label == "example"
    assert golden.tolerance.relative == 1e-4
    assert golden.provenance["reference"].startswith("torch")
    assert verify(GoldenRunner(golden, "g"), folder / "net.onnx", [case.inputs for case in golden.cases]).passed
    done = deploydcn("verify", "net.py:other", "net.onnx", "--record", "other.npz", cwd=folder)
    assert done.returncode == 1
    assert not (folder / "other.npz").exists()


def test_verify_fails_on_others(folder: Path) -> None:
    done = deploydcn("verify", "net.py:other", "net.onnx", "--json", cwd=folder)
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["passed"] is False
    assert report["cases"][0]["outputs"][0]["worst_channel"] > 1e-3


def test_verify_locates_and_writes_the_layer(folder: Path) -> None:
    done = deploydcn("verify", "net.py:other", "net.onnx", "--locate", cwd=folder)
    assert done.returncode == 1, done.stderr
    assert "is the first layer that computes something else" in done.stdout
    assert "wrote repro-net/; python repro-net/reproduce.py shows it" in done.stdout
    assert subprocess.run([sys.executable, "repro-net/reproduce.py"], cwd=folder, capture_output=True).returncode == 1
    (folder / "taken").mkdir()
    done = deploydcn("verify", "net.py:other", "net.onnx", "--locate", "--seeds", "0", "--repro", "taken", cwd=folder)
    assert (done.returncode, list((folder / "taken").iterdir())) == (2, [])
    assert "is the first layer that computes something else" in done.stdout  # what was found is told all the same
    assert "error: taken exists and holds no finding.json" in done.stderr
    done = deploydcn("verify", "net.py:other", "net.onnx", "--locate", "--json", "--no-repro", cwd=folder)
    location = json.loads(done.stdout)["location"]
    assert location["verdict"] == "layer"
    assert location["finding"]["layer"]["operators"][-1]["type"] == "deploydcn::DeformConv2d"
    assert done.stderr == ""  # no progress bar beside JSON
    done = deploydcn("verify", "net.py:build", "net.onnx", "--locate", "--seeds", "1", "--also", "zeros", "--also", "large", cwd=folder)
    assert done.returncode == 0, done.stdout
    assert "the outputs agree; the largest local error is" in done.stdout
    assert "wrote" not in done.stdout


def test_verify_writes_reports(folder: Path) -> None:
    reports = ["--report", "report.html", "--report", "report.xml", "--report", "report.json"]
    done = deploydcn("verify", "net.py:other", "net.onnx", *reports, cwd=folder)
    assert done.returncode == 1, done.stderr
    assert "wrote report.html" in done.stdout
    assert "FAIL: the candidate gives other numbers" in re.sub("<[^>]*>", "", (folder / "report.html").read_text())
    assert '<failure type="parity"' in (folder / "report.xml").read_text()
    told = json.loads((folder / "report.json").read_text())
    assert told["command"].endswith("net.py:other net.onnx " + " ".join(reports))
    assert [layer["layer"] for layer in told["sampling"]["layers"]] == ["0"]


def test_run_writes_what_verify_reads(folder: Path) -> None:
    np.savez(folder / "in.npz", input=np.random.default_rng(0).standard_normal((2, 3, 7, 8)).astype(np.float32))
    done = deploydcn("run", "net.onnx", "--input", "in.npz", "-o", "out.npz", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert np.load(folder / "out.npz")["output"].shape == (2, 5, 7, 8)
    assert deploydcn("verify", "net.py:build", "net.onnx", "--input", "in.npz", cwd=folder).returncode == 0
    eager = deploydcn("run", "net.py:build", "--backend", "torch", "--json", cwd=folder)
    assert json.loads(eager.stdout)["outputs"]["output"]["shape"] == [1, 5, 9, 11]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "net.onnx"], "input input: float32[nx3xhxw] has dynamic sizes; give its shape, as in --shape input="),
        (["run", "net.onnx", "--shape", "input=1x3"], "has shape [1, 3]; wanted input: float32[nx3xhxw]"),
        (["run", "net.onnx", "--shape", "input:1x3"], "--shape 'input:1x3'; wanted NAME=SIZExSIZE"),
        (["run", "none.onnx"], "none.onnx does not exist; wanted an ONNX file"),
        (["run", "net.py"], "net.py is not an ONNX model"),
        (["run", "net.onnx", "--input", "net.py"], "net.py is not a readable .npz file"),
        (["run", "net.onnx", "--backend", "tpu"], "backend is 'tpu'; wanted one of torch, ort"),
        (["run", "net.onnx", "--shape", "input=1x3x8x8", "-o", "no/such/folder.npz"], "folder no/such does not exist"),
        (["export", "net.py:missing", "-o", "m.onnx"], "has no function 'missing'; it has build, other"),
        (["export", "net.py:build", "-o", "m.onnx", "--dynamic", "input=n"], "--dynamic 'input=n'; wanted INPUT:AXIS=NAME"),
        (["export", "net.py:build", "-o", "m.onnx", "--opset", "17"], "opset is 17; wanted 19 to 25"),
        (["export", "net.py:build", "-o", "m.onnx", "--target", "tflite"], "target is 'tflite'; wanted one of ort, standard"),
        (["run", "net.onnx", "--shape", "input=1x3x\u00b2x9"], "wanted NAME=SIZExSIZE"),
        (["export", "net.py:build", "-o", "m.onnx", "--dynamic", "input:--1=n"], "wanted INPUT:AXIS=NAME"),
        (["run", "."], ". is a folder; wanted an ONNX file"),
        (["verify", "net.py:build", "none.onnx"], "none.onnx does not exist"),
        (["verify", "net.py:build", "net.onnx", "--repro", "there"], "--repro writes the layer that --locate finds; add --locate"),
        (["verify", "net.py:build", "net.onnx", "--locate", "--repro", "there", "--no-repro"], "exclude each other; give one"),
        (["verify", "net.py:build", "net.onnx", "--also", "huge"], "no kind of inputs is called 'huge'; wanted zeros, large"),
        (["verify", "net.py:build", "net.onnx", "--images", "nowhere"], "nowhere is not a folder; wanted a folder of .jpg"),
        (
            ["verify", "net.py:build", "none.onnx", "--report", "report.pdf"],
            "report.pdf: what to write follows from the name; wanted .html",
        ),
        (["verify", "net.py:build", "none.onnx", "--report", "no/such.html"], "cannot write no/such.html: folder no does not exist"),
        (["verify", "net.py:build", "net.onnx", "--detector", "ssd"], "no detector is called 'ssd'; wanted auto, boxes, yolo"),
        (["verify", "net.py:other", "net.onnx", "--locate", "--repro", "no/such"], "cannot write no/such: folder no does not exist"),
    ],
)
def test_mistakes_end_in_one_sentence_and_exit_code_2(folder: Path, arguments: list[str], message: str) -> None:
    before = sorted(folder.rglob("*.onnx"))
    done = deploydcn(*arguments, cwd=folder)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(folder.rglob("*.onnx")) == before


def test_doctor_finds_the_installation_healthy(folder: Path) -> None:
    done = deploydcn("doctor", "--json", cwd=folder)
    findings = {finding["subject"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0
    assert findings["ONNX Runtime operators"]["state"] == "ok"


def test_doctor_notices_both_onnxruntimes(monkeypatch: pytest.MonkeyPatch) -> None:
    from deploydcn import doctor

    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda package: "1.31.1" if package == "onnxruntime-gpu" else real(package))
    broken = [finding for finding in doctor.examine() if finding.state == "broken"]
    assert len(broken) == 1
    assert "are installed over each other" in broken[0].detail
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in broken[0].fix


# ------------------------------------------------------------------------------------------------------------------- drift
def test_drift_prints_a_command_that_makes_its_proposal(folder: Path) -> None:
    np.savez(folder / "typical.npz", input=np.random.default_rng(0).random((3, 3, 9, 11)).astype(np.float32))
    base = ["drift", "net.onnx", "--calibrate", "typical.npz"]
    done = deploydcn(*base, "--dtype", "int8", "--target-db", "10", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["reached"]
    assert report["command"] == "deploydcn quantize net.onnx -o net.int8.onnx --calibrate typical.npz"
    again = deploydcn(*report["command"].split()[1:], cwd=folder)
    assert again.returncode == 0, again.stderr
    half = json.loads(deploydcn(*base, "--dtype", "fp16", "--target-db", "10", "--json", cwd=folder).stdout)
    assert half["command"] == "deploydcn build net.onnx -o net.fp16.engine --dtype fp16 --profile input:1x3x9x11"  # dynamic sizes need one
    missed = deploydcn(*base, "--dtype", "fp16", "--target-db", "300", "-o", "half.onnx", cwd=folder)
    assert missed.returncode == 1
    assert "300 dB cannot be reached" in missed.stdout
    assert not (folder / "half.onnx").exists()
    wrong = deploydcn(*base, "--dtype", "fp8", cwd=folder)
    assert wrong.returncode == 2
    assert "dtype is 'fp8'; wanted one of fp16, bf16, int8" in wrong.stderr
