"""The process in which TensorRT parses and builds: `python -m deploydcn.engine.worker REQUEST PIPE`.

TensorRT's parser can end its process, and its libraries stay loaded with all they hold; so none of it happens in the
caller's. REQUEST is a JSON file (see `deploydcn.engine.process`), PIPE the number of an inherited file descriptor that
takes one JSON object a line: {"log": [severity, text]}, {"progress": [phase, fraction]}, and at the end {"result": ...}
or {"failure": {...}}. Whatever TensorRT prints goes to standard error, which the parent keeps for the case of a crash.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any, TextIO

from deploydcn.engine.plan import name_formats, plugin_formats
from deploydcn.engine.runtimes import major_version, network_flags, set_capabilities, set_tf32, supported_capabilities
from deploydcn.tensorrt_runtimes import OLDEST_TENSORRT, RUNTIMES, Runtime, dtype_name, load_error

SEVERITIES = ("internal", "error", "warning", "info", "verbose")
PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>


class Failure(Exception):
    """A refusal that the parent turns into a sentence. kind: see `deploydcn.engine.process`."""

    def __init__(self, kind: str, **details: Any) -> None:
        super().__init__(kind)
        self.details = {"kind": kind, **details}


class Events:
    """The pipe to the parent."""

    def __init__(self, pipe: TextIO, verbosity: str) -> None:
        self._pipe, self._level = pipe, max(SEVERITIES.index(verbosity), SEVERITIES.index("info"))
        self._last_phase, self._last_progress = "", 0.0
        self._lock = threading.Lock()  # TensorRT logs from several threads

    def send(self, **event: Any) -> None:
        with self._lock:
            self._pipe.write(json.dumps(event) + "\n")
            self._pipe.flush()

    def log(self, severity: int, text: str) -> None:
        if severity <= self._level:
            self.send(log=[SEVERITIES[severity], text])

    def progress(self, phase: str, fraction: float) -> None:
        now = time.monotonic()
        if phase != self._last_phase or now - self._last_progress > 0.05:
            self._last_phase, self._last_progress = phase, now
            self.send(progress=[phase, round(fraction, 4)])


class Phases:
    """Nested phases of a build as one fraction: a phase's share is one step of its parent's."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[str | None, int, int]] = {}  # name -> parent, steps, steps done

    def start(self, name: str, parent: str | None, steps: int) -> None:
        self._open[name] = (parent, max(steps, 1), 0)

    def step(self, name: str) -> None:
        if name in self._open:
            parent, steps, done = self._open[name]
            self._open[name] = (parent, steps, min(done + 1, steps))

    def finish(self, name: str) -> None:
        self._open.pop(name, None)

    def fraction(self, name: str) -> float:
        share, current = 0.0, name
        while current in self._open:
            parent, steps, done = self._open[current]
            share = min((done + share) / steps, 1.0)
            current = parent or ""
        return share


def main() -> None:
    """Serve one request."""
    _die_with_parent()
    request = json.loads(Path(sys.argv[1]).read_text())
    with os.fdopen(int(sys.argv[2]), "w") as pipe:
        events = Events(pipe, request["verbosity"])
        try:
            events.send(result=Build(request, events).run())
        except Failure as failure:
            events.send(failure=failure.details)
        except OSError as error:
            events.send(failure={"kind": "file", "message": str(error)})
        except Exception as error:
            traceback.print_exc()
            events.send(failure={"kind": "exception", "message": f"{type(error).__name__}: {error}"})
    os._exit(0)  # whatever TensorRT's libraries do on their way out is of no interest


def _die_with_parent() -> None:
    with contextlib.suppress(Exception):  # not on every system; then an orphan ends when its pipe breaks
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)


