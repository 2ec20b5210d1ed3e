"""TensorRT and TensorRT-RTX for the engine runner: what differs between them, what they log, and what that means.

Their Python modules have one interface (seen in 10.16, 11.4 and RTX 1.7). Failures are a None or a False; the reason goes to the logger.
"""

from __future__ import annotations

import ctypes
import logging
import re
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploydcn._lazy import lazy_import
from deploydcn.errors import InvalidArgument, InvalidModel, MissingDependency, RuntimeFailure, UserError
from deploydcn.libraries import plugin_library_path
from deploydcn.runners.cuda_memory import FIXES, Cuda, DeviceBuffer
from deploydcn.tensorrt_runtimes import RUNTIMES, Runtime, installed_module, load_error

_log = logging.getLogger("deploydcn.tensorrt")


ENGINE_SUFFIXES = (".engine", ".plan", ".trt")


def import_runtime(runtime: Runtime) -> Any:
    """The runtime's Python module.

    Raises:
        MissingDependency: it is not installed, or does not import.
    """
    if module := installed_module(runtime):
        return lazy_import(module, extra=runtime.extra)
    raise MissingDependency(f"{runtime.title} is not installed; this needs it: pip install 'deploydcn[{runtime.extra}]'")


# ------------------------------------------------------------------------------------------------------------ what it logs
class Journal:
    """The errors a runtime logged. One per module and process: the plugin registry keeps the first logger it is given."""

    def __init__(self, trt: Any) -> None:
        self._errors: deque[tuple[int, int, str]] = deque(maxlen=256)
        self._count = 0
        self._lock = threading.Lock()
        journal, levels = self, trt.ILogger.Severity

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if int(severity) <= int(levels.ERROR):
                    journal.add(message)
                elif int(severity) == int(levels.WARNING):
                    _log.warning("%s", message)
                else:
                    _log.debug("%s", message)

        self.logger = Logger()

    def add(self, message: str) -> None:
        with self._lock:
            self._count += 1
            self._errors.append((self._count, threading.get_ident(), message))

    def mark(self) -> int:
        """Now; for `since`."""
        return self._count

    def since(self, mark: int, *, of_others: bool = True) -> str:
        """This thread's errors since then, or other threads' where it has none; in one line, without places in NVIDIA's sources."""
        with self._lock:
            new = [(thread, text) for number, thread, text in self._errors if number > mark]
        own = [text for thread, text in new if thread == threading.get_ident()]
        return "; ".join(dict.fromkeys(map(_readable, own or [text for _, text in new if of_others])))


_journals: dict[Any, Journal] = {}
_journals_lock = threading.Lock()


def journal_of(trt: Any) -> Journal:
    """The journal of a runtime's module."""
    with _journals_lock:
        if trt not in _journals:
            _journals[trt] = Journal(trt)
        return _journals[trt]


def _readable(message: str) -> str:
    """ "[a.cpp::f::1] Error Code 2: Internal Error (Assertion x failed. In f at /src/a.cpp:1)" -> "Internal Error (Assertion x failed)"."""
    text = re.sub(r"^\[[^\]]*\]\s*", "", " ".join(message.split()))
    text = re.sub(r"^(\w+::)?\w*:?\s*Error Code \d+:\s*", "", text)
    return re.sub(r"[.,]?\s*\bIn \w+ at [^\s:]+:\d+\s*", "", text).strip()


# ------------------------------------------------------------------------------------------------------------ plugins
_loaded: set[tuple[Any, Path]] = set()
_loaded_lock = threading.Lock()


def load_plugins(trt: Any, libraries: Sequence[Path]) -> str:
    """Register our plugin library, where there is one, and the caller's. Returns why ours is not there, or "".

    Raises:
        InvalidArgument: a library does not exist.
        RuntimeFailure: a library does not load.
    """
    absent = ""
    try:
        libraries = [plugin_library_path(), *libraries]
    except UserError as error:
        absent = str(error)
    for path in libraries:
        if not path.is_file():
            raise InvalidArgument(f"plugin library {path} does not exist; wanted the path of a shared library")
        with _loaded_lock:
            if (trt, path.resolve()) not in _loaded:
                _load_library(trt, path.resolve())
                _loaded.add((trt, path.resolve()))
    return absent


def _load_library(trt: Any, path: Path) -> None:
    """load_library yields None when it fails, and also when its plugins are there already, loaded by somebody else."""
    journal = journal_of(trt)
    mark = journal.mark()
    if trt.get_plugin_registry().load_library(str(path)) is not None:
        return
    reason = journal.since(mark)
    if not reason:  # the registry keeps the first logger of the process, which need not be ours
        reason = load_error(path)
    if reason and "already" not in reason:
        raise RuntimeFailure(f"plugin library {path} does not load: {reason}; rebuild it for this machine")


# ------------------------------------------------------------------------------------------------------------ engines
@dataclass(frozen=True)
class LoadedEngine:
    """An engine, and what it needs as long as it lives. trt: the Python module; interface: its Runtime object; label: for messages."""

    trt: Any
    interface: Any
    engine: Any
    cuda: Cuda
    label: str


