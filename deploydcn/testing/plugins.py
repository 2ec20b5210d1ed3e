"""`run_plugin`: one plugin, from its creator to enqueue, on the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import ml_dtypes
import numpy as np

from deploydcn.errors import DeployDcnError, InvalidArgument
from deploydcn.ops import GPU_OPS
from deploydcn.spec import OpSpec
from deploydcn.testing.native import build_target

Engine = Literal["source", "ptx75", "ptx80", "ptx"]
Schedule = Literal["seq", "rev", "rand"]

# deploydcn::DType. float64 exists there, but no plugin takes it.
_DTYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int64, np.uint8, np.int8, np.int32)  # of core/dtype.h, in its order
DTYPES = {np.dtype(dtype): code for code, dtype in enumerate(_DTYPES)}
DTYPE_OF = {code: dtype for dtype, code in DTYPES.items()}


class PluginFailure(DeployDcnError):
    """A plugin refused or failed: which step, what it logged through TensorRT's logger, what the emulator found."""


@dataclass(frozen=True)
class PluginRun:
    """outputs: in the order of the spec. report: formats, workspace and serialised fields, one per line."""

    outputs: list[np.ndarray]
    report: str


class _Field(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("type", ctypes.c_char), ("length", ctypes.c_int32), ("data", ctypes.c_void_p))


class _Tensor(ctypes.Structure):
    _fields_ = (("dtype", ctypes.c_int32), ("rank", ctypes.c_int32), ("dims", ctypes.c_int64 * 8), ("data", ctypes.c_void_p))


def run_plugin(
    op: str,
    inputs: Mapping[str, np.ndarray],
    attrs: Mapping[str, Any] | None = None,
    *,
    engine: Engine = "source",
    schedule: Schedule = "seq",
    seed: int = 0,
) -> list[np.ndarray]:
    """Run an operator's TensorRT plugin on emulated device memory and return its outputs.

    The plugin object goes the way TensorRT takes it: creator, createPlugin, shapes (constant and symbolic), formats,
    configurePlugin, workspace, serialisation, creation from the stored fields, attachToContext, enqueue; the last may neither
    synchronise nor allocate.

    Args:
        op: operator name, as "DeformConv2d"; "DeformConv" is the creator for the standard operator.
        inputs: arrays by the spec's names; float32, float16 or ml_dtypes.bfloat16. Optional ones may be left out.
        attrs: ONNX attributes.
        engine: "source", the kernels compiled by the C++ compiler; "ptx75" and "ptx80", nvcc's code for these compute
            capabilities, translated; "ptx" is ptx80.
        schedule: order in which threads and blocks run: "seq", "rev", or "rand" with `seed`.

    Raises:
        PluginFailure: the plugin refused the node, or its kernels did something wrong.
        InvalidArgument: no such operator, input or element type.
        UserError: not in a source checkout.
    """
    return trace_plugin(op, inputs, attrs, engine=engine, schedule=schedule, seed=seed).outputs


def trace_plugin(
    op: str,
    inputs: Mapping[str, np.ndarray],
    attrs: Mapping[str, Any] | None = None,
    *,
    engine: Engine = "source",
    schedule: Schedule = "seq",
    seed: int = 0,
    versioned_logger: bool = False,
) -> PluginRun:
    """As `run_plugin`, with what the plugin decided on the way."""
    spec = _spec_of(op)
    native = _prepare(engine, schedule, seed)
    arrays = [array for array in _in_order(spec, tensorrt_inputs(spec, inputs)) if array is not None]
    keep: list[Any] = []
    domain = b"" if op == spec.standard_op else b"deploydcn"
    run = native.harness_run_plugin(
        op.encode(), domain, *_fields(attrs or {}, keep), *_tensors(arrays, keep), ctypes.c_int32(versioned_logger)
    )
    return _result(native, run)


