"""Convert an ONNX file for a target: any exporter's deformable nodes in, ours, the standard's or core ONNX operators out."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from deploydcn.cli.options import InputFile, Json, Shapes, console, parse_shapes, print_json
from deploydcn.export import TARGETS, convert
from deploydcn.files import read_npz
from deploydcn.tables import table


def command(
    model: Annotated[Path, typer.Argument(help="The ONNX file to read.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The ONNX file to write.")],
    target: Annotated[str, typer.Option(help="; ".join(f"{name}: {target.doc}" for name, target in TARGETS.items()))],
    check: Annotated[bool, typer.Option(help="Compare the outputs of both files in ONNX Runtime before the new one is written.")] = True,
    input_file: InputFile = None,
    shape: Shapes = None,
    as_json: Json = False,
) -> None:
    with console.status(f"converting {model}", spinner="dots") if not as_json else contextlib.nullcontext():
        inputs = read_npz(input_file) if input_file is not None else None
        report = convert(model, output, target=target, check=check, inputs=inputs, shapes=parse_shapes(shape) or None)
    if as_json:
        print_json(report.to_json())
        return
    if report.mapping:
        rows = [(item.node, item.operator, item.becomes or f"stays: {item.reason}") for item in report.mapping]
        console.print(table("deformable and foreign nodes", ["node", "operator", "becomes"], rows))
    comparisons = [
        (", ".join(f"{name} {'x'.join(map(str, sizes))}" for name, sizes in check.shapes.items()), output)
        for check in report.checks
        for output in check.outputs
    ]
    if comparisons:
        shown = [(label, output.name, f"{output.max_abs:.3g}", f"{output.worst_channel:.2g}") for label, output in comparisons]
        console.print(table(f"the file against {report.reference}", ["inputs", "output", "max abs", "of scale"], shown))
    for note in report.notes:
        console.print(f"  {note}")
    console.print(report.summary())