def load_engine(
    runtime: Runtime, path: Path, *, device: int | None = None, plugins: Sequence[Path] = (), allow_code: bool = False
) -> LoadedEngine:
    """Read an engine file onto a GPU.

    Raises:
        InvalidModel: not an engine, or one for another version or GPU.
        RuntimeFailure: no usable GPU, a plugin is missing, or the runtime refuses for another reason.
        MissingDependency: a package is.
    """
    content = read_engine(runtime, path)
    trt = import_runtime(runtime)
    title = f"{runtime.title} {trt.__version__}"
    cuda = Cuda(device)  # before TensorRT, which has less to say about a missing GPU
    journal = journal_of(trt)
    mark = journal.mark()
    interface = trt.Runtime(journal.logger)
    if reason := journal.since(mark, of_others=False):
        # Seen in 10.16 and 11.4: the object is null, and both using and destroying it end the process. It is kept for ever.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(interface))
        raise RuntimeFailure(f"{title} does not start: {reason}; {FIXES[35]}")
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(journal.logger, "")  # NVIDIA's own
    absent = load_plugins(trt, plugins)
    if allow_code:
        interface.engine_host_code_allowed = True
    mark = journal.mark()
    engine = interface.deserialize_cuda_engine(content)
    if engine is None:
        raise _refusal(f"{title} refuses {path.name}", journal.since(mark), absent)
    return LoadedEngine(trt, interface, engine, cuda, f"{runtime.name} {trt.__version__} ({path.name})")


def engine_backend(path: Path) -> str:
    """The backend that runs an engine file, by how it begins; "tensorrt" if it is none."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError:
        return "tensorrt"
    return next((name for name, runtime in RUNTIMES.items() if runtime.tag == start), "tensorrt")


def read_engine(runtime: Runtime, path: Path) -> bytes:
    """The file's content, if it begins like an engine of this runtime.

    Raises:
        InvalidModel: no such file, or something else.
    """
    if not path.is_file():
        state = "is a folder" if path.is_dir() else "does not exist"
        raise InvalidModel(f"{path} {state}; wanted an engine file")
    content = path.read_bytes()
    if len(content) < 32 or content[1:4] != b"trt":
        looks_like_onnx = path.suffix == ".onnx"
        fix = f"deploydcn.build_engine({str(path)!r}, ...) makes one of it" if looks_like_onnx else "build it again"
        raise InvalidModel(f"{path} is not an engine{', but an ONNX file' if looks_like_onnx else ', or is truncated'}; {fix}")
    for other in RUNTIMES.values():
        if other is not runtime and content.startswith(other.tag):
            raise InvalidModel(f"{path} is an engine for {other.title}, not for {runtime.title}; load it with backend={other.name!r}")
    return content


_REFUSALS: tuple[tuple[str, type[UserError], str], ...] = (
    (r"find (a )?plugin|getCreator|plugin creator", RuntimeFailure, "{plugin}"),
    (
        r"library version|same version of|version tag|serialization version",
        InvalidModel,
        "build it again with this version, or install the one that built it",
    ),
    (r"compute capability|expecting compute|incompatible device|hardware.compatible", InvalidModel, "build the engine on this kind of GPU"),
    (r"host code|lean runtime", RuntimeFailure, "it carries code of its own: if you trust it, load it with allow_code=True"),
    (r"error:? 35\b|driver version is insufficient", RuntimeFailure, FIXES[35]),
    (r"out of memory|OutOfMemory|cudaError 2\b", RuntimeFailure, FIXES[2]),
)


def _refusal(what: str, reason: str, absent: str) -> UserError:
    """Why an engine was not deserialized, with what to do."""
    plugin = f"our plugin library is missing: {absent}" if absent else "pass the library it comes from, as in plugins=['libother.so']"
    for pattern, cause, fix in _REFUSALS:
        if re.search(pattern, reason, re.IGNORECASE):
            return cause(f"{what}: {reason}; {fix.format(plugin=plugin)}")
    return InvalidModel(f"{what}: {reason or 'it gives no reason'}; the file may be damaged: build it again")


def create_context(loaded: LoadedEngine, *, graph: bool) -> Any:
    """An execution context. graph: its work will be recorded in a CUDA graph.

    Raises:
        RuntimeFailure: there is none to be had; most often for lack of GPU memory.
    """
    engine, journal = loaded.engine, journal_of(loaded.trt)
    mark = journal.mark()
    strategies = getattr(loaded.trt, "DynamicShapesKernelSpecializationStrategy", None)
    if graph and strategies is not None:
        # TensorRT-RTX compiles better kernels for a shape in the background; a graph would keep the first ones.
        config = engine.create_runtime_config()
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        context = engine.create_execution_context(config)
    else:
        context = engine.create_execution_context()
    if context is None:
        raise RuntimeFailure(f"{loaded.label}: no execution context: {journal.since(mark) or 'no reason given'}; {FIXES[2]}")
    return context


def output_allocator(loaded: LoadedEngine) -> Any:
    """Memory for an output whose shape depends on the data. Afterwards `buffer` and `shape` are what TensorRT chose."""

    trt: Any = loaded.trt

    class Allocator(trt.IOutputAllocator):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.buffer: DeviceBuffer | None = None
            self.shape: tuple[int, ...] = ()

        def reallocate_output_async(self, name: str, memory: int, size: int, alignment: int, stream: int) -> int:
            """TensorRT calls this in the middle of a run: an exception must not get out."""
            try:
                self.buffer = DeviceBuffer(loaded.cuda, size)
            except Exception as error:
                journal_of(trt).add(f"no memory for output {name!r}: {error}")
                return 0
            return self.buffer.address

        def reallocate_output(self, name: str, memory: int, size: int, alignment: int) -> int:
            return self.reallocate_output_async(name, memory, size, alignment, 0)

        def notify_shape(self, name: str, shape: Any) -> None:
            self.shape = tuple(shape)

    return Allocator()
