"""What a model takes and gives, read the way Triton's backends read it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx.external_data_helper import uses_external_data

from deploydcn._lazy import lazy_import
from deploydcn.errors import InvalidArgument, InvalidModel, RuntimeFailure, UserError
from deploydcn.onnx_schema import DOMAIN
from deploydcn.runners import TensorInfo
from deploydcn.tensorrt_runtimes import RUNTIMES

PROBE_SECONDS = 600
"""How long opening a model and running it twice may take."""

ONNX, TENSORRT = "onnxruntime", "tensorrt"
"""Triton's backends, by the names they have in configurations."""


@dataclass(frozen=True)
class Run:
    """A run at a batch size. shapes: of the outputs; error: why there are none."""

    batch: int
    error: str
    shapes: Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Signature:
    """optional: what a caller may feed in place of a constant. runs: what became of trying. largest: the largest batch that an engine was
    built for, None when nothing tells."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    optional: tuple[TensorInfo, ...] = ()
    runs: tuple[Run, ...] = ()
    largest: int | None = None


def backend_of(path: Path) -> str:
    """ONNX or TENSORRT, by how the file begins.

    Raises:
        InvalidModel: no file, or an engine of TensorRT-RTX, for which Triton has no backend.
    """
    if not path.is_file():
        state = "is a folder" if path.is_dir() else "does not exist"
        raise InvalidModel(f"{path} {state}; wanted an ONNX file or a TensorRT engine")
    with path.open("rb") as file:
        start = file.read(4)
    if start == RUNTIMES["tensorrt-rtx"].tag:
        raise InvalidModel(f"{path} is an engine for TensorRT-RTX, for which Triton has no backend; build it with --runtime tensorrt")
    return TENSORRT if start == RUNTIMES["tensorrt"].tag else ONNX


def onnx_signature(
    path: Path, libraries: Sequence[Path], *, batches: Sequence[int] = (), sizes: Mapping[str, Sequence[int]] | None = None
) -> Signature:
    """Of an ONNX file, as ONNX Runtime tells it with these custom-op libraries and no others; shapes are what Triton compares with.

    batches: sizes of the first axis to run it at, on random numbers. sizes: per input its other dynamic sizes, -1 where open.

    Raises:
        InvalidModel: ONNX Runtime does not open it.
        RuntimeFailure: it ended ONNX Runtime's process, or takes too long.
        MissingDependency: onnxruntime is not installed.
    """
    lazy_import("onnxruntime", extra="cpu")
    with tempfile.TemporaryDirectory(prefix="deploydcn-probe-") as folder:
        result = Path(folder) / "result.json"
        request = {"model": str(path), "libraries": list(map(str, libraries)), "batches": list(batches), "sizes": dict(sizes or {})}
        command = [sys.executable, "-m", "deploydcn.triton.probe", str(result)]
        try:
            done = subprocess.run(
                command, input=json.dumps(request), capture_output=True, text=True, errors="replace", timeout=PROBE_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise RuntimeFailure(f"{path}: opening and running it takes more than {PROBE_SECONDS} s") from None
        if done.returncode or not result.is_file():
            ended = f"signal {signal.Signals(-done.returncode).name}" if done.returncode < 0 else f"exit code {done.returncode}"
            last = "; ".join(done.stderr.strip().splitlines()[-2:])
            raise RuntimeFailure(
                f"{path}: ONNX Runtime's process ended with {ended} {last}; a library of its operators, or the file, is damaged"
            )
        found = json.loads(result.read_text())
    if "error" in found:
        raise InvalidModel(f"{path} does not open in ONNX Runtime: {found['error']}")
    inputs, outputs, optional = (_infos(found[kind]) for kind in ("inputs", "outputs", "optional"))
    runs = tuple(Run(run["batch"], run["error"], run.get("shapes", {})) for run in found["runs"])
    return Signature(inputs, outputs, optional, runs)


def engine_signature(path: Path, like: Path | None = None) -> Signature:
    """Of an engine: read on a GPU, or taken from the ONNX file it was built from, or from what `deploydcn build --json` printed.

    Raises:
        UserError: there is neither a GPU nor `like`, or one of them does not do.
    """
    if like is None:
        try:
            return _of_engine(path)
        except UserError as error:
            raise InvalidArgument(
                f"{path} cannot be read here ({error}); give --like: the ONNX file it was built from, or what build --json printed"
            ) from error
    if like.suffix == ".json":
        return _of_build_report(like)
    return onnx_signature(like, libraries_of(like))


def libraries_of(path: Path) -> list[Path]:
    """deploydcn's library, if an ONNX file has nodes of its domain.

    Raises:
        InvalidModel: it cannot be read.
    """
    from deploydcn.libraries import ort_library_path

    return [ort_library_path().resolve()] if any(node.domain == DOMAIN for node in _nodes(read_onnx(path))) else []


def read_onnx(path: Path) -> onnx.ModelProto:
    """A model without its external data.

    Raises:
        InvalidModel: it is no ONNX file.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError has no typed home
        raise InvalidModel(f"{path} is not a readable ONNX file, or is truncated: {error}") from error
    if not model.graph.output:
        raise InvalidModel(f"{path} holds no graph; wanted an ONNX file or a TensorRT engine; it may be truncated")
    return model


