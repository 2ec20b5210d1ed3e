"""Export a PyTorch model to ONNX, run the file against the model, and report."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from deploydcn.cli.options import Json, console, parse_dynamic, print_json
from deploydcn.errors import InvalidArgument
from deploydcn.export import TARGETS, export_onnx
from deploydcn.tables import table


def command(
    model: Annotated[str, typer.Argument(help="path/file.py:factory or package.module:factory; it returns (module, example_inputs).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The ONNX file to write.")],
    target: Annotated[str, typer.Option(help="; ".join(f"{name}: {target.doc}" for name, target in TARGETS.items()))] = "ort",
    dynamic: Annotated[list[str] | None, typer.Option(help="Dynamic axes of an input, as in x:0=n,2=h,3=w. Repeatable.")] = None,
    opset: Annotated[int | None, typer.Option(help="ONNX opset, 19 to 25; 20 when left out.")] = None,
    check: Annotated[bool, typer.Option(help="Run the file at several sizes and compare it with PyTorch before it is written.")] = True,
    as_json: Json = False,
) -> None:
    from deploydcn._lazy import lazy_import

    lazy_import("torch", extra="export")
    from deploydcn.runners.factory import build_model

    with contextlib.redirect_stdout(sys.stderr):  # what a factory prints is not part of the result
        built = build_model(model)
    if not built.has_example:
        raise InvalidArgument(f"{model} returned a model without example inputs; return (model, example_inputs)")
    with console.status(f"exporting {model}", spinner="dots") if not as_json else contextlib.nullcontext():
        report = export_onnx(
            built.model,
            built.args,
            output,
            kwargs=built.kwargs,
            dynamic_shapes=parse_dynamic(dynamic),
            target=target,
            opset=opset,
            check=check,
        )
    if as_json:
        print_json(report.to_json())
        return
    rows = [
        (check.label, output.name, f"{output.max_abs:.3g}", f"{output.worst_channel:.2g}", f"{check.tolerance:.2g}")
        for check in report.checks
        for output in check.outputs
    ]
    if rows:
        console.print(table("the file against PyTorch", ["shapes", "output", "max abs", "of scale", "allowed"], rows))
    for note in report.notes:
        console.print(f"  {note}")
    console.print(report.summary())
