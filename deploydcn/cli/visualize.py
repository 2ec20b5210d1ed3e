"""Show where deformable layers sample an image: sampling points, receptive fields, offset and mask heat maps."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from deploydcn.cli.options import InputFile, Json, console, print_json
from deploydcn.errors import InvalidArgument
from deploydcn.files import read_npz
from deploydcn.tables import table
from deploydcn.visual import VisualReport, visualize


def command(
    model: Annotated[str, typer.Argument(help="An .onnx file of any exporter, or path/file.py:factory of a PyTorch model.")],
    image: Annotated[Path, typer.Option(help="The photograph; it is letterboxed into the model's size.")],
    output: Annotated[
        list[Path] | None, typer.Option("--output", "-o", help="A .html page or a .png picture to write. Repeatable; none: the list only.")
    ] = None,
    layer: Annotated[list[str] | None, typer.Option(help="A layer to show, by name. Repeatable; four of them when left out.")] = None,
    pixel: Annotated[
        list[str] | None, typer.Option(help="An output pixel, Y,X; of attention a query's number. Repeatable; three places when left out.")
    ] = None,
    levels: Annotated[int, typer.Option(min=1, max=3, help="Deformable layers to follow points through.")] = 3,
    group: Annotated[int, typer.Option(min=0, help="The offset group, or head, whose points are shown.")] = 0,
    size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH of the model's input, where the model leaves it open.")] = None,
    mean: Annotated[str, typer.Option(help="What is taken off pixels in [0, 1]: one number, or R,G,B.")] = "0",
    std: Annotated[str, typer.Option(help="What they are then divided by: one number, or R,G,B.")] = "1",
    input_file: InputFile = None,
    only_list: Annotated[bool, typer.Option("--list", help="Only list the deformable layers and their inputs.")] = False,
    as_json: Json = False,
) -> None:
    if only_list and output:
        raise InvalidArgument("got --list and --output; wanted one of the two")
    with contextlib.nullcontext() if as_json else console.status(f"watching {model}", spinner="dots"):
        report = visualize(
            model,
            image,
            layers=layer,
            pixels=[_pixel(text) for text in pixel or ()] or None,
            levels=levels,
            group=group,
            size=None if size is None else _size(size),
            mean=_numbers("--mean", mean),
            std=_numbers("--std", std),
            inputs=None if input_file is None else read_npz(input_file),
            outputs=output or (),
        )
    if as_json:
        print_json({**report.to_json(), "files": [str(path) for path in output or ()]})
        return
    console.print(_shapes(report) if only_list else _statistics(report))
    for note in report.notes:
        console.print(f"  {note}", soft_wrap=True)
    for path in output or ():
        console.print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def _shapes(report: VisualReport) -> Table:
    rows = []
    for layer in report.layers:
        for index, (name, shape) in enumerate(layer.shapes.items()):
            own = (layer.name, layer.operator) if index == 0 else ("", "")
            rows.append((*own, f"{name}[{'x'.join(map(str, shape))}]"))
    return table(f"deformable layers of {report.model}", ["layer", "operator", "inputs"], rows)


def _statistics(report: VisualReport) -> Table:
    rows = []
    for layer, numbers in zip(report.layers, report.statistics, strict=True):
        mask = "" if numbers.mean_mask is None else f"{numbers.mean_mask:.2f}"
        distances = [f"{value:.2f}" for value in (numbers.mean_distance, numbers.percentile_95, numbers.largest_distance)]
        samples = f"{layer.shapes['spatial_shapes'][0]} levels" if layer.is_attention else "x".join(map(str, layer.input_size))
        output = f"{layer.output_size[0]} queries" if layer.is_attention else "x".join(map(str, layer.output_size))
        rows.append((layer.name, samples, output, *distances, f"{numbers.outside:.1%}", mask))
    columns = ["layer", "samples", "for", "|offset|", "95 %", "largest", "outside", "mask"]
    unit = "of the image" if any(layer.is_attention for layer in report.layers) else "of each map"
    title = f"{report.model} on {report.image}, {report.photo.size[0]}x{report.photo.size[1]}; |offset| in pixels {unit}"
    return table(title, columns, rows)


def _pixel(text: str) -> tuple[int, ...]:
    if not re.fullmatch("[0-9]+(,[0-9]+)?", text):
        raise InvalidArgument(f"--pixel {text!r}; wanted row and column of an output pixel, as in 3,5, or a query's number")
    return tuple(map(int, text.split(",")))


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch("([1-9][0-9]*)x([1-9][0-9]*)", text)
    if match is None:
        raise InvalidArgument(f"--size {text!r}; wanted HEIGHTxWIDTH, as in 480x640")
    return int(match[1]), int(match[2])


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InvalidArgument(f"{option} {text!r}; wanted a number, or three as in 0.485,0.456,0.406") from None
