"""Predict what fp16, bf16 or int8 costs an ONNX file, layer by layer, and which layers to keep in float32. Exit code 1: target missed."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from deploydcn.cli.options import (
    ImageFit,
    ImageMean,
    ImageSize,
    ImageStd,
    Json,
    SampleLimit,
    console,
    parse_numbers,
    parse_size,
    print_json,
)
from deploydcn.precision import DTYPES, DriftReport, drift
from deploydcn.quantization import METHODS
from deploydcn.tables import table

LOUDEST = 20
"""Rows of the table; --json has all."""


def command(
    model: Annotated[Path, typer.Argument(help="The float32 ONNX file.")],
    dtype: Annotated[str, typer.Option(help=f"{', '.join(DTYPES[:-1])} or {DTYPES[-1]}.")],
    calibrate: Annotated[
        Path,
        typer.Option(help="Typical inputs: a folder of images, or an .npz file with one array per input, samples along the first axis."),
    ],
    target_db: Annotated[
        float | None, typer.Option("--target-db", help="Signal to noise of the worst output to reach, in decibels, as in 40.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the lowered file, with those layers kept that reach the target.")
    ] = None,
    probes: Annotated[int, typer.Option(min=1, help="Samples on which each rounding is tried by itself.")] = 4,
    method: Annotated[str, typer.Option(help=f"int8: how ranges are taken: {', '.join(METHODS)}.")] = "minmax",
    target: Annotated[str, typer.Option(help="int8: ort, standard or tensorrt, as in `quantize`.")] = "ort",
    size: ImageSize = None,
    fit: ImageFit = "letterbox",
    mean: ImageMean = "0",
    std: ImageStd = "1",
    limit: SampleLimit = None,
    as_json: Json = False,
) -> None:
    report = drift(
        model,
        calibrate,
        dtype=dtype,
        target_db=target_db,
        output=output,
        probes=probes,
        target=target,
        method=method,
        size=parse_size(size),
        fit=fit,
        mean=parse_numbers("mean", mean),
        std=parse_numbers("std", std),
        limit=limit,
        progress=not as_json,
    )
    commands = None
    if report.proposal is not None:
        images = {"--size": size, "--fit": fit, "--mean": mean, "--std": std, "--limit": limit, "--method": method, "--target": target}
        defaults = {"--fit": "letterbox", "--mean": "0", "--std": "1", "--method": "minmax", "--target": "ort"}
        given = [f"{name}={value}" for name, value in images.items() if value is not None and defaults.get(name) != value]
        commands = _command(report, ["--calibrate", str(calibrate), *given] if dtype == "int8" else [])
    if as_json:
        print_json({**report.to_json(), "command": commands})
    else:
        _print(report)
        if commands is not None:
            console.print(commands, soft_wrap=True)
            if "--profile" in commands:
                console.print("  --profile holds the calibration data's shape; widen it to SMALLEST,OPTIMAL,LARGEST for others")
        console.print(report.summary(), soft_wrap=True)
    raise typer.Exit(0 if report.reached else 1)


def _command(report: DriftReport, options: list[str]) -> str:
    """What makes the proposal of the source. An engine is built for a range of shapes; here for those of the calibration data alone."""
    assert report.proposal is not None
    verb, suffix = ("quantize", "int8.onnx") if report.dtype == "int8" else ("build", f"{report.dtype}.engine")
    if report.dtype != "int8":
        shapes = [f"{name}:{'x'.join(map(str, shape))}" for name, shape in report.free_shapes.items()]
        options = ["--dtype", report.dtype, *(["--profile", ";".join(shapes)] if shapes else [])]
    excluded = [word for name in report.proposal.exclude for word in ("--exclude", name)]
    return shlex.join(["deploydcn", verb, str(report.source), "-o", str(report.source.with_suffix(f".{suffix}")), *options, *excluded])


def _print(report: DriftReport) -> None:
    lowered = sorted((layer for layer in report.layers if not layer.kept), key=lambda layer: layer.output_db)
    rows = [
        (layer.node, layer.operator, f"{layer.local_db:.1f}", f"{layer.worst:.2g}", f"{layer.output_db:.1f}", f"{layer.share:.1%}")
        for layer in lowered[:LOUDEST]
    ]
    title = f"{report.dtype}, one layer at a time, on {report.probes} samples; the loudest of {len(lowered)}"
    console.print(table(title, ["node", "operator", "dB at its output", "worst", "dB at the model's", "share"], rows))
    reasons: dict[str, int] = {}
    for layer in report.layers:
        if layer.kept:
            reasons[layer.kept] = reasons.get(layer.kept, 0) + 1
    for reason, count in reasons.items():
        console.print(f"  {count} in float32 anyway: {reason}")
    console.print(f"  measured: {report.how_measured}", soft_wrap=True)
    if report.proposal is not None:
        for name in report.proposal.exclude:
            console.print(f"  keep {name}")
