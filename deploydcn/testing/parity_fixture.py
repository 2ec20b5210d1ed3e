"""What the fixture `parity` gives to a test."""

from __future__ import annotations

import io
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from rich.console import Console

from deploydcn.errors import DeployDcnError, InvalidArgument, MissingDependency, RuntimeFailure, UserError
from deploydcn.parity import ParityReport, write_repro
from deploydcn.parity.golden import Golden, GoldenCase, GoldenRunner, read_golden, record_golden, same_bytes, write_golden
from deploydcn.parity.inputs import input_sets
from deploydcn.parity.verify import as_runner, verify
from deploydcn.report import print_report
from deploydcn.runners import Runner
from deploydcn.testing.pytest_plugin import MODULES, Record, parity_defaults, skip_or_fail

INPUT_OPTIONS = {"seed": 0, "seeds": 2, "kinds": (), "images": None, "shapes": None}
OPTIONS = {*INPUT_OPTIONS, "tolerance", "dtype", "locate", "memory_limit", "golden"}

Inputs = Mapping[str, Any] | Sequence[Any] | None


class Parity:
    """Compares two models in a test. Made by the fixture `parity`."""

    def __init__(self, request: pytest.FixtureRequest, record: Record) -> None:
        self._request, self._item, self._record = request, request.node, record

    def __call__(self, reference: Any, candidate: Any, inputs: Inputs = None, **options: Any) -> ParityReport:
        """Run `deploydcn.verify` and fail where it does, with the report's table.

        Args:
            reference, candidate, inputs: as `deploydcn.verify` takes them. With a golden, the reference is only loaded to record.
            options: tolerance, dtype, seed, seeds, kinds, images, shapes, locate and memory_limit of `deploydcn.verify`, before those
                of the test's `@pytest.mark.parity(...)`. locate: of a failing comparison, name the layer, and say where the folder lies
                that shows it by itself. golden: the name of a file in the folder `goldens` beside the test, which holds inputs and the
                reference's outputs; the tolerance recorded in it counts where neither `tolerance` nor `dtype` is given.

        Returns:
            The report of a comparison that passed.

        Raises:
            UserError: the models cannot be loaded, run or compared; or the golden is missing, not of these inputs, or unreadable.
        """
        __tracebackhide__ = True
        options = {**parity_defaults(self._item), **options}
        if unknown := set(options) - OPTIONS:
            raise InvalidArgument(f"parity got {', '.join(sorted(unknown))}; wanted some of {', '.join(sorted(OPTIONS))}")
        self._record.comparisons += 1
        caller = sys._getframe(1)
        place = (caller.f_code.co_filename, caller.f_lineno)
        name = options.pop("golden", None)
        try:
            if name is None:
                report, notes = self._against_model(reference, candidate, inputs, options), ""
            else:
                report, notes = self._against_golden(name, reference, candidate, inputs, options)
            self._add_properties(report)
            if report.passed:
                return report
            text = f"{self._text(report)}{notes}"
        except MissingDependency as error:
            self._end_without(error, place)
        except DeployDcnError as error:
            self._record.annotations.append((*place, f"{type(error).__name__}: {error}"))
            raise
        found = "" if report.location is None else f"\n{report.location.explanation}"
        self._record.annotations.append((*place, f"{report.summary()}{found}{notes}"))
        pytest.fail(text)

    def _against_model(self, reference: Any, candidate: Any, inputs: Inputs, options: dict[str, Any]) -> ParityReport:
        """Looks inside the models only once their outputs differ, or the candidate does not run: tests that pass stay fast."""
        locate = options.pop("locate", False)
        runners = as_runner(reference), as_runner(candidate)
        try:
            report = verify(*runners, inputs, **options)
        except RuntimeFailure:
            if not locate:
                raise
        else:
            if report.passed or not locate:
                return report
        return verify(*runners, inputs, locate=True, **options)

    def _against_golden(
        self, name: str, reference: Any, candidate: Any, inputs: Inputs, options: dict[str, Any]
    ) -> tuple[ParityReport, str]:
        """The candidate against what is, or is now being, recorded; what to say of the golden if that fails."""
        path = self._golden_path(name)
        command = f"pytest --parity-record {shlex.quote(self._item.nodeid)}"
        again = f"record it: {command}"
        asked = {key: options.pop(key, default) for key, default in INPUT_OPTIONS.items()}
        locate = options.pop("locate", False)
        runner = as_runner(candidate)
        recording = self._item.config.getoption("parity_record")
        if recording:
            golden = _run_reference(reference, runner, inputs, asked, command)
        elif not path.is_file():
            raise InvalidArgument(f"there is no golden {path}; {again}")
        else:
            golden = read_golden(path)
            _check_inputs(golden, path.name, runner, inputs, asked, again)
            if options.get("tolerance") is None and options.get("dtype") is None:
                options["tolerance"] = golden.tolerance
        report = verify(GoldenRunner(golden, path.name), runner, [case.inputs for case in golden.cases], **options)
        report = replace(report, cases=tuple(replace(one, label=case.label) for one, case in zip(report.cases, golden.cases, strict=True)))
        if report.passed and recording:
            write_golden(path, replace(golden, tolerance=report.tolerance))
            self._record.goldens.append(str(path))
        if report.passed:
            return report, ""
        notes = ""
        if locate:
            worst = golden.cases[report.cases.index(report.worst[0])]
            report, notes = _locate_in_reference(report, reference, runner, worst, options)
        if recording:
            return report, f"{notes}\nnot recorded: {path} stays as it was, since the candidate differs from the reference"
        made = golden.provenance
        return report, f"{notes}\n{path} was recorded on {made['date']} of {made['reference']}; if the model was meant to change, {again}"

    def _golden_path(self, name: str) -> Path:
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name):
            raise InvalidArgument(f"golden is {name!r}; wanted a name of letters, digits, '_', '-' and '.', without a folder")
        return Path(self._item.path).parent / "goldens" / f"{name}.npz"

    def _add_properties(self, report: ParityReport) -> None:
        case, output = report.worst
        self._item.user_properties += [
            ("parity_reference", report.reference),
            ("parity_candidate", report.candidate),
            ("parity_output", f"{output.name} ({case.label})"),
            ("parity_worst_error", f"{output.worst_channel:.6g}"),
            ("parity_tolerance", f"{report.tolerance.relative:.6g}"),
        ]

    def _text(self, report: ParityReport) -> str:
        """The verdict first, then what the command line prints. The folder of a located layer is written."""
        written, note = None, ""
        if report.location is not None and report.location.finding is not None:
            try:
                written = write_repro(report.location, self._repro_folder())
            except (InvalidArgument, OSError) as error:
                note = f"\nno folder was written: {error}"  # the comparison's failure is what the test is about
        text = io.StringIO()
        print_report(report, Console(file=text, width=140, highlight=False, markup=False), written)
        return "\n".join(line.rstrip() for line in [report.summary(), *text.getvalue().splitlines()]) + note

    def _repro_folder(self) -> Path:
        number = self._record.comparisons
        kept = self._item.config.getoption("parity_repro")
        if kept is None:
            return Path(self._request.getfixturevalue("tmp_path")) / f"repro-{number}"
        Path(kept).mkdir(parents=True, exist_ok=True)
        test = re.sub(r"[^\w.-]+", "_", self._item.nodeid)[-200:]  # names of files have at most 255 bytes
        return Path(kept) / f"{test}-{number}"

    def _end_without(self, error: MissingDependency, place: tuple[str, int]) -> NoReturn:
        """Skip where the package of a backend is not installed; one that is installed and broken is a failure."""
        __tracebackhide__ = True
        cause = error.__cause__
        module = cause.name if isinstance(cause, ModuleNotFoundError) and cause.name else ""
        for backend, needs in MODULES.items():
            if module.partition(".")[0] == needs:
                skip_or_fail(self._item, backend, str(error))
        self._record.annotations.append((*place, str(error)))
        raise error


