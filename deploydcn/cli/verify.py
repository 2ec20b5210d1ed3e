"""Run two models on the same inputs and compare their outputs. Exit code 0: the same, 1: different."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from deploydcn.cli.options import InputFile, Json, Seed, Shapes, console, parse_shapes, print_json, read_npz, table
from deploydcn.parity import ParityReport, random_inputs
from deploydcn.parity.verify import as_runner, verify


def command(
    reference: Annotated[str, typer.Argument(help="An .onnx or .engine file, or path/file.py:factory of the PyTorch model.")],
    candidate: Annotated[str, typer.Argument(help="The model to judge; like REFERENCE.")],
    input_file: InputFile = None,
    shape: Shapes = None,
    seed: Seed = 0,
    tolerance: Annotated[
        float | None, typer.Option(help="Allowed error relative to a channel's scale; by precision when left out.")
    ] = None,
    as_json: Json = False,
) -> None:
    expected, got = as_runner(reference), as_runner(candidate)
    inputs = None
    if input_file is not None:
        inputs = read_npz(input_file)
    elif shape:
        inputs = random_inputs(expected.inputs, parse_shapes(shape), seed=seed)
    report = verify(expected, got, inputs, tolerance=tolerance, seed=seed, progress=not as_json)
    if as_json:
        print_json(report.to_json())
    else:
        console.print(parity_table(report))
        console.print(f"allowed: {report.tolerance.relative:.2g} of a channel's scale ({report.tolerance.reason})", soft_wrap=True)
        console.print(report.summary(), soft_wrap=True)
    raise typer.Exit(0 if report.passed else 1)


def parity_table(report: ParityReport) -> Table:
    """Every output of every case in a row."""
    rows = []
    for case in report.cases:
        for output in case.outputs:
            verdict = "pass" if output.passes(report.tolerance.relative) else "FAIL"
            numbers = [f"{value:.2g}" for value in (output.max_abs, output.max_relative, output.worst_channel)]
            quality = [f"{output.cosine:.6f}", f"{output.sqnr_db:.0f}", "" if output.top1 is None else f"{output.top1:.1%}"]
            cells = [output.mismatch, *[""] * 5] if output.mismatch else [*numbers, *quality]
            rows.append((case.label, output.name, *cells, verdict))
    columns = ["inputs", "output", "max abs", "/range", "/channel", "cosine", "dB", "top-1", ""]
    return table(f"{report.candidate} against {report.reference}", columns, rows)
