"""The acceptance on a GPU, as far as it runs without one: its models, plan, statistics and report; its steps on the fake runtime."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

import deploydcn
from deploydcn.nvidia import Gpu
from deploydcn.ops import GPU_OPS, op_named
from tests.conformance.tolerances import TOLERANCE, relative_error
from tests.gpu import __main__ as program
from tests.gpu import models, report, steps, timing
from tests.gpu.fake_build import install_build
from tests.gpu.models import Layer
from tests.gpu.plan import STEPS, plan
from tests.gpu.report import Outcome, failed, judged, passed, skipped
from tests.gpu.statistics import Timing, interleaved
from tests.gpu.steps import ROOT, Machine
from tests.runners.fake_tensorrt import Arrays
from tests.runners.machine import Machine as FakeMachine
from tests.runners.machine import install

pytestmark = pytest.mark.backend("ort")
SMALL = Layer("small", 2, 8, 6)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeMachine:
    return install(monkeypatch, tmp_path)


def on_fake(fake: FakeMachine) -> Machine:
    return Machine("tensorrt", fake.folder / "gpu", (9, 0))


# ---------------------------------------------------------------------------------------------------------- without a GPU
def test_without_a_gpu_the_plan_is_said_and_nothing_run(tmp_path: Path) -> None:
    from deploydcn.nvidia import gpus

    if gpus()[0]:
        pytest.skip("there is a GPU")
    done = subprocess.run([sys.executable, "-m", "tests.gpu", "--output", str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for step in STEPS:
        assert f"{step.name}: {step.what}" in done.stdout
    assert re.search(r"^no GPU: nothing was run \(.+\)$", done.stdout, re.M)
    assert not list(tmp_path.iterdir())
    assert re.search(r"^gpu: .*  ## ", (ROOT / "Makefile").read_text(), re.M)


def test_the_plan_as_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "gpus", lambda: ([], "there is none"))
    assert program.main(["--json", "--step", "layout"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["why"] == "there is none"
    assert [entry["step"] for entry in said["plan"]] == ["layout"]
    assert all(entry["items"] for entry in plan())


# -------------------------------------------------------------------------------------------------------- with a pretended one
def test_every_step_in_its_process_and_a_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The parent's part: children are stand-ins, one of which dies."""
    scripts = {
        "environment": "print('{}')".format(json.dumps({"step": "environment", "item": "GPU", "state": "pass"})),
        "layout": "import os; print('noise of a library', flush=True); os.abort()",
        "conformance": f"print({json.dumps(json.dumps({'step': 'conformance', 'item': 'row', 'state': 'fail', 'detail': 'differs'}))})",
        "runner": "raise SystemExit(7)",
    }
    real = subprocess.Popen

    def popen(command: list[str], **options: object) -> subprocess.Popen[str]:
        step = command[command.index("--step") + 1]
        return real([sys.executable, "-c", scripts[step]], **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(program.subprocess, "Popen", popen)
    monkeypatch.setattr(program, "gpus", lambda: ([Gpu("NVIDIA Pretended", (8, 9), 8 << 30)], ""))
    chosen = [part for step in scripts for part in ("--step", step)]
    assert program.main(["--output", str(tmp_path), "--runtime", "tensorrt", *chosen]) == 1
    written = json.loads((tmp_path / "report.json").read_text())
    assert (written["gpu"], written["compute_capability"], written["passed"]) == ("NVIDIA Pretended", "8.9", False)
    assert [(outcome["step"], outcome["item"], outcome["state"]) for outcome in written["outcomes"]] == [
        ("environment", "GPU", "pass"),
        ("layout", "tensorrt: process", "fail"),
        ("conformance", "tensorrt: row", "fail"),
        ("runner", "tensorrt: process", "fail"),
    ]
    assert "ended by SIGABRT" in written["outcomes"][1]["detail"]
    assert "exit code 7" in written["outcomes"][3]["detail"]
    captured = capsys.readouterr()
    assert "noise of a library" in captured.err
    assert "1 passed, 3 failed, 0 skipped" in captured.out


def test_a_gpu_without_tensorrt_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(program, "gpus", lambda: ([Gpu("NVIDIA Pretended", (8, 9), 8 << 30)], ""))
    monkeypatch.setattr(program, "_installed", list)
    assert program.main(["--output", str(tmp_path), "--step", "layout"]) == 1
    assert "neither TensorRT nor TensorRT-RTX is installed" in (tmp_path / "report.json").read_text()


@pytest.mark.slow
def test_a_child_prints_outcomes(monkeypatch: pytest.MonkeyPatch, fake: FakeMachine, capsys: pytest.CaptureFixture[str]) -> None:
    install_build(monkeypatch, fake)
    monkeypatch.setattr(program, "gpus", lambda: ([Gpu("NVIDIA Pretended", (8, 9), 8 << 30)], ""))
    assert program.main(["--child", "--step", "runner", "--runtime", "tensorrt", "--output", str(fake.folder / "out")]) == 0
    outcomes = list(program._parse(capsys.readouterr().out.splitlines()))
    assert [outcome.state for outcome in outcomes] == ["pass", "pass", "pass", "skip"]


# --------------------------------------------------------------------------------------------------- steps on the fake runtime
def test_environment_is_what_the_doctor_says(fake: FakeMachine) -> None:
    outcomes = {outcome.item: outcome for outcome in steps.environment(on_fake(fake))}
    assert outcomes["onnx"].state == "pass"
    assert set(steps.NEEDED) <= set(outcomes)


def test_layout_products_are_exact(monkeypatch: pytest.MonkeyPatch, fake: FakeMachine) -> None:
    install_build(monkeypatch, fake)
    outcomes = list(steps.layout(on_fake(fake)))
    assert len(outcomes) == 3 * 6
    assert {outcome.state for outcome in outcomes} == {"pass"}, outcomes


def swap_rows(outputs: Arrays) -> Arrays:
    """Output channels 3 and 11, as when a fragment's halves are mixed up."""
    order = np.arange(outputs["Y"].shape[1])
    order[[3, 11]] = 11, 3
    return {"Y": outputs["Y"][:, order]}


def test_a_planted_layout_is_told(monkeypatch: pytest.MonkeyPatch, fake: FakeMachine) -> None:
    install_build(monkeypatch, fake, defect=swap_rows)
    outcomes = {outcome.item: outcome for outcome in steps.layout(on_fake(fake))}
    wrong = outcomes["float16 64x64x64 rows_of_W"]
    assert wrong.state == "fail"
    assert wrong.detail == (
        "128 of 4096 wrong, the first at output channel 3, pixel 0: got 11, wanted 3; the value is the row of the weight "
        "(output channel) it was taken from"
    )
    assert outcomes["float16 64x64x64 columns_of_W"].state == "pass"  # equal in all rows: says that columns are right


def test_turing_has_no_bfloat16(monkeypatch: pytest.MonkeyPatch, fake: FakeMachine) -> None:
    install_build(monkeypatch, fake)
    machine = Machine("tensorrt", fake.folder / "gpu", (7, 5))
    assert [outcome.item for outcome in steps.layout(machine) if outcome.state == "skip"] == ["bfloat16", "TF32"]
    op = GPU_OPS[1]
    monkeypatch.setattr(steps, "GPU_OPS", [SimpleNamespace(spec=op.spec, cases=op.cases[:1], reference=op.reference)])
    states = [(outcome.item, outcome.state) for outcome in steps.conformance(machine)]
    assert states == [
        ("GroupedConv2d float32 groups_2", "pass"),
        ("GroupedConv2d float16 groups_2", "pass"),
        ("GroupedConv2d bfloat16", "skip"),
    ]


FEW_ROWS = ("grouped_conv2d", "separable_conv2d")


@pytest.mark.parametrize(
    "op",
    [pytest.param(op, id=op.spec.snake_name, marks=() if op.spec.snake_name in FEW_ROWS else pytest.mark.slow) for op in GPU_OPS],
)
def test_conformance_rows_in_few_engines(monkeypatch: pytest.MonkeyPatch, fake: FakeMachine, op: object) -> None:
    built = install_build(monkeypatch, fake)
    monkeypatch.setattr(steps, "GPU_OPS", [op])
    outcomes = list(steps.conformance(on_fake(fake)))
    types = models.gpu_types(op)  # type: ignore[arg-type]
    assert len(built) == len(types)
    assert len(outcomes) == len(types) * len(op.cases)  # type: ignore[attr-defined]
    assert not [outcome for outcome in outcomes if outcome.state == "fail"]
    empty = [case for case in op.cases if models.is_empty(case)]  # type: ignore[attr-defined]
    assert sum(outcome.state == "skip" for outcome in outcomes) == len(types) * len(empty) > 0


def test_conformance_notices_a_small_error_in_one_output(monkeypatch: pytest.MonkeyPatch, fake: FakeMachine) -> None:
    def defect(outputs: Arrays) -> Arrays:
        return {name: value * (1 + (name == "relu.Y") * np.float32(1e-4)) for name, value in outputs.items()}

    install_build(monkeypatch, fake, defect=defect)
    monkeypatch.setattr(steps, "GPU_OPS", [GPU_OPS[1]])
    outcomes = steps._rows(on_fake(fake), GPU_OPS[1], {"T": "float32"})
    assert [outcome.item for outcome in outcomes if outcome.state == "fail"] == ["GroupedConv2d float32 relu"]


def test_a_row_that_does_not_build_is_named_and_the_others_run(monkeypatch: pytest.MonkeyPatch, fake: FakeMachine) -> None:
    built = install_build(monkeypatch, fake)
    refuse = deploydcn.build_engine

    def build(path: Path, *rest: object, **options: object) -> None:
        if any(node.name == "groups_4.node" for node in onnx.load(str(path)).graph.node):
            raise deploydcn.RuntimeFailure("TensorRT cannot build groups_4")
        refuse(path, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(deploydcn, "build_engine", build)
    outcomes = list(steps._rows(on_fake(fake), GPU_OPS[1], {"T": "float32"}))
    assert [(outcome.item, outcome.detail) for outcome in outcomes if outcome.state == "fail"] == [
        ("GroupedConv2d float32 groups_4", "TensorRT cannot build groups_4")
    ]
    assert len(built) == len(GPU_OPS[1].cases) - 2


def test_runner_step(monkeypatch: pytest.MonkeyPatch, fake: FakeMachine) -> None:
    install_build(monkeypatch, fake)
    outcomes = list(steps.runner(on_fake(fake)))
    assert [(outcome.item, outcome.state) for outcome in outcomes] == [
        ("shapes in sequence", "pass"),
        ("CUDA graphs", "pass"),
        ("four threads", "pass"),
        ("torch tensors", "skip"),
    ]
    fake.check_clean()


@pytest.mark.parametrize(
    ("step", "item"),
    [
        (steps.layout, "float16 64x64x64"),
        (steps.runner, "dynamic shapes"),
        pytest.param(steps.samples, "s01_resnet50_dcn float32", marks=pytest.mark.slow),
    ],
)
def test_steps_never_raise(monkeypatch: pytest.MonkeyPatch, fake: FakeMachine, step: Callable[[Machine], object], item: str) -> None:
    def build(*_: object, **__: object) -> None:
        raise deploydcn.RuntimeFailure("TensorRT cannot build this; do that")

    monkeypatch.setattr(deploydcn, "build_engine", build)
    monkeypatch.setattr(steps, "SAMPLES", steps.SAMPLES[:1])
    monkeypatch.setattr(steps, "export_sample", lambda reference, path: None)
    outcomes = {outcome.item: outcome for outcome in step(on_fake(fake))}  # type: ignore[attr-defined]
    assert outcomes[item].state == "fail"
    assert outcomes[item].detail == "TensorRT cannot build this; do that"


@pytest.mark.slow
@pytest.mark.backend("ultralytics")
@pytest.mark.parametrize("sample", steps.SAMPLES, ids=lambda sample: sample.file.removesuffix(".py"))
def test_samples_step(monkeypatch: pytest.MonkeyPatch, fake: FakeMachine, sample: steps.Sample) -> None:
    """The whole way: export, "engine", comparison with PyTorch at two sizes."""
    install_build(monkeypatch, fake)
    monkeypatch.setattr(steps, "SAMPLES", (sample,))
    outcomes = list(steps.samples(on_fake(fake)))
    name = sample.file.removesuffix(".py")
    assert [(outcome.item, outcome.state) for outcome in outcomes] == [(f"{name} float32", "pass"), (f"{name} float16", "pass")], outcomes
    fake.check_clean()


@pytest.mark.slow
@pytest.mark.backend("rtx")
def test_tensorrt_rtx_builds_what_the_acceptance_builds(tmp_path: Path) -> None:
    """Genuine engines, which only a GPU can run."""
    machine = Machine("tensorrt-rtx", tmp_path, (8, 9))
    for dtype, tf32 in (("float16", None), ("bfloat16", None), ("float32", True)):
        machine.engine(models.layout_model(models.layout_patterns()[0], dtype), f"layout_{dtype}", tf32=tf32)
    for op in GPU_OPS:
        for types in models.gpu_types(op):
            rows = {case.id: models.row_model(op, case, types) for case in op.cases if not models.is_empty(case)}
            machine.engine(models.side_by_side(rows), f"{op.spec.snake_name}_{models.type_label(types).replace('/', '_')}")
    for kind in ("ours", "dense"):
        machine.engine(models.chain_model(models.LAYERS[0], "float16", kind), f"chain_{kind}")
    assert len(list(tmp_path.glob("*.engine"))) == 3 + sum(len(models.gpu_types(op)) for op in GPU_OPS) + 2


# ------------------------------------------------------------------------------------------------------------------ models
@pytest.mark.parametrize("size", steps.SIZES)
def test_patterns_are_exact_in_every_type(size: tuple[int, int, int]) -> None:
    """Whole numbers of at most 8 bits, and telling: no two rows or columns of the coded side are alike."""
    for pattern in models.layout_patterns(*size):
        for array in (pattern.weight, pattern.samples, pattern.wanted):
            assert np.abs(array).max() <= 256
        assert models.explain(pattern, pattern.wanted.astype(np.float16)) == ""
        assert models.explain(pattern, pattern.wanted + (np.arange(pattern.wanted.size) == 70).reshape(pattern.wanted.shape)) != ""
    rows = next(pattern for pattern in models.layout_patterns() if pattern.name == "rows_of_W")
    assert len(set(rows.wanted[:, 0])) == 64


def test_side_by_side_keeps_every_row_apart() -> None:
    op, types = GPU_OPS[0], {"T": "float32", "T1": "float32"}
    cases = [case for case in op.cases if not models.is_empty(case)][:6]
    merged = models.side_by_side({case.id: models.row_model(op, case, types) for case in cases})
    onnx.checker.check_model(merged)
    feeds = {f"{case.id}.{name}": array for case in cases for name, array in models.row_inputs(op, case, types).items()}
    outputs = deploydcn.load(merged).run(feeds)
    for case in cases:
        wanted = op.reference(models.inputs_of(op, case, types), case.attributes)[0]
        assert relative_error(outputs[f"{case.id}.Y"], wanted) <= TOLERANCE["float32"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_timed_programs_compute_the_same(dtype: str) -> None:
    import torch

    arrays = models.chain_arrays(SMALL)
    tensors = {name: torch.from_numpy(array).to(getattr(torch, dtype)) for name, array in arrays.items()}
    results = {"torchvision deform_conv2d": timing.torchvision_chain({name: tensor.float() for name, tensor in tensors.items()})}
    results["torch dense"] = timing.dense_chain(
        {name: tensor.float() for name, tensor in tensors.items()}, channels_last=dtype == "float16"
    )
    for kind, name in (("ours", timing.OURS), ("standard", "ONNX Runtime CUDA, DeformConv"), ("dense", timing.DENSE)):
        runner = deploydcn.load(models.chain_model(SMALL, dtype, kind), replace_standard=dtype == "float16")
        results[name] = torch.from_numpy(runner.run({info.name: arrays[info.name].astype(dtype) for info in runner.inputs})["y"])
    runs = {name: (lambda value=value: value) for name, value in results.items()}
    assert not list(timing.disagreements("item", runs, timing.AGREEMENT[dtype]))
    assert float(results["torch dense"].std()) > 0.05  # neither dies out nor explodes in so many layers
    runs["torch dense"] = lambda: results["torch dense"] * 1.5
    assert [outcome.item for outcome in timing.disagreements("item", runs, timing.AGREEMENT[dtype])] == [f"item: {timing.DENSE}"]


def test_timing_says_why_it_does_not_run(fake: FakeMachine) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("it would run")
    (outcome,) = timing.timing(on_fake(fake))
    assert outcome.state == "skip"
    assert "no CUDA" in outcome.detail


def test_layers_are_resnets() -> None:
    assert [str(layer) for layer in models.LAYERS if layer.batch == 1] == ["conv3 1x128x28x28", "conv4 1x256x14x14", "conv5 1x512x7x7"]
    assert models.gpu_types(op_named("GroupedConv2d"))[0] == {"T": "float32"}


# -------------------------------------------------------------------------------------------------------------- statistics
def test_interleaving_is_shuffled_and_counts_repeats() -> None:
    calls: list[str] = []

    def measure(name: str, milliseconds: float) -> Callable[[int], float]:
        def run(times: int) -> float:
            calls.append(name)
            return times * milliseconds

        return run

    timings = interleaved({"a": measure("a", 2.0), "b": measure("b", 5.0)}, rounds=9, target_ms=20)
    assert timings["a"].median == pytest.approx(2)
    assert timings["b"].ratio_to(timings["a"]) == pytest.approx(2.5)
    rounds = ["".join(calls[4 + 2 * index :][:2]) for index in range(9)]
    assert set(rounds) == {"ab", "ba"}


def test_drift_drops_out_of_ratios_and_outliers_of_medians() -> None:
    drift = [1.0 + 0.2 * index for index in range(15)]
    slow, fast = Timing(tuple(3 * step for step in drift)), Timing(tuple(drift))
    assert slow.ratio_to(fast) == pytest.approx(3)
    assert Timing((1.0,) * 12 + (50.0,) * 3).median == 1
    assert Timing((1.0,) * 15).spread == 0
    assert interleaved({"nothing": lambda times: 0.0}, rounds=3)["nothing"].rounds == (0.0,) * 3


def test_figures_of_a_layer() -> None:
    ours, dense = Timing((0.8, 0.8, 0.9)), Timing((0.4, 0.4, 0.45))
    (outcome,) = timing.figures("conv4 float16", {timing.OURS: ours, timing.DENSE: dense})
    assert outcome.figures[f"us {timing.OURS}"] == pytest.approx(100)
    assert outcome.figures[f"of {timing.DENSE}"] == pytest.approx(2)
    assert "100.0 us a layer" in outcome.detail
    assert "2.00x TensorRT, dense (50.0 us)" in outcome.detail


# ------------------------------------------------------------------------------------------------------------------ report
def test_verdicts() -> None:
    ok, bad, missing = passed("s", "a"), failed("s", "b", "why"), skipped("s", "c", "why")
    assert report.verdict([ok, missing])
    assert not report.verdict([ok, bad])
    assert not report.verdict([missing])  # nothing was shown
    assert not report.verdict([])
    assert judged("s", "i", 1e-3, 2e-3).state == "pass"
    assert judged("s", "i", float("nan"), 2e-3, "because").state == "fail"
    with pytest.raises(ValueError, match="a reason"):
        Outcome("s", "i", "skip")


def test_report_is_json_whatever_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    many = [judged("s", f"row {index}", index * 1e-6, 1e-4) for index in range(40)]
    outcomes = [*many, judged("s", "inf", float("inf"), 1.0), skipped("s", "c", "why")]
    report.write(tmp_path / "deep" / "report.json", outcomes, gpu="g")
    written = json.loads((tmp_path / "deep" / "report.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert written["counts"] == {"pass": 40, "fail": 1, "skip": 1}
    assert written["outcomes"][40]["figures"]["error"] == "inf"
    report.show(Console(width=200), outcomes)
    shown = capsys.readouterr().out
    assert "the worst, row 39" in shown
    assert "row 12" not in shown
    assert "FAIL" in shown
