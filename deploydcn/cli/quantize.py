"""Quantize an ONNX file to 8 bits: ranges from calibration data, deformable convolutions too, offsets in float32."""

from __future__ import annotations

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
from deploydcn.quantization import METHODS, OutputAgreement, quantize
from deploydcn.tables import table


def command(
    model: Annotated[Path, typer.Argument(help="The float32 ONNX file to read.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The ONNX file to write.")],
    calibrate: Annotated[
        Path,
        typer.Option(help="Typical inputs: a folder of images, or an .npz file with one array per input, samples along the first axis."),
    ],
    method: Annotated[str, typer.Option(help=f"How ranges are taken: {', '.join(METHODS)}.")] = "minmax",
    target: Annotated[
        str, typer.Option(help="ort: QLinearDeformConv2d; standard, tensorrt: Q and DQ nodes around deformable convolutions.")
    ] = "ort",
    activations: Annotated[
        str | None, typer.Option(help="uint8, or int8 (symmetric); uint8 for ort and standard, int8 for tensorrt when left out.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="A node that stays in float32, by name or a pattern such as 'head.*'. Repeatable.")
    ] = None,
    size: ImageSize = None,
    fit: ImageFit = "letterbox",
    mean: ImageMean = "0",
    std: ImageStd = "1",
    limit: SampleLimit = None,
    narrow_weights: Annotated[bool, typer.Option(help="Weights of 7 bits, for x86 processors without VNNI.")] = False,
    as_json: Json = False,
) -> None:
    report = quantize(
        model,
        output,
        calibrate,
        target=target,
        method=method,
        activations=activations,
        exclude=exclude or (),
        size=parse_size(size),
        fit=fit,
        mean=parse_numbers("mean", mean),
        std=parse_numbers("std", std),
        limit=limit,
        narrow_weights=narrow_weights,
        progress=not as_json,
    )
    if as_json:
        print_json(report.to_json())
        return
    kept = [(layer.node, layer.operator, layer.kept) for layer in report.layers if layer.kept]
    if kept:
        console.print(table("layers that stay in float32", ["node", "operator", "because"], kept))
    rows = [(output.name, *_cells(output)) for output in report.agreement]
    console.print(
        table(f"against float32, over {report.samples} samples", ["output", "dB", "of channels", "cosine", "max abs", "top-1"], rows)
    )
    for note in report.notes:
        console.print(f"  {note}")
    console.print(report.summary(), soft_wrap=True)


def _cells(output: OutputAgreement) -> tuple[str, ...]:
    if output.mismatch:
        return output.mismatch, "", "", "", ""
    decibels = f"{output.sqnr_db:.1f}", f"{output.channels_db:.1f}"
    return *decibels, f"{output.cosine:.6f}", f"{output.max_abs:.3g}", "" if output.top1 is None else f"{output.top1:.1%}"
