"""Run a model once and write or describe its outputs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from deploydcn.cli.options import InputFile, Json, Seed, Shapes, console, parse_shapes, print_json
from deploydcn.files import read_npz, replace_on_success
from deploydcn.parity import random_inputs
from deploydcn.runners import BACKENDS, load
from deploydcn.tables import table


def command(
    model: Annotated[str, typer.Argument(help="An .onnx file; path/file.py:factory for --backend torch; an engine for tensorrt.")],
    backend: Annotated[str, typer.Option(help=f"One of {', '.join(BACKENDS)}.")] = "ort",
    input_file: InputFile = None,
    shape: Shapes = None,
    seed: Seed = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="An .npz file to write the outputs to.")] = None,
    as_json: Json = False,
) -> None:
    runner = load(model, backend)
    example = getattr(runner, "example", None)
    if input_file is not None:
        inputs = read_npz(input_file)
    elif example is not None and not shape:
        inputs = example
    else:
        inputs = random_inputs(runner.inputs, parse_shapes(shape), seed=seed)
    start = time.perf_counter()
    outputs = runner.run(inputs)
    seconds = time.perf_counter() - start
    if output is not None:
        with replace_on_success(output) as path, path.open("wb") as file:
            np.savez_compressed(file, **outputs)  # type: ignore[arg-type]
    if as_json:
        described = {name: {"shape": list(value.shape), "dtype": value.dtype.name} for name, value in outputs.items()}
        print_json({"model": runner.name, "seconds": seconds, "outputs": described})
        return
    rows = [(name, value.dtype.name, "x".join(map(str, value.shape)), *_range(value)) for name, value in outputs.items()]
    console.print(table(f"{runner.name}, first run {seconds * 1e3:.1f} ms", ["output", "type", "shape", "min", "mean", "max"], rows))


def _range(value: np.ndarray) -> tuple[str, str, str]:
    if not value.size:
        return "", "", ""
    return f"{value.min():.4g}", f"{value.mean(dtype=np.float64):.4g}", f"{value.max():.4g}"