class Build:
    """One build, from the request to the engine file."""

    def __init__(self, request: dict[str, Any], events: Events) -> None:
        self.request, self.events = request, events
        self.runtime: Runtime = RUNTIMES[request["runtime"]]
        try:
            self.trt: Any = importlib.import_module(request["module"])
        except ImportError as error:
            raise Failure("import", message=str(error)) from error
        self.logger = _logger(self.trt, events)

    def run(self) -> dict[str, Any]:
        """Parse, build, write; what the report needs."""
        self._check_version()
        self._load_plugins()
        builder = self.trt.Builder(self.logger)
        network = builder.create_network(network_flags(self.runtime, self.trt))
        self._parse(network)
        config = self._configure(builder, network)
        description = self._describe(network)  # before the build: it may change the network
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise Failure("build")
        self.events.progress("Writing", 1.0)
        data = bytes(memoryview(plan))
        Path(self.request["engine"]).write_bytes(data)
        self._save_timing_cache(config)
        for layer in description["plugins"]:
            self._add_formats(layer, data)
        return {"version": str(self.trt.__version__), "size": len(data), **description}

    def _check_version(self) -> None:
        if self.runtime.name == "tensorrt" and major_version(self.trt) < OLDEST_TENSORRT:
            raise Failure("version", version=str(self.trt.__version__))
        known = supported_capabilities(self.trt) if self.request["compute_capabilities"] else []
        unknown = [name for name in self.request["compute_capabilities"] if name not in known]
        if unknown:
            raise Failure("capability", names=unknown, known=known, version=str(self.trt.__version__))

    def _load_plugins(self) -> None:
        if hasattr(self.trt, "init_libnvinfer_plugins"):
            self.trt.init_libnvinfer_plugins(self.logger, "")
        registry = self.trt.get_plugin_registry()
        for library in self.request["plugins"]:
            if registry.load_library(library) is None:
                raise Failure("library", path=library, reason=load_error(library))

    def _parse(self, network: Any) -> None:
        self.events.progress("Parsing", 0.0)
        parser = self.trt.OnnxParser(network, self.logger)
        if parser.parse(Path(self.request["model"]).read_bytes(), self.request["base"]):
            return
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise Failure(
            "parse",
            errors=[
                {
                    "text": error.desc(),
                    "node": _call(error, "node_name"),
                    "operator": _call(error, "node_operator"),
                }
                for error in errors
            ],
        )

    def _configure(self, builder: Any, network: Any) -> Any:
        trt, request = self.trt, self.request
        config = builder.create_builder_config()
        for profile in request["profiles"]:
            made = builder.create_optimization_profile()
            for name, span in profile.items():
                made.set_shape(name, *map(tuple, span))
            if config.add_optimization_profile(made) < 0:
                raise Failure("build")
        shape_inputs = [network.get_input(index).name for index in range(network.num_inputs) if _is_shape_input(network.get_input(index))]
        if shape_inputs:
            raise Failure("shape_input", names=shape_inputs)
        if request["workspace"] is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request["workspace"])
        set_tf32(trt, config, request["tf32"])
        if request["embedded"]:
            config.plugins_to_serialize = request["embedded"]
        set_capabilities(trt, config, request["compute_capabilities"])
        if request["timing_cache"] is not None:
            file = Path(request["timing_cache"])
            cache = config.create_timing_cache(file.read_bytes() if file.is_file() else b"")
            if cache is None or not config.set_timing_cache(cache, False):
                raise Failure("timing_cache", path=str(file))
        config.progress_monitor = _monitor(trt, self.events)
        return config

    def _save_timing_cache(self, config: Any) -> None:
        if self.request["timing_cache_output"] is not None:
            Path(self.request["timing_cache_output"]).write_bytes(bytes(memoryview(config.get_timing_cache().serialize())))

    # ---------------------------------------------------------------------------------------------------- description
    def _describe(self, network: Any) -> dict[str, Any]:
        layers = [network.get_layer(index) for index in range(network.num_layers)]
        types = [dtype_name(layer.get_output(0).dtype) for layer in layers if layer.num_outputs and not _is(layer, "CONSTANT")]
        kinds = Counter(name for name in types if "float" in name or "int8" in name or "fp" in name)
        plugins = [self._describe_plugin(layer) for layer in layers if _is(layer, "PLUGIN_V3")]
        return {
            "inputs": [_tensor(network.get_input(index)) for index in range(network.num_inputs)],
            "outputs": [_tensor(network.get_output(index)) for index in range(network.num_outputs)],
            "layers": len(layers),
            "precisions": dict(kinds.most_common()),
            "plugins": plugins,
        }

    def _describe_plugin(self, layer: Any) -> dict[str, Any]:
        inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
        outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
        return {
            "name": layer.name,
            "input_dtypes": [dtype_name(tensor.dtype) for tensor in inputs],
            "output_dtypes": [dtype_name(tensor.dtype) for tensor in outputs],
            "type_numbers": [[int(tensor.dtype) for tensor in tensors] for tensors in (inputs, outputs)],
        }

    def _add_formats(self, layer: dict[str, Any], plan: bytes) -> None:
        numbers = layer.pop("type_numbers")
        found = plugin_formats(plan, layer["name"], *numbers)
        names = {int(value): name for name, value in self.trt.TensorFormat.__members__.items()}
        layer["input_formats"] = name_formats(found.inputs, names) if found else ()
        layer["output_formats"] = name_formats(found.outputs, names) if found else ()


def _is(layer: Any, kind: str) -> bool:
    return str(layer.type).rpartition(".")[2] == kind


def _tensor(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": dtype_name(tensor.dtype), "shape": [size if size >= 0 else None for size in tensor.shape]}


def _is_shape_input(tensor: Any) -> bool:
    """Whether an input's values, not only its shape, decide about shapes: TensorRT wants a range of values for it then."""
    return bool(getattr(tensor, "is_shape_tensor", False))


def _call(error: Any, method: str) -> str:
    return str(getattr(error, method)()) if hasattr(error, method) else ""


def _logger(trt: Any, events: Events) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            events.log(int(severity), text)

    return Logger()


def _monitor(trt: Any, events: Events) -> Any:
    phases = Phases()

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            phases.start(phase, parent, steps)
            events.progress(phase, phases.fraction(phase))

        def step_complete(self, phase: str, step: int) -> bool:
            phases.step(phase)
            events.progress(phase, phases.fraction(phase))
            return True

        def phase_finish(self, phase: str) -> None:
            phases.finish(phase)

    return Monitor()


if __name__ == "__main__":
    main()