def tensorrt_inputs(spec: OpSpec, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Inputs as the target `tensorrt` writes them: zeros for a missing bias before another one. TensorRT takes no empty input,
    and tells which optional ones are there by their ranks.
    """
    complete = dict(inputs)
    biases = [tensor for tensor in spec.inputs if tensor.optional and len(tensor.axes) == 1]
    for index, tensor in enumerate(biases):
        if tensor.name not in inputs and any(later.name in inputs for later in biases[index + 1 :]):
            weight = next(other.name for other in spec.inputs if other.axes[0] == tensor.axes[0] and len(other.axes) > 1)
            complete[tensor.name] = np.zeros(inputs[weight].shape[0], inputs[weight].dtype)
    return complete


def run_kernel(
    op: str,
    inputs: Mapping[str, np.ndarray],
    attrs: Mapping[str, Any] | None = None,
    *,
    naive: bool = False,
    engine: Engine = "source",
    schedule: Schedule = "seq",
    seed: int = 0,
) -> list[np.ndarray]:
    """Run an operator's GPU kernel alone, on linear layouts. naive: the oracle kernel, in float64, instead.

    Arguments and errors otherwise as `run_plugin`.
    """
    native = _prepare(engine, schedule, seed)
    keep: list[Any] = []
    run = native.harness_run_kernel(
        op.encode(), ctypes.c_int32(naive), *_fields(attrs or {}, keep), *_tensors(_in_order(_spec_of(op), inputs), keep)
    )
    return _result(native, run).outputs


def run_ort_op(
    op: str,
    inputs: Mapping[str, np.ndarray],
    attrs: Mapping[str, Any] | None = None,
    *,
    engine: Engine = "source",
    schedule: Schedule = "seq",
    seed: int = 0,
) -> list[np.ndarray]:
    """Run an operator as ONNX Runtime's CUDA execution provider does, on a fake of that runtime.

    Arguments and errors otherwise as `run_plugin`.
    """
    native = _prepare(engine, schedule, seed)
    keep: list[Any] = []
    run = native.harness_run_ort_op(op.encode(), *_fields(attrs or {}, keep), *_tensors(_in_order(_spec_of(op), inputs), keep))
    return _result(native, run).outputs


def restore_plugin(op: str, fields: Mapping[str, Any]) -> None:
    """Create a plugin from the fields an engine stores.

    Raises:
        PluginFailure: the plugin refuses them.
    """
    native = _prepare("source", "seq", 0)
    keep: list[Any] = []
    _result(native, native.harness_restore_plugin(op.encode(), b"deploydcn", *_fields(fields, keep)))


def _prepare(engine: Engine, schedule: Schedule, seed: int) -> ctypes.CDLL:
    native = _load(emulated_library())
    for name, value in (("engine", "ptx80" if engine == "ptx" else engine), ("schedule", schedule), ("seed", str(seed))):
        if native.deploydcn_emulation_set(name.encode(), value.encode()) != 0:
            raise InvalidArgument(native.deploydcn_emulation_error().decode())
    return native


def _result(native: ctypes.CDLL, run: int) -> PluginRun:
    try:
        error = native.harness_error(run).decode()
        if error:
            raise PluginFailure(error.strip())
        outputs = [_array(native.harness_output(run, index)) for index in range(native.harness_output_count(run))]
        return PluginRun(outputs, native.harness_report(run).decode())
    finally:
        native.harness_free(run)


@cache
def emulated_library() -> str:
    """The emulated plugin library of this checkout, built when needed."""
    folder = build_target("deploydcn_emulated", "emulation", "DEPLOYDCN_EMULATION=ON", "DEPLOYDCN_CUDA=ON")
    return str(folder / "plugins" / "harness" / "libdeploydcn_emulated.so")


@cache
def _load(path: str) -> ctypes.CDLL:
    native = ctypes.CDLL(path)
    for name in ("harness_run_plugin", "harness_run_kernel", "harness_run_ort_op", "harness_restore_plugin"):
        getattr(native, name).restype = ctypes.c_void_p
    native.harness_output.restype = _Tensor
    for name in ("harness_error", "harness_report", "deploydcn_emulation_error"):
        getattr(native, name).restype = ctypes.c_char_p
    for name in ("harness_error", "harness_report", "harness_output_count", "harness_free"):
        getattr(native, name).argtypes = [ctypes.c_void_p]
    native.harness_output.argtypes = [ctypes.c_void_p, ctypes.c_int32]
    return native


def _spec_of(op: str) -> OpSpec:
    for known in GPU_OPS:
        if op in (known.spec.name, known.spec.standard_op):
            return known.spec
    raise InvalidArgument(f"no operator {op!r}; wanted one of {[known.spec.name for known in GPU_OPS]}")


def _in_order(spec: OpSpec, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray | None]:
    unknown = set(inputs) - {tensor.name for tensor in spec.inputs}
    if unknown:
        raise InvalidArgument(f"{spec.name} has no input {sorted(unknown)}; wanted some of {[tensor.name for tensor in spec.inputs]}")
    return [inputs.get(tensor.name) for tensor in spec.inputs]


def _tensors(arrays: Sequence[np.ndarray | None], keep: list[Any]) -> tuple[Any, int]:
    tensors = (_Tensor * len(arrays))(*(_tensor(array, keep) for array in arrays))
    return tensors, len(arrays)


def _tensor(array: np.ndarray | None, keep: list[Any]) -> _Tensor:
    if array is None:
        return _Tensor()
    if array.dtype not in DTYPES:
        raise InvalidArgument(f"element type {array.dtype} is none of {[str(dtype) for dtype in DTYPES]}")
    keep.append(np.ascontiguousarray(array))
    return _Tensor(DTYPES[array.dtype], array.ndim, (ctypes.c_int64 * 8)(*array.shape), keep[-1].ctypes.data)


def _fields(attrs: Mapping[str, Any], keep: list[Any]) -> tuple[Any, int]:
    fields = (_Field * len(attrs))(*(_field(name, value, keep) for name, value in attrs.items()))
    return fields, len(attrs)


def _field(name: str, value: Any, keep: list[Any]) -> _Field:
    if isinstance(value, str):
        keep.append(ctypes.create_string_buffer(value.encode(), max(len(value), 1)))
        return _Field(name.encode(), b"s", len(value), ctypes.addressof(keep[-1]))
    items = value if isinstance(value, tuple | list) else (value,)
    if any(isinstance(item, float) for item in items):
        keep.append((ctypes.c_float * len(items))(*items))
        return _Field(name.encode(), b"f", len(items), ctypes.addressof(keep[-1]))
    kind, code = (ctypes.c_int32, b"i") if all(-(2**31) <= item < 2**31 for item in items) else (ctypes.c_int64, b"l")
    keep.append((kind * len(items))(*items))
    return _Field(name.encode(), code, len(items), ctypes.addressof(keep[-1]))


def _array(tensor: _Tensor) -> np.ndarray:
    shape = tuple(tensor.dims[: tensor.rank])
    dtype = DTYPE_OF[tensor.dtype]
    count = int(np.prod(shape))
    return np.frombuffer(ctypes.string_at(tensor.data, count * dtype.itemsize) if count else b"", dtype).reshape(shape)
