"""A stand-in for the `tensorrt` module: real enough to load an engine and to run it on fake_cuda, strict about what callers forget.

An execution context remembers shapes and addresses, runs when its stream does, and keeps them as they were when it was enqueued.
An engine file is a header and JSON (`engine_file`); what an engine computes is a Python function named in it.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np

from tests.runners.fake_cuda import FakeCuda, Fault, Op

Shape = tuple[int, ...]
Arrays = dict[str, np.ndarray]

DTYPES = {
    "FLOAT": np.dtype(np.float32),
    "HALF": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "BOOL": np.dtype(np.bool_),
    "INT4": np.dtype(np.int8),
}
DataType = Enum("DataType", list(DTYPES))  # type: ignore[misc]
TensorIOMode = Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
TensorLocation = Enum("TensorLocation", ["DEVICE", "HOST"])
TensorFormat = Enum("TensorFormat", ["LINEAR", "CHW4", "HWC8"])


class Severity(IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class Crash(BaseException):
    """The genuine library would have ended the process."""


class ILogger:
    Severity = Severity

    def log(self, severity: Severity, message: str) -> None:
        raise NotImplementedError


class IOutputAllocator:
    pass


@dataclass(frozen=True)
class Function:
    """What an engine computes. shapes: of the outputs, -1 where they depend on the data."""

    shapes: Callable[[Mapping[str, Shape]], dict[str, Shape]]
    compute: Callable[[Arrays], Arrays]


FUNCTIONS: dict[str, Function] = {
    # y = 2 x + number of pixels: wrong when the shape is stale
    "double": Function(lambda shapes: {"y": shapes["x"]}, lambda a: {"y": (2 * a["x"] + math.prod(a["x"].shape[2:])).astype(a["x"].dtype)}),
    # two inputs, outputs of three types
    "mixed": Function(
        lambda shapes: {"sum": shapes["a"], "half": shapes["a"], "count": (shapes["a"][0],)},
        lambda a: {
            "sum": (a["a"] + a["b"].astype(np.float32)).astype(ml_dtypes.bfloat16),
            "half": a["b"] * np.float16(0.5),
            "count": np.full(a["a"].shape[0], a["a"].size, np.int64),
        },
    ),
    # (2, number of positive elements): known only once the data are
    "positive": Function(lambda shapes: {"y": (2, -1)}, lambda a: {"y": np.stack(np.nonzero(a["x"] > 0)).astype(np.int64)}),
}


@dataclass(frozen=True)
class Tensor:
    name: str
    dtype: str
    shape: Shape
    is_input: bool
    format: str = "LINEAR"
    location: str = "DEVICE"


def engine_file(
    function: str = "double",
    inputs: Mapping[str, tuple[str, Shape]] | None = None,
    outputs: Mapping[str, tuple[str, Shape]] | None = None,
    profiles: list[dict[str, list[Shape]]] | None = None,
    *,
    tag: bytes = b"ftrt",
    version: str = "10.16.1",
    plugins: list[str] | None = None,
    **changes: str,
) -> bytes:
    """The bytes of an engine. changes: x_format="CHW4", y_location="HOST"."""
    inputs = inputs or {"x": ("FLOAT", (-1, 3, -1, -1))}
    outputs = outputs or {"y": ("FLOAT", (-1, 3, -1, -1))}
    tensors = [
        [name, dtype, list(shape), mode, changes.get(f"{name}_format", "LINEAR"), changes.get(f"{name}_location", "DEVICE")]
        for mode, group in ((True, inputs), (False, outputs))
        for name, (dtype, shape) in group.items()
    ]
    if profiles is None:
        profiles = [{"x": [(1, 3, 2, 2), (2, 3, 8, 8), (4, 3, 16, 16)]}]
    content = {"version": version, "function": function, "tensors": tensors, "profiles": profiles, "plugins": plugins or []}
    return tag + bytes(28) + json.dumps(content).encode()


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine, self._cuda = engine, engine._trt.cuda
        self.active_optimization_profile = 0
        self._shapes: dict[str, Shape] = {t.name: t.shape for t in engine._tensors if t.is_input and -1 not in t.shape}
        self._addresses: dict[str, int] = {}
        self._allocators: dict[str, Any] = {}
        self._busy = threading.Lock()
        self._thread: int | None = None
        self._last: Op | None = None
        self._flushed: tuple[Any, ...] = ()

    @contextlib.contextmanager
    def _used(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            self._cuda.violations.append("a context was used by two threads at once")
            raise Crash
        try:
            time.sleep(0.0002)
            if self._thread not in (None, threading.get_ident()):
                self._cuda.violations.append("a context was prepared by one thread and used by another")
            self._thread = threading.get_ident()
            yield
        finally:
            self._busy.release()

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        with self._used():
            if not 0 <= index < len(self._engine._profiles):
                return self._engine._refuse(f"profile {index} is not valid")
            self.active_optimization_profile = index
            self._shapes = {t.name: t.shape for t in self._engine._tensors if t.is_input and -1 not in t.shape}
            return True

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        with self._used():
            tensor = self._engine._tensor(name)
            span = self._engine._profiles[self.active_optimization_profile].get(name, [tensor.shape] * 3)
            if len(shape) != len(tensor.shape) or any(
                not low <= size <= high for low, size, high in zip(span[0], shape, span[2], strict=True)
            ):
                return self._engine._refuse(f"set dimension of {name} to {shape}, which is not within its profile")
            self._shapes[name] = tuple(shape)
            return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        with self._used():
            self._engine._tensor(name)
            if address % 256:
                return self._engine._refuse(f"address of {name} is not aligned to 256 bytes")
            self._addresses[name] = address
            return True

    def set_output_allocator(self, name: str, allocator: IOutputAllocator) -> bool:
        self._allocators[name] = allocator
        return True

    def infer_shapes(self) -> list[str]:
        with self._used():
            return [t.name for t in self._engine._tensors if t.is_input and t.name not in self._shapes]

    def get_tensor_shape(self, name: str) -> Shape:
        tensor = self._engine._tensor(name)
        if tensor.is_input:
            return self._shapes.get(name, tensor.shape)
        return self._engine._function.shapes(self._shapes)[name]

    def execute_async_v3(self, stream: int) -> bool:
        with self._used(), self._cuda.lock:
            self._thread = None
            state = (self.active_optimization_profile, tuple(self._shapes.items()))
            if self._cuda.is_recording(stream) and state != self._flushed:
                return self._engine._refuse("shapes changed since the last run: enqueue once before a capture")
            shapes = {t.name: self.get_tensor_shape(t.name) for t in self._engine._tensors}
            tensors = [t for t in self._engine._tensors if t.name not in self._allocators]
            try:
                touched = tuple(self._cuda.find(self._addresses[t.name], _bytes(t, shapes[t.name])) for t in tensors)
            except KeyError as error:
                return self._engine._refuse(f"address of {error} is not set")
            except Fault as error:
                return self._engine._refuse(f"memory of a tensor is too small or elsewhere: {error}")
            if any(allocation.device != self._engine._device for allocation in touched):
                self._cuda.violations.append("a tensor is on another GPU than the engine")
            addresses, before = dict(self._addresses), self._last
            if self._allocators:
                self._run_now(stream, shapes, addresses)  # shapes that depend on data: TensorRT waits for them
                return True

            def run() -> None:
                if before is not None and not before.done:
                    self._cuda.violations.append("two runs of one context overlap")
                arrays = {t.name: self._read(t, shapes[t.name], addresses[t.name]) for t in tensors if t.is_input}
                for name, array in self._engine._function.compute(arrays).items():
                    self._cuda.write(addresses[name], self._engine._encode(name, array))
                self._cuda.clock += 1.0

            op = Op(run, touched)
            self._cuda.enqueue(stream, op)
            if not self._cuda.is_recording(stream):
                self._last, self._flushed = op, state
            return True

    def _run_now(self, stream: int, shapes: Mapping[str, Shape], addresses: Mapping[str, int]) -> None:
        self._cuda.cudaStreamSynchronize(stream)
        inputs = [t for t in self._engine._tensors if t.is_input]
        outputs = self._engine._function.compute({t.name: self._read(t, shapes[t.name], addresses[t.name]) for t in inputs})
        for name, allocator in self._allocators.items():
            data = self._engine._encode(name, outputs[name])
            address = allocator.reallocate_output_async(name, 0, len(data), 256, stream)
            allocator.notify_shape(name, outputs[name].shape)
            if address:
                self._cuda.enqueue(stream, Op(lambda address=address, data=data: self._cuda.write(address, data)))  # type: ignore[misc]

    def _read(self, tensor: Tensor, shape: Shape, address: int) -> np.ndarray:
        dtype = DTYPES[tensor.dtype]
        return np.frombuffer(self._cuda.read(address, _bytes(tensor, shape)), np.uint8).view(dtype).reshape(shape)


def _bytes(tensor: Tensor, shape: Shape) -> int:
    return math.prod(shape) * DTYPES[tensor.dtype].itemsize


class ICudaEngine:
    def __init__(self, trt: FakeTensorRT, logger: ILogger, content: dict[str, Any]) -> None:
        self._trt, self._logger = trt, logger
        self._tensors = [Tensor(name, dtype, tuple(shape), *rest) for name, dtype, shape, *rest in content["tensors"]]
        self._profiles = [{name: [tuple(s) for s in span] for name, span in profile.items()} for profile in content["profiles"]]
        self._function = FUNCTIONS.get(content["function"]) or trt.functions[content["function"]]
        self._device = trt.cuda.cudaGetDevice()[1]
        self.num_io_tensors = len(self._tensors)
        self.num_optimization_profiles = max(len(self._profiles), 1)
        self._profiles = self._profiles or [{}]

    def _tensor(self, name: str) -> Tensor:
        return next(tensor for tensor in self._tensors if tensor.name == name)

    def _encode(self, name: str, array: np.ndarray) -> bytes:
        dtype = DTYPES[self._tensor(name).dtype]
        assert array.dtype == dtype, f"the fake function gives {array.dtype} for {name}"
        return array.tobytes()

    def _refuse(self, message: str) -> bool:
        self._logger.log(Severity.ERROR, f"IExecutionContext::enqueueV3: Error Code 3: API Usage Error ({message}. In f at /_src/x.cpp:1)")
        return False

    def get_tensor_name(self, index: int) -> str:
        return self._tensors[index].name

    def get_tensor_mode(self, name: str) -> Any:
        return TensorIOMode["INPUT" if self._tensor(name).is_input else "OUTPUT"]

    def get_tensor_dtype(self, name: str) -> Any:
        return DataType[self._tensor(name).dtype]

    def get_tensor_shape(self, name: str) -> Shape:
        return self._tensor(name).shape

    def get_tensor_format(self, name: str) -> Any:
        return TensorFormat[self._tensor(name).format]

    def get_tensor_location(self, name: str) -> Any:
        return TensorLocation[self._tensor(name).location]

    def get_tensor_profile_shape(self, name: str, index: int) -> list[Shape]:
        return list(self._profiles[index][name])

    def create_runtime_config(self) -> SimpleNamespace:
        return SimpleNamespace(dynamic_shapes_kernel_specialization_strategy=None)

    def create_execution_context(self, config: Any = None) -> IExecutionContext | None:
        if self._trt.contexts_left == 0:
            self._logger.log(Severity.ERROR, "[a.cpp::b::1] Error Code 2: OutOfMemory (no memory for activations)")
            return None
        self._trt.contexts_left -= 1
        self._trt.configs.append(config)
        return IExecutionContext(self)


class IPluginRegistry:
    """load_library yields None on failure and on a second load, as the genuine one."""

    def __init__(self) -> None:
        self.logger: ILogger | None = None
        self.loaded: list[str] = []
        self.all_creators: list[SimpleNamespace] = []

    def load_library(self, path: str) -> object | None:
        with open(path, "rb") as file:
            names = file.read().decode(errors="replace").split()
        if names[:1] != ["plugins:"]:
            return self._fail(f"Unable to load library: {path}: invalid ELF header")
        if set(names[1:]) & set(self.loaded):
            return self._fail(f"Cannot register the library as plugin creator of {names[1]} exists already.")
        self.loaded += names[1:]
        return object()

    def _fail(self, message: str) -> None:
        if self.logger:
            self.logger.log(
                Severity.ERROR, f"IPluginRegistry::loadLibrary: Error Code 4: API Usage Error ({message} In g at /_src/r.cpp:2)"
            )


class FakeTensorRT(ModuleType):
    """The module. configs: what contexts were made with."""

    ILogger = ILogger
    IOutputAllocator = IOutputAllocator
    TensorIOMode, TensorLocation = TensorIOMode, TensorLocation

    def __init__(self, cuda: FakeCuda, name: str = "tensorrt", version: str = "10.16.1", tag: bytes = b"ftrt") -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.__version__ = version
        self.cuda, self.tag = cuda, tag
        self.registry = IPluginRegistry()
        self.contexts_left = 100
        self.configs: list[Any] = []
        self.code_allowed: list[bool] = []
        self.functions: dict[str, Function] = {}  # what engines compute, besides FUNCTIONS

    def get_plugin_registry(self) -> IPluginRegistry:
        return self.registry

    def Runtime(self, logger: ILogger) -> Runtime:  # noqa: N802
        return Runtime(self, logger)


@dataclass
class Runtime:
    """Without a GPU it is null: logged, and only noticed when it is used."""

    trt: FakeTensorRT
    logger: ILogger
    engine_host_code_allowed: bool = False
    _null: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.trt.registry.logger = self.trt.registry.logger or self.logger
        self._null = self.trt.cuda.broken is not None
        if self._null:
            self.logger.log(
                Severity.ERROR, "createInferRuntime: Error Code 6: API Usage Error (CUDA initialization failure with error: 35)"
            )

    def deserialize_cuda_engine(self, data: bytes) -> ICudaEngine | None:
        if self._null:
            raise Crash("null pointer")
        if data[:4] != self.trt.tag:
            return self._fail(
                "Serialization", "magicTag assertion failed.Trying to load an engine created with incompatible serialization version"
            )
        try:
            content = json.loads(data[32:])
        except ValueError:
            return self._fail("Internal Error", "Assertion bufferSize >= minBufferSize failed.")
        if content["version"] != self.trt.__version__:
            return self._fail(
                "Serialization",
                f"The engine plan file is not compatible with this version of TensorRT, expecting library version {self.trt.__version__} "
                f"got {content['version']}, please rebuild.",
            )
        for plugin in content["plugins"]:
            if plugin not in self.trt.registry.loaded:
                return self._fail("Internal Error", f"Cannot find plugin: {plugin}, version: 1, namespace:deploydcn.")
        self.trt.code_allowed.append(self.engine_host_code_allowed)
        return ICudaEngine(self.trt, self.logger, content)

    def _fail(self, kind: str, message: str) -> None:
        self.logger.log(
            Severity.ERROR, f"[runtime.cpp::readHeader::765] Error Code 2: {kind} ({message} In readHeader at /_src/runtime.cpp:765)"
        )
