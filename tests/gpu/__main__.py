"""`make gpu`: everything that needs a GPU, in one go. Without one it says what it would do.

Every step runs in a process of its own: a step that ends its process, or leaves the GPU in an error, spoils no other.
Exit code 1 when something failed on a machine with a GPU.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from deploydcn.nvidia import gpus
from deploydcn.tensorrt_runtimes import RUNTIMES, installed_module
from tests.gpu import report
from tests.gpu.plan import STEPS, plan
from tests.gpu.report import Outcome, failed
from tests.gpu.steps import ROOT, Machine


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "gpu", help="folder for report.json, models and engines")
    parser.add_argument("--step", action="append", choices=[step.name for step in STEPS], help="this step only; repeatable")
    parser.add_argument("--runtime", action="append", choices=list(RUNTIMES), help="this runtime only; those installed by default")
    parser.add_argument("--json", action="store_true", help="print the report, or the plan, as JSON, nothing else")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    steps = options.step or [step.name for step in STEPS]
    found, why = gpus()
    if not found:
        return _say_plan(steps, why, options)
    capability = found[0].capability
    runtimes = options.runtime or _installed()
    if options.child:
        for outcome in _run(steps[0], Machine(runtimes[0], options.output / runtimes[0], capability)):
            print(json.dumps(asdict(outcome)), flush=True)
        return 0
    console = Console(stderr=options.json, highlight=False, soft_wrap=True)
    console.print(f"{found[0].name}, compute capability {capability[0]}.{capability[1]}; {', '.join(runtimes) or 'no TensorRT'}")
    outcomes = list(_all(steps, runtimes, options.output, console))
    about: dict[str, Any] = {"gpu": found[0].name, "compute_capability": ".".join(map(str, capability)), "runtimes": runtimes}
    report.write(options.output / "report.json", outcomes, **about)
    if options.json:
        print((options.output / "report.json").read_text())
    else:
        report.show(console, outcomes)
    console.print(f"report: {options.output / 'report.json'}")
    return 0 if report.verdict(outcomes) else 1


def _say_plan(steps: Sequence[str], why: str, options: argparse.Namespace) -> int:
    described = [entry for entry in plan() if entry["step"] in steps]
    if options.json:
        print(json.dumps({"gpu": None, "why": why, "plan": described}, indent=1))
        return 0
    console = Console(highlight=False, soft_wrap=True)
    console.print("With a GPU, `make gpu` would run:")
    for number, entry in enumerate(described, 1):
        console.print(f"{number}. {entry['step']}: {entry['what']}")
        for item in entry["items"]:
            console.print(f"     {item}")
    console.print(f"no GPU: nothing was run ({why})", markup=False)
    return 0


def _installed() -> list[str]:
    return [name for name, runtime in RUNTIMES.items() if installed_module(runtime)]


def _all(steps: Sequence[str], runtimes: Sequence[str], output: Path, console: Console) -> Iterator[Outcome]:
    if not runtimes:
        yield failed(
            "environment", "TensorRT", "neither TensorRT nor TensorRT-RTX is installed; pip install 'deploydcn[gpu]' or 'deploydcn[rtx]'"
        )
    for runtime in runtimes or ["tensorrt"]:
        for step in steps:
            if step == "environment" and runtime != (runtimes or ["tensorrt"])[0]:
                continue
            if step != "environment" and not runtimes:
                continue
            console.print(f"{runtime}: {step} ...")
            prefix = "" if step == "environment" else f"{runtime}: "
            for outcome in _in_child(step, runtime, output):
                yield Outcome(outcome.step, prefix + outcome.item, outcome.state, outcome.detail, outcome.figures)


def _in_child(step: str, runtime: str, output: Path) -> Iterator[Outcome]:
    command = [sys.executable, "-m", "tests.gpu", "--child", "--step", step, "--runtime", runtime, "--output", str(output)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        yield from _parse(child.stdout)
    if child.returncode < 0:
        yield failed(step, "process", f"ended by {signal.Signals(-child.returncode).name} after the outcomes above; see the messages")
    elif child.returncode:
        yield failed(step, "process", f"ended with exit code {child.returncode}; see the messages")


def _parse(lines: Iterator[str] | Any) -> Iterator[Outcome]:
    """Outcomes among whatever else libraries print."""
    for line in lines:
        try:
            yield Outcome(**json.loads(line))
        except (ValueError, TypeError):
            sys.stderr.write(line)


def _run(name: str, machine: Machine) -> Iterator[Outcome]:
    (step,) = [step for step in STEPS if step.name == name]
    yield from step.run(machine)


if __name__ == "__main__":
    sys.exit(main())