def _run_reference(reference: Any, candidate: Runner, inputs: Inputs, asked: dict[str, Any], command: str) -> Golden:
    runner = as_runner(reference)
    sets = list(input_sets(runner, candidate, inputs, **asked))
    if not sets:
        raise InvalidArgument("there is nothing to record: no inputs were asked for; give inputs, seeds, kinds or images")
    return record_golden(reference, runner, sets, command)


def _locate_in_reference(
    report: ParityReport, reference: Any, candidate: Runner, worst: GoldenCase, options: dict[str, Any]
) -> tuple[ParityReport, str]:
    """A golden holds no layers: today's reference is looked into. Where that is no help, the failure stands as it is."""
    try:
        location = verify(reference, candidate, worst.inputs, locate=True, **options).location
    except UserError as error:
        return report, f"\nno layer was looked for: {error}"
    if location is None or location.verdict == "agree":
        return (
            report,
            "\nno layer is to blame: the reference computes today what the candidate does; both have changed since",
        )
    return replace(report, location=replace(location, label=worst.label)), ""


def _check_inputs(golden: Golden, name: str, candidate: Runner, inputs: Inputs, asked: dict[str, Any], again: str) -> None:
    """The test still asks for the recorded inputs. Those given by the test must be equal; of generated ones names, types and shapes, since
    NumPy may change how random numbers are drawn: the recorded ones are compared on."""
    try:
        sets = list(input_sets(GoldenRunner(golden, name), candidate, inputs, **asked))
    except UserError as error:
        raise InvalidArgument(f"the test asks for inputs that golden {name} does not hold ({error}); {again}") from error
    recorded = {case.label: case.inputs for case in golden.cases}
    differing = [label for label, arrays in sets if not _same(recorded.get(label), arrays, exact=inputs is not None)]
    differing += sorted(set(recorded) - {label for label, _ in sets})
    if differing:
        raise InvalidArgument(f"golden {name} holds other inputs than the test asks for ({', '.join(differing)}); {again}")


def _same(recorded: Mapping[str, np.ndarray] | None, asked: Mapping[str, np.ndarray], *, exact: bool) -> bool:
    if recorded is None or set(recorded) != set(asked):
        return False
    pairs = [(recorded[name], asked[name]) for name in recorded]
    return all(same_bytes(a, b) if exact else (a.dtype, a.shape) == (b.dtype, b.shape) for a, b in pairs)
