"""Build a TensorRT or TensorRT-RTX engine from an ONNX file; deformable convolutions run in deploydcn's plugins."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from deploydcn.cli.options import Json, console, parse_profiles, print_json
from deploydcn.engine import BuildProgress, EngineReport, build_engine
from deploydcn.engine.build import VERBOSITIES
from deploydcn.tensorrt_runtimes import RUNTIMES

PROFILE_HELP = (
    'Range of shapes, "INPUT:SMALLEST,OPTIMAL,LARGEST", as in "x:1x3x320x320,4x3x640x640,8x3x1280x1280"; one shape alone stands for all '
    "three; several inputs are separated by ;. Repeatable: one profile each. Needed where sizes are dynamic; where only the batch is, "
    "1, 4 and 8 is the default."
)


def command(
    model: Annotated[Path, typer.Argument(help="The ONNX file: of `deploydcn export`, or PyTorch's own with DeformConv.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The engine file to write.")],
    runtime: Annotated[str, typer.Option(help=f"{' or '.join(RUNTIMES)}; TensorRT-RTX builds without a GPU.")] = "tensorrt",
    profile: Annotated[list[str] | None, typer.Option(help=PROFILE_HELP)] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Convert to float16; short for --dtype fp16.")] = False,
    dtype: Annotated[
        str | None, typer.Option(help="fp16 or bf16: convert the model; offsets, coordinates and decoding stay float32.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="A node that stays in float32 then, by name or a pattern such as 'head.*'. Repeatable.")
    ] = None,
    keep_io_types: Annotated[bool, typer.Option(help="Inputs and outputs stay float32 in a converted model.")] = True,
    tf32: Annotated[
        bool | None, typer.Option(help="Round float32 products to 10 bits on tensor cores; by default in converted models only.")
    ] = None,
    compute_capability: Annotated[
        list[str] | None, typer.Option(help="A GPU to build for, as in 86 or 8.6 (TensorRT-RTX). Repeatable; all from 8.0 on by default.")
    ] = None,
    embed_plugins: Annotated[bool, typer.Option("--embed-plugins", help="Store the plugin libraries inside the engine.")] = False,
    plugin: Annotated[list[Path] | None, typer.Option(help="A further plugin library, for operators of other domains. Repeatable.")] = None,
    timing_cache: Annotated[Path | None, typer.Option(help="File of measured kernel times to read and write (TensorRT only).")] = None,
    workspace: Annotated[int | None, typer.Option(min=0, help="Largest scratch memory of a layer, in MiB.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds TensorRT may take; then the build ends with an error.")] = None,
    verbosity: Annotated[str, typer.Option(help=f"Which of TensorRT's messages to show: {', '.join(VERBOSITIES)}.")] = "warning",
    as_json: Json = False,
) -> None:
    profiles = parse_profiles(profile)
    with _messages(), _progress(f"building {output}", quiet=as_json) as progress:
        report = build_engine(
            model,
            output,
            runtime=runtime,
            profiles=profiles,
            fp16=fp16,
            dtype=dtype,
            exclude=exclude or (),
            keep_io_types=keep_io_types,
            tf32=tf32,
            compute_capabilities=compute_capability or (),
            embed_plugins=embed_plugins,
            plugins=plugin or (),
            timing_cache=timing_cache,
            workspace=None if workspace is None else workspace << 20,
            timeout=timeout,
            verbosity=verbosity,
            progress=progress,
        )
    if as_json:
        print_json(report.to_json())
    else:
        _print(report)


def _print(report: EngineReport) -> None:
    alike: dict[str, list[str]] = {}
    for layer in report.plugins:
        alike.setdefault(f"{layer.operator}: {layer.formats()}", []).append(layer.name)
    for formats, names in alike.items():
        console.print(f"  {len(names)} layers in plugins, {formats}: {', '.join(names)}", soft_wrap=True)
    for index, profile in enumerate(report.profiles):
        for name, span in profile.items():
            console.print(f"  profile {index + 1}, {name}: {', '.join('x'.join(map(str, shape)) for shape in span)}")
    if report.compute_capabilities:
        console.print(f"  compute capabilities: {', '.join(report.compute_capabilities)}")
    for note in report.notes:
        console.print(f"  {note}", soft_wrap=True)
    console.print(report.summary(), soft_wrap=True)


@contextmanager
def _progress(text: str, *, quiet: bool) -> Iterator[Callable[[BuildProgress], None] | None]:
    """A line that says what TensorRT is at."""
    if quiet:
        yield None
        return
    with console.status(text, spinner="dots") as status:
        yield lambda state: status.update(f"{text}: {state.fraction:.0%} {state.phase}")


@contextmanager
def _messages() -> Iterator[None]:
    """TensorRT's messages on standard error."""
    logger = logging.getLogger("deploydcn.engine")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("TensorRT %(levelname)s: %(message)s"))
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
