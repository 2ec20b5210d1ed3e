"""Write a model repository for Triton Inference Server, or check one with --check. Exit code 1: the check found problems."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploydcn.cli.options import Json, console, print_json
from deploydcn.errors import InvalidArgument
from deploydcn.triton import TritonRepository, check_triton_repository, write_triton_repository


def command(
    models: Annotated[list[Path] | None, typer.Argument(help="ONNX files and TensorRT engines.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The repository's folder. Other models in it stay.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; its file's by default.")] = None,
    version: Annotated[int, typer.Option(min=1, help="The model's version. Other versions of it stay.")] = 1,
    batch: Annotated[int, typer.Option(min=0, help="Largest batch; 0: requests are run as they come.")] = 0,
    instances: Annotated[int, typer.Option(min=1, help="Copies of each model that run at once.")] = 1,
    gpu: Annotated[bool | None, typer.Option("--gpu/--cpu", help="Where to run. By default engines on GPUs, ONNX files on CPUs.")] = None,
    dynamic_batching: Annotated[
        bool | None,
        typer.Option("--dynamic-batching/--no-dynamic-batching", help="Put waiting requests together; yes where --batch is above 1."),
    ] = None,
    delay_us: Annotated[int, typer.Option(min=0, help="Microseconds that a request may wait for others.")] = 0,
    warmup: Annotated[bool, typer.Option("--warmup", help="Run once on zeros before requests are let in.")] = False,
    like: Annotated[
        Path | None,
        typer.Option(help="For an engine where no GPU is: the ONNX file it was built from, or what build --json printed (.json)."),
    ] = None,
    ops_dir: Annotated[Path | None, typer.Option(help="deploydcn's libraries lie in this folder where the server runs.")] = None,
    copy_ops: Annotated[bool, typer.Option("--copy-ops", help="Put the library that the models need into the repository.")] = False,
    check: Annotated[Path | None, typer.Option(help="Check this repository instead of writing one.")] = None,
    tritonserver: Annotated[Path | None, typer.Option(help="With --check: the server to load it with; by default the one on PATH.")] = None,
    as_json: Json = False,
) -> None:
    if check is not None:
        if models or output is not None:
            raise InvalidArgument("--check takes a repository and nothing to write; leave models and --output out")
        _check(check, tritonserver, as_json)
    if not models or output is None:
        raise InvalidArgument("wanted models and -o REPOSITORY to write, or --check REPOSITORY")
    if tritonserver is not None:
        raise InvalidArgument("--tritonserver belongs to --check; leave it out")
    written = write_triton_repository(
        models,
        output,
        name=name,
        version=version,
        batch=batch,
        instances=instances,
        gpu=gpu,
        dynamic_batching=dynamic_batching,
        delay=delay_us,
        warmup=warmup,
        like=like,
        ops_dir=ops_dir,
        copy_ops=copy_ops,
    )
    if as_json:
        print_json(written.to_json())
    else:
        _print(written)


def _print(written: TritonRepository) -> None:
    for model in written.models:
        console.print(model.summary(), soft_wrap=True)
        for note in model.notes:
            console.print(f"  {note}", soft_wrap=True)
    console.print(f"start: {written.command}", soft_wrap=True)
    console.print(f"in a container: {written.container}", soft_wrap=True)


def _check(repository: Path, tritonserver: Path | None, as_json: bool) -> None:
    report = check_triton_repository(repository, tritonserver=tritonserver)
    if as_json:
        print_json(report.to_json())
    else:
        for line in (*report.problems, *(f"note: {note}" for note in report.notes)):
            console.print(str(line), soft_wrap=True)
        console.print(report.summary(), soft_wrap=True)
    raise typer.Exit(0 if report.passed else 1)