def external_files(model: onnx.ModelProto) -> set[str]:
    """The files that hold weights of a model, relative to its own."""
    tensors = [tensor for graph in _graphs(model) for tensor in graph.initializer]
    tensors += [attribute.t for node in _nodes(model) for attribute in node.attribute if attribute.HasField("t")]
    tensors += [tensor for node in _nodes(model) for attribute in node.attribute for tensor in attribute.tensors]
    return {entry.value for tensor in tensors if uses_external_data(tensor) for entry in tensor.external_data if entry.key == "location"}


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    waiting = [model.graph, *(graph for function in model.functions for node in function.node for graph in _subgraphs(node))]
    while waiting:
        graph = waiting.pop()
        yield graph
        waiting += [inner for node in graph.node for inner in _subgraphs(node)]


def _subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [graph for attribute in node.attribute for graph in ([attribute.g] if attribute.HasField("g") else attribute.graphs)]


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in _graphs(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def _infos(described: Sequence[Mapping[str, Any]]) -> tuple[TensorInfo, ...]:
    return tuple(TensorInfo(item["name"], item["dtype"], None if item["shape"] is None else tuple(item["shape"])) for item in described)


def _of_engine(path: Path) -> Signature:
    from deploydcn.runners.engine_info import EngineInfo
    from deploydcn.runners.tensorrt_api import load_engine

    info = EngineInfo.of(load_engine(RUNTIMES["tensorrt"], path))
    batches = [span[2][0] for profile in info.profiles[:1] for span in profile.values() if span[2]]
    return Signature(info.inputs, info.outputs, largest=min(batches, default=None))


def _of_build_report(path: Path) -> Signature:
    """From the JSON of an EngineReport; dynamic sizes of inputs are those that its profiles leave open."""
    try:
        report = json.loads(path.read_text())
        runtime, profiles = report["runtime"], report["profiles"]
        tensors = {kind: [re.fullmatch(r"(.*): (\w+)\[(.*)\]", text) for text in report[kind]] for kind in ("inputs", "outputs")}
        inputs = tuple(_printed(match, profiles) for match in tensors["inputs"])
        outputs = tuple(_printed(match, ()) for match in tensors["outputs"])
        batches = [span[2][0] for profile in profiles[:1] for span in profile.values() if span[2]]  # Triton takes the first
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InvalidArgument(
            f"{path} is not what deploydcn build --json prints: {error!r}; or give the ONNX file, ending in .onnx"
        ) from error
    if runtime != "tensorrt":
        raise InvalidArgument(f"{path} reports an engine for {runtime}; Triton runs those of tensorrt")
    return Signature(inputs, outputs, largest=min(batches, default=None))


def _printed(match: re.Match[str] | None, profiles: Sequence[Mapping[str, Sequence[Sequence[int]]]]) -> TensorInfo:
    """A TensorInfo from its text. A profile's sizes are sure, where names of sizes may hold an x."""
    if match is None:
        raise ValueError("a tensor without type and shape")
    name, dtype, sizes = match.groups()
    spans = [profile[name] for profile in profiles if name in profile]
    if spans:
        extremes = [shape for span in spans for shape in span]
        return TensorInfo(name, dtype, tuple(each[0] if len(set(each)) == 1 else None for each in zip(*extremes, strict=True)))
    return TensorInfo(name, dtype, tuple(int(size) if size.isdigit() else None for size in sizes.split("x") if size))
