"""Time the CPU kernels: a table of usual layers, layers of your own, or a whole model, against everything else that runs the same."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer

from deploydcn.bench import (
    FAMILY,
    LAYERS,
    NATIVE,
    OURS,
    BenchReport,
    ConvLayer,
    OperatorLayer,
    Row,
    bench_layers,
    bench_model,
    parse_layer,
    write_json,
    write_markdown,
    write_plot,
)
from deploydcn.cli.options import InputFile, Json, Seed, Shapes, console, parse_shapes, print_json
from deploydcn.errors import InvalidArgument
from deploydcn.files import read_npz
from deploydcn.parity import random_inputs
from deploydcn.runners import load
from deploydcn.tables import table


def command(
    model: Annotated[Path | None, typer.Argument(help="An ONNX file; the usual layers when left out.")] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="A layer, as in c=128,h=56,w=56,m=128,k=3; also n, s, d, g, og, nomask, plain; or the name of a usual one. Repeatable."
        ),
    ] = None,
    threads: Annotated[str, typer.Option(help="Numbers of threads, as in 1,2.")] = "1",
    seconds: Annotated[float, typer.Option(min=0.01, help="For one layer or model at one number of threads.")] = 2.0,
    offset_scale: Annotated[float, typer.Option(min=0, help="Standard deviation of the layers' offsets, in pixels.")] = 1.0,
    input_file: InputFile = None,
    shape: Shapes = None,
    seed: Seed = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A .json file to write every figure to.")] = None,
    plot: Annotated[Path | None, typer.Option(help="A .png, .pdf or .svg file to draw.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="A .md file to write tables to.")] = None,
    as_json: Json = False,
) -> None:
    counts = _counts(threads)
    progress = None if as_json else lambda row: console.print(_line(row))
    operators: dict[int, dict[str, float]] = {}
    if model is not None:
        if layer:
            raise InvalidArgument("got a model and --layer; wanted one of the two")
        infos = load(str(model)).inputs
        inputs = read_npz(input_file) if input_file is not None else random_inputs(infos, parse_shapes(shape), seed=seed)
        report, operators = bench_model(model, inputs, threads=counts, seconds=seconds, progress=progress)
    else:
        usual: dict[str, ConvLayer | OperatorLayer] = {**LAYERS, **FAMILY}
        layers = {text: usual[text] if text in usual else parse_layer(text) for text in layer} if layer else usual
        report = bench_layers(layers, threads=counts, seconds=seconds, offset_scale=offset_scale, progress=progress)
    if output is not None:
        write_json(report, output)
    if plot is not None:
        write_plot(report, plot)
    if markdown is not None:
        write_markdown(report, markdown)
    if as_json:
        print_json({**report.to_json(), "operators": operators})
        return
    _print(report, counts)
    for count, seconds_of in operators.items():
        rows = [(name, f"{value * 1e3:.2f}") for name, value in list(seconds_of.items())[:10]]
        console.print(table(f"operators of {model}, {_threads(count)}", ["operator", "ms per run"], rows))


def _counts(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isascii() and part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise InvalidArgument(f"--threads {text!r}; wanted numbers, as in 1,2")
    return [int(part) for part in parts]


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def _line(row: Row) -> str:
    times = "  ".join(f"{label} {timing.median * 1e3:.2f} ms" for label, timing in row.timings.items())
    return f"{row.name} ({row.shape}), {_threads(row.threads)}: {times}"


def _print(report: BenchReport, counts: list[int]) -> None:
    packages = ", ".join(f"{name} {version}" for name, version in report.machine["packages"].items())
    console.print(f"\n{report.machine['processor']}, {report.machine['kernels']} kernels, {report.machine['date']}; {packages}")
    for reference, count in itertools.product(report.references, counts):
        _print_table(report.part(reference), reference, count)
    for note in report.notes:
        console.print(note)


def _print_table(report: BenchReport, reference: str, count: int) -> None:
    others = [label for label in report.labels if label != reference]
    rows = []
    for row in report.rows:
        if row.threads != count:
            continue
        base = row.timings.get(reference)
        speed = f"{row.flops / row.timings[OURS].median / 1e9:.0f}" if row.flops else ""
        ratios = [_ratio(row.ratio(label, reference)) for label in others]
        spread = f"{100 * max(timing.spread for timing in row.timings.values()):.0f} %"
        rows.append((row.name, f"{base.median * 1e3:.3f}" if base else "", *ratios, speed, spread))
    if len(rows) > 1:
        means = [_ratio(report.geometric_mean(label, reference, count)) for label in others]
        rows.append(("geometric mean", "", *means, "", ""))
    columns = ["", f"{reference}, ms", *others, "GFLOP/s", "spread"]
    console.print(table(f"{_threads(count)}: times over that of {reference}", columns, rows))
    faster = report.geometric_mean(NATIVE, OURS, count)
    if faster is not None:
        console.print(f"{faster:.2f} times faster than ONNX Runtime's own, in the geometric mean")


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
