"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from deploydcn.engine.report import Range
from deploydcn.errors import InvalidArgument

# How calibration images become inputs.
ImageSize = Annotated[str | None, typer.Option(help="Height and width to bring images to, as in 640x640; the model's own when left out.")]
ImageFit = Annotated[str, typer.Option(help="letterbox keeps the proportions of images, stretch does not.")]
ImageMean = Annotated[str, typer.Option(help="Of image values in [0, 1], one or per channel, as in 0.485,0.456,0.406.")]
ImageStd = Annotated[str, typer.Option(help="The same; the input is (value - mean) / std.")]
SampleLimit = Annotated[int | None, typer.Option(min=1, help="Use the first so many samples only.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output, nothing else.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the random inputs.")]
Shapes = Annotated[list[str] | None, typer.Option("--shape", help="Shape of a random input, as in x=1x3x640x640. Repeatable.")]
InputFile = Annotated[Path | None, typer.Option("--input", help="An .npz file with one array per input, by name.")]

console = Console(highlight=False, markup=False)


def print_json(value: Any) -> None:
    """A JSON document on standard output, unwrapped."""
    print(json.dumps(value, indent=2))


def parse_shapes(texts: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """["x=1x3x8x8"] -> {"x": (1, 3, 8, 8)}."""
    shapes = {}
    for text in texts or ():
        name, separator, sizes = text.rpartition("=")
        parts = sizes.split("x")
        if not separator or not name or not all(re.fullmatch("[0-9]+", part) for part in parts):
            raise InvalidArgument(f"--shape {text!r}; wanted NAME=SIZExSIZE..., as in x=1x3x640x640")
        if name in shapes:
            raise InvalidArgument(f"--shape names {name!r} twice; give it once")
        shapes[name] = tuple(map(int, parts))
    return shapes


def parse_dynamic(texts: Sequence[str] | None) -> dict[str, dict[int, str]] | None:
    """["x:0=n,2=h"] -> {"x": {0: "n", 2: "h"}}; None when there are none."""
    shapes: dict[str, dict[int, str]] = {}
    for text in texts or ():
        name, separator, axes = text.partition(":")
        pairs = [item.partition("=") for item in axes.split(",")]
        if not separator or not all(re.fullmatch("-?[0-9]+", axis) and symbol.isidentifier() for axis, _, symbol in pairs):
            raise InvalidArgument(f"--dynamic {text!r}; wanted INPUT:AXIS=NAME,..., as in x:0=n,2=h,3=w")
        shapes.setdefault(name, {}).update({int(axis): symbol for axis, _, symbol in pairs})
    return shapes or None


def parse_profiles(texts: Sequence[str] | None) -> list[dict[str, Range]] | None:
    """["x:1x3x8x8,2x3x8x8,4x3x8x8;m:1x1,2x1,4x1"] -> [{"x": ((1, 3, 8, 8), ...), "m": ...}]; None when there are none."""
    profiles = []
    for text in texts or ():
        profile: dict[str, Range] = {}
        for part in text.split(";"):
            name, separator, ranges = part.strip().rpartition(":")
            shapes = [shape.strip() for shape in ranges.split(",")]
            if (
                not separator
                or not name
                or len(shapes) not in (1, 3)
                or not all(re.fullmatch("[0-9]+(x[0-9]+)*", shape) for shape in shapes)
            ):
                raise InvalidArgument(
                    f"--profile {text!r}; wanted INPUT:SMALLEST,OPTIMAL,LARGEST with ; between inputs, as in "
                    '"x:1x3x320x320,4x3x640x640,8x3x1280x1280"'
                )
            if name in profile:
                raise InvalidArgument(f"--profile {text!r} names {name!r} twice; give it once, or give a second --profile")
            smallest, optimal, largest = [tuple(map(int, shape.split("x"))) for shape in (shapes if len(shapes) == 3 else shapes * 3)]
            profile[name] = (smallest, optimal, largest)
        profiles.append(profile)
    return profiles or None


def parse_size(text: str | None) -> tuple[int, int] | None:
    """ "640x480" -> (640, 480), height first."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]+)x([0-9]+)", text)
    if match is None:
        raise InvalidArgument(f"--size {text!r}; wanted HEIGHTxWIDTH, as in 640x640")
    return int(match[1]), int(match[2])


def parse_numbers(name: str, text: str) -> tuple[float, ...]:
    """ "0.5,0.4" -> (0.5, 0.4)."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InvalidArgument(f"--{name} {text!r}; wanted numbers with commas between, as in 0.485,0.456,0.406") from None
