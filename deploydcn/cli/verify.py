"""Run two models on the same inputs and compare their outputs. Exit code 0: the same, 1: different. What fp16, bf16 or int8 would cost
one model, `drift` tells."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from deploydcn.cli.options import InputFile, Json, Seed, Shapes, console, parse_shapes, print_json
from deploydcn.errors import InvalidArgument
from deploydcn.files import read_npz
from deploydcn.parity import write_repro
from deploydcn.parity.golden import record_golden, write_golden
from deploydcn.parity.verify import as_runner, verify
from deploydcn.report import check_report_path, print_report, write_report


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


def _stem(model: str) -> str:
    """ "model" of path/model.onnx, "build" of path/net.py:build."""
    return model.rpartition(":")[2] if ":" in model else Path(model).stem
