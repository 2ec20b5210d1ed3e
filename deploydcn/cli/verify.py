"""Run two models on the same inputs and compare their outputs. Exit code 0: the same, 1: different. What fp16, bf16 or int8 would cost
one model, `drift` tells."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from deploydcn.cli.options import InputFile, Json, Seed, Shapes, console, parse_shapes, print_json, table
from deploydcn.errors import InvalidArgument
from deploydcn.files import read_npz
from deploydcn.parity import Location, ParityReport, write_repro
from deploydcn.parity.golden import record_golden, write_golden
from deploydcn.parity.verify import as_runner, verify
from deploydcn.report import check_report_path, write_report


def command(
    reference: Annotated[str, typer.Argument(help="An .onnx or .engine file, or path/file.py:factory of the PyTorch model.")],
    candidate: Annotated[str, typer.Argument(help="The model to judge; like REFERENCE.")],
    input_file: InputFile = None,
    shape: Shapes = None,
    seed: Seed = 0,
    seeds: Annotated[int, typer.Option(min=0, help="How many random inputs, from --seed on.")] = 2,
    also: Annotated[list[str] | None, typer.Option(help="Further inputs: zeros, or large (random times 10). Repeatable.")] = None,
    images: Annotated[Path | None, typer.Option(help="A folder of photographs to compare on too.")] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Allowed error relative to a channel's scale; by precision when left out.")
    ] = None,
    locate: Annotated[bool, typer.Option("--locate", help="Compare inside the models too; name the first layer that differs.")] = False,
    repro: Annotated[Path | None, typer.Option(help="Folder for that layer and its tensors; repro-CANDIDATE if left out.")] = None,
    no_repro: Annotated[bool, typer.Option("--no-repro", help="Write no such folder.")] = False,
    report_file: Annotated[
        list[Path] | None, typer.Option("--report", help="A page (.html), .json, or JUnit (.xml) of all of this to write. Repeatable.")
    ] = None,
    detector: Annotated[
        str | None, typer.Option(help="Compare boxes too: boxes, yolo or detr says how outputs are read; auto, as in reports, finds out.")
    ] = None,
    record: Annotated[Path | None, typer.Option(help="Golden of REFERENCE's outputs to write if all agrees; `serve` checks it.")] = None,
    as_json: Json = False,
) -> None:
    if repro is not None and no_repro:
        raise InvalidArgument("--repro and --no-repro exclude each other; give one")
    if repro is not None and not locate:
        raise InvalidArgument("--repro writes the layer that --locate finds; add --locate")
    for path in report_file or ():
        check_report_path(path)
    loaded = as_runner(reference)
    report = verify(
        loaded,
        candidate,
        None if input_file is None else read_npz(input_file),
        tolerance=tolerance,
        seed=seed,
        seeds=seeds,
        kinds=also or (),
        images=images,
        shapes=parse_shapes(shape) or None,
        detector=detector or ("auto" if report_file else None),
        locate=locate,
        progress=not as_json,
    )
    found = report.location is not None and report.location.finding is not None
    written, refused = None, None
    if report.location is not None and found and not no_repro:
        try:
            written = write_repro(report.location, repro or Path(f"repro-{_stem(candidate)}"))
        except InvalidArgument as error:  # what was found is worth more than the folder, and is told first
            refused = error
    if as_json:
        print_json({**report.to_json(), "repro": None if written is None else str(written)})
    else:
        print_report(report, console, written)
    command_line = shlex.join(["deploydcn", *sys.argv[1:]])
    if report_file:
        write_report(report, *report_file, models=(reference, candidate), command=command_line)
    recorded = []
    if record is not None and report.passed:
        golden = record_golden(reference, loaded, [(case.label, case.inputs) for case in report.cases], command_line)
        write_golden(record, replace(golden, tolerance=report.tolerance))
        recorded = [record]
    if not as_json:
        for path in (*(report_file or ()), *recorded):
            console.print(f"wrote {path}", soft_wrap=True)
        console.print(report.summary(), soft_wrap=True)
    if refused is not None and repro is not None:
        raise refused
    if refused is not None:
        print(f"no folder was written: {refused}", file=sys.stderr)
    raise typer.Exit(0 if report.passed else 1)


def print_report(report: ParityReport, to: Console, written: Path | None = None) -> None:
    """The table, what was allowed, what `locate` found. written: the folder that shows the layer by itself."""
    to.print(parity_table(report))
    for line in mismatches(report):
        to.print(line, soft_wrap=True, markup=False)
    to.print(f"allowed: {report.tolerance.relative:.2g} of a channel's scale ({report.tolerance.reason})", soft_wrap=True)
    if any(case.detections for case in report.cases):
        to.print(detections_table(report))
    if report.location is not None:
        _print_location(report.location, to)
    if written is not None:
        to.print(f"wrote {written}/; python {written}/reproduce.py shows it", soft_wrap=True)


def parity_table(report: ParityReport) -> Table:
    """Every output of every case in a row; why some cannot be compared is too long for it, see `mismatches`."""
    rows = []
    for case in report.cases:
        for output in case.outputs:
            verdict = "pass" if output.passes(report.tolerance.relative) else "FAIL"
            numbers = [f"{value:.2g}" for value in (output.max_abs, output.max_relative, output.worst_channel)]
            quality = [f"{output.cosine:.6f}", f"{output.sqnr_db:.0f}", "" if output.top1 is None else f"{output.top1:.1%}"]
            if output.mismatch or output.empty:
                numbers, quality = ["" if output.mismatch else "empty", "", ""], ["", "", ""]
            rows.append((case.label, output.name, *numbers, *quality, verdict))
    columns = ["inputs", "output", "max abs", "/range", "/channel", "cosine", "dB", "top-1", ""]
    return table(f"{report.candidate} against {report.reference}", columns, rows)


def mismatches(report: ParityReport) -> list[str]:
    """Why outputs cannot be compared, each reason once: "map, vec (example, seed 0): shape [2, 4], wanted [2, 5]"."""
    found: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for case in report.cases:
        for output in case.outputs:
            if output.mismatch:
                names, labels = found.setdefault(output.mismatch, ({}, {}))
                names[output.name] = labels[case.label] = None
    return [f"{', '.join(names)} ({', '.join(labels)}): {why}" for why, (names, labels) in found.items()]


def detections_table(report: ParityReport) -> Table:
    """Every image's boxes in a row."""
    rows = []
    for case in report.cases:
        for item in case.detections:
            counts = (item.pairs, item.renamed, item.missing, item.extra)
            numbers = [f"{item.score_difference:.1g}", f"{item.shift:.1g}", f"{item.smallest_iou:.4f}"] if item.partners else ["", "", ""]
            boxes = f"{len(item.reference)}/{len(item.candidate)}"
            rows.append((case.label, str(item.image), boxes, *(str(len(some)) for some in counts), *numbers))
    columns = ["inputs", "image", "boxes", "paired", "class", "missing", "extra", "score", "px", "IoU"]
    return table("boxes", columns, rows)


def _print_location(location: Location, to: Console) -> None:
    finding = location.finding
    blamed = None if finding is None else finding.layer.name
    shown = {layer.name for layer in location.contributors} | {blamed, *(finding.before if finding is not None else ())}
    rows = [
        (layer.path or layer.name, layer.name, f"{layer.local_error:.2g}", f"{layer.accumulated_error:.2g}", "<--" * (layer.name == blamed))
        for layer in location.layers
        if layer.name in shown
    ]
    if rows:
        title = f"inside the models, on {location.label}: {len(location.layers)} tensors matched, those of interest"
        to.print(table(title, ["module", "tensor", "local error", "accumulated", ""], rows))
    to.print(location.explanation, soft_wrap=True)
    if finding is not None:
        for source, error in finding.before.items():
            to.print(f"  fed by {source}: accumulated error {error:.2g}", soft_wrap=True)
        for difference in finding.differences:
            to.print(f"  {difference}", soft_wrap=True)
        for name, described in finding.statistics.items():
            to.print(f"  {name}: {described}", soft_wrap=True)


def _stem(model: str) -> str:
    """ "model" of path/model.onnx, "build" of path/net.py:build."""
    return model.rpartition(":")[2] if ":" in model else Path(model).stem
