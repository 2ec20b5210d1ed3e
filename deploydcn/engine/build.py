"""The public function; importing it needs neither TensorRT nor onnx_ir."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deploydcn._lazy import lazy_import
from deploydcn.engine.prepare import PluginNode, Prepared, prepare
from deploydcn.engine.process import Worker
from deploydcn.engine.report import BuildProgress, EngineReport, PluginLayer, Range, TensorLayout
from deploydcn.engine.runtimes import capability_names, find_module, runtime_named
from deploydcn.errors import InvalidArgument
from deploydcn.export.precision import half_dtype
from deploydcn.files import replace_on_success
from deploydcn.libraries import plugin_library_path
from deploydcn.runners import TensorInfo
from deploydcn.tensorrt_runtimes import Runtime

VERBOSITIES = ("warning", "info", "verbose")

_logger = logging.getLogger("deploydcn.engine")
_LEVELS = {"internal": logging.ERROR, "error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO, "verbose": logging.DEBUG}


def build_engine(
    onnx_path: str | os.PathLike[str],
    engine_path: str | os.PathLike[str],
    *,
    runtime: str = "tensorrt",
    profiles: Sequence[Mapping[str, Range]] | None = None,
    fp16: bool = False,
    dtype: str | None = None,
    exclude: Sequence[str] = (),
    keep_io_types: bool = True,
    tf32: bool | None = None,
    compute_capabilities: Sequence[int | str] = (),
    embed_plugins: bool = False,
    plugins: Sequence[str | os.PathLike[str]] = (),
    timing_cache: str | os.PathLike[str] | None = None,
    workspace: int | None = None,
    timeout: float | None = None,
    verbosity: str = "warning",
    progress: Callable[[BuildProgress], None] | None = None,
) -> EngineReport:
    """Build a TensorRT engine from an ONNX file; deformable and grouped convolutions run in deploydcn's plugins.

    Takes files of `export_onnx` (any target) and PyTorch's own exports with the standard DeformConv. The file is checked
    against the operators' specifications first, at both ends of every profile. TensorRT runs in a process of its own, so
    that a crash of its parser ends in an exception here; the engine appears only when complete.

    Args:
        onnx_path: the model; external data is looked for beside it.
        engine_path: the file to write.
        runtime: "tensorrt" (10 or newer; needs the GPU the engine is for) or "tensorrt-rtx" (builds without a GPU).
        profiles: ranges of shapes, [{input name: (smallest, optimal, largest shape)}]; needed where sizes are dynamic.
            Left out where only first axes are, one with batches 1, 4 and 8 is made.
        fp16: the short form of dtype="fp16".
        dtype: "fp16" or "bf16" to convert the model to; offsets, coordinates and decoding stay float32 (see
            `deploydcn.export.convert_precision`). None keeps the types of the file; networks are always strongly typed.
        exclude: nodes, by name or by a pattern such as "head.*", that stay float32 in a converted model.
        keep_io_types: inputs and outputs stay float32 in a converted model.
        tf32: let tensor cores round the factors of float32 products to 10 bits; sums and results stay float32. None: only in
            converted models, where the remaining float32 layers, those that make offsets, get inputs of no more bits.
        compute_capabilities: GPUs to build for, as in ["8.6", "8.9"] (TensorRT-RTX). It builds for all from 8.0 (Ampere)
            on when left out; 7.5 (Turing) must be named.
        embed_plugins: store the plugin libraries inside the engine; load it with `runtime.engine_host_code_allowed = True`.
        plugins: further plugin libraries, for operators of other domains.
        timing_cache: a file of measured kernel times, read if it exists, written after the build (TensorRT; TensorRT-RTX
            measures nothing when it builds).
        workspace: largest scratch memory of a layer, in bytes.
        timeout: seconds TensorRT may take, after which its process is ended; without it a build takes as long as it takes, and
            there are models on which TensorRT never comes back.
        verbosity: "warning", "info" or "verbose": which of TensorRT's messages go to the logger "deploydcn.engine".
        progress: called with a BuildProgress now and then.

    Returns:
        What was built: plugin layers with their formats, precisions, profiles, size, time.

    Raises:
        InvalidModel: the file, or a node in it, is not usable; the message names the node and the fix.
        InvalidArgument: options or profiles do not fit the model or the runtime.
        MissingDependency: the runtime is not installed.
        RuntimeFailure: TensorRT cannot build the model, crashed, or took longer than `timeout`.
        UserError: this installation has no plugin library.
    """
    start = time.perf_counter()
    options = _Options(runtime, fp16, dtype, compute_capabilities, plugins, timing_cache, workspace, timeout, verbosity)
    if exclude and options.dtype is None:
        raise InvalidArgument("exclude names nodes that a conversion leaves in float32, and there is none; give dtype too, or leave it out")
    rounded = tf32 if tf32 is not None else options.dtype is not None
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(replace_on_success(engine_path))
        module = find_module(options.runtime)
        lazy_import("onnx_ir", extra=options.runtime.extra)
        cache = stack.enter_context(replace_on_success(timing_cache)) if timing_cache is not None else None
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deploydcn-build-")))
        prepared = prepare(
            onnx_path, scratch, profiles=profiles, dtype=options.dtype, keep_io_types=keep_io_types, tf32=rounded, exclude=exclude
        )
        libraries = list(dict.fromkeys([*([plugin_library_path().resolve()] if prepared.plugins else []), *options.plugins]))
        request = {
            "runtime": options.runtime.name,
            "module": module,
            "model": str(prepared.path),
            "base": str(prepared.base),
            "engine": os.path.abspath(target),
            "profiles": prepared.profiles,
            "plugins": list(map(str, libraries)),
            "embedded": list(map(str, libraries)) if embed_plugins else [],
            "compute_capabilities": options.compute_capabilities,
            "tf32": rounded,
            "timing_cache": None if timing_cache is None else os.path.abspath(timing_cache),
            "timing_cache_output": None if cache is None else os.path.abspath(cache),
            "workspace": workspace,
            "verbosity": verbosity,
        }
        worker = Worker(options.runtime, scratch, progress, _log_to(verbosity), timeout)
        result = worker.run(request)
    notes = [*prepared.notes, *_changed_types(prepared, result), *_notes(options.runtime, embed_plugins, libraries)]
    return _report(Path(engine_path), options, prepared, result, libraries if embed_plugins else [], notes, worker.warnings(), start)


class _Options:
    """Options that do not depend on the model, checked."""

    def __init__(
        self,
        runtime: str,
        fp16: bool,
        dtype: str | None,
        compute_capabilities: Sequence[int | str],
        plugins: Sequence[str | os.PathLike[str]],
        timing_cache: str | os.PathLike[str] | None,
        workspace: int | None,
        timeout: float | None,
        verbosity: str,
    ) -> None:
        self.runtime: Runtime = runtime_named(runtime)
        if fp16 and dtype is not None and half_dtype(dtype) != "float16":
            raise InvalidArgument(f"fp16 and dtype={dtype!r} were both given; leave one out")
        self.dtype = "float16" if fp16 else None if dtype is None else half_dtype(dtype)
        self.compute_capabilities = capability_names(self.runtime, compute_capabilities)
        self.plugins = [Path(plugin).resolve() for plugin in plugins]
        for plugin in self.plugins:
            if not plugin.is_file():
                raise InvalidArgument(f"plugin library {plugin} does not exist")
        if timing_cache is not None and not self.runtime.timing_cache:
            raise InvalidArgument(
                f"{self.runtime.title} has no timing cache: it measures nothing when it builds; what it learns where an engine runs "
                "goes to its runtime cache; leave timing_cache out"
            )
        if workspace is not None and (not isinstance(workspace, int) or workspace < 0):
            raise InvalidArgument(f"workspace is {workspace!r}; wanted a number of bytes")
        if timeout is not None and not 0 < timeout <= threading.TIMEOUT_MAX:
            raise InvalidArgument(f"timeout is {timeout!r}; wanted a number of seconds above 0")
        if verbosity not in VERBOSITIES:
            raise InvalidArgument(f"verbosity is {verbosity!r}; wanted one of {', '.join(VERBOSITIES)}")


def _log_to(verbosity: str) -> Callable[[str, str], None]:
    shown = {"internal", "error", *VERBOSITIES[: VERBOSITIES.index(verbosity) + 1]}

    def log(severity: str, text: str) -> None:
        if severity in shown:
            _logger.log(_LEVELS[severity], "%s", text.strip())

    return log


def _notes(runtime: Runtime, embed_plugins: bool, libraries: Sequence[Path]) -> list[str]:
    if embed_plugins and not libraries:
        return ["no plugin is needed, and none was embedded"]
    if embed_plugins:
        return ["the engine brings its plugins; load it with runtime.engine_host_code_allowed = True"]
    return [f"load {', '.join(path.name for path in libraries)} before the engine"] if libraries else []


def _report(
    path: Path,
    options: _Options,
    prepared: Prepared,
    result: Mapping[str, Any],
    embedded: Sequence[Path],
    notes: Sequence[str],
    warnings: Sequence[str],
    start: float,
) -> EngineReport:
    named = {info.name: info for info in prepared.inputs}
    capabilities = tuple(f"{name[2:-1]}.{name[-1]}" for name in options.compute_capabilities)
    return EngineReport(
        path=path,
        runtime=options.runtime.name,
        version=result["version"],
        size=result["size"],
        seconds=time.perf_counter() - start,
        inputs=tuple(_tensor_info(tensor, named.get(tensor["name"])) for tensor in result["inputs"]),
        outputs=tuple(_tensor_info(tensor) for tensor in result["outputs"]),
        layers=result["layers"],
        plugins=tuple(_plugin_layer(layer, prepared) for layer in result["plugins"]),
        precisions=result["precisions"],
        compute_capabilities=capabilities or (("8.0+",) if options.runtime.compute_capabilities else ()),
        profiles=prepared.profiles,
        embedded_plugins=tuple(embedded),
        notes=tuple(notes),
        warnings=tuple(warnings),
    )


def _tensor_info(tensor: Mapping[str, Any], of_file: TensorInfo | None = None) -> TensorInfo:
    """An engine's tensor, dynamic sizes named as in the file."""
    return TensorInfo(tensor["name"], tensor["dtype"], tuple(tensor["shape"]) if of_file is None else of_file.shape)


def _changed_types(prepared: Prepared, result: Mapping[str, Any]) -> list[str]:
    """Inputs that the engine takes in another type than the file: asked for, or float64, which TensorRT does not have."""
    dtypes = {tensor["name"]: tensor["dtype"] for tensor in result["inputs"]}
    return [
        f"input {info.name!r} is {info.dtype} in the file and {dtypes[info.name]} in the engine"
        for info in prepared.inputs
        if dtypes.get(info.name, info.dtype) != info.dtype
    ]


def _plugin_layer(layer: Mapping[str, Any], prepared: Prepared) -> PluginLayer:
    node = prepared.plugins.get(layer["name"], PluginNode("of another library", (), ()))
    inputs = _layouts(node.inputs, layer["input_dtypes"], layer["input_formats"])
    return PluginLayer(layer["name"], node.operator, inputs, _layouts(node.outputs, layer["output_dtypes"], layer["output_formats"]))


def _layouts(names: Sequence[str], dtypes: Sequence[str], formats: Sequence[str]) -> tuple[TensorLayout, ...]:
    return tuple(
        TensorLayout(names[index] if index < len(names) else "", dtype, formats[index] if index < len(formats) else "")
        for index, dtype in enumerate(dtypes)
    )
