"""Arrays in GPU memory: those of other libraries are read in place, ours can be read in place by them.

Known are torch tensors, `__cuda_array_interface__` (CuPy, Numba, pycuda's GPUArray) and DLPack (JAX and the rest). pycuda must use the
primary context of the GPU (`import pycuda.autoprimaryctx`), the one that TensorRT and torch use.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploydcn._lazy import lazy_import
from deploydcn.errors import InvalidArgument, RuntimeFailure
from deploydcn.runners import dlpack
from deploydcn.runners.cuda_memory import Cuda, DeviceBuffer, Event, PinnedBuffer, Stream

LEGACY_STREAM = 1
"""The handle by which CUDA array interface and DLPack name the default stream, CUDA's own 0."""


@dataclass(frozen=True)
class DeviceView:
    """A contiguous array in GPU memory. dtype: NumPy's name, or "bfloat16" ...

    stream: where work on it may be pending, which a reader has to wait for; None for nothing. owner: keeps the memory.
    """

    address: int
    shape: tuple[int, ...]
    dtype: str
    stream: int | None
    owner: Any

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * numpy_dtype(self.dtype).itemsize


class DeviceArray:
    """An output in GPU memory, contiguous. Other libraries take it without a copy: `torch.from_dlpack(array)`, `cupy.asarray(array)`.

    It is a snapshot: later runs do not change it. stream: the caller's stream on which it is being computed, kept alive with it;
    None when it is complete. Consumers that go through the protocols wait for it by themselves.
    """

    def __init__(self, cuda: Cuda, buffer: DeviceBuffer, shape: tuple[int, ...], dtype: np.dtype[Any], stream: Any = None) -> None:
        self._cuda, self._buffer, self._stream_owner = cuda, buffer, stream
        self.shape, self.dtype = shape, dtype
        self.stream = None if stream is None else stream_handle(stream)

    def __repr__(self) -> str:
        return f"DeviceArray({self.dtype.name}{list(self.shape)}, GPU {self._cuda.device})"

    @property
    def address(self) -> int:
        """In GPU memory."""
        return self._buffer.address

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "stream": _public(self.stream),
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self._cuda.device

    def __dlpack__(self, *, stream: int | None = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None) -> Any:
        """stream: the consumer's, which is made to wait for ours; None for the default stream, -1 for no waiting."""
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise TypeError("a DeviceArray is handed over where it is; the consumer makes copies")  # and does when it sees a TypeError
        if self.stream is not None and stream != -1:
            order(self._cuda, self.stream, LEGACY_STREAM if stream is None else stream)
        return dlpack.pack(self.address, self.shape, self.dtype, self.__dlpack_device__(), self._buffer)

    def numpy(self) -> np.ndarray:
        """A copy in host memory; waits until the array is complete."""
        self._cuda.activate()
        own, pinned = Stream(self._cuda), PinnedBuffer(self._cuda, self.nbytes)
        if self.stream is not None:
            order(self._cuda, self.stream, own.handle)
        self._cuda.copy_to_host(pinned.address, self.address, self.nbytes, own.handle)
        self._cuda.call("cudaStreamSynchronize", own.handle)
        return pinned.array(self.shape, self.dtype).copy()


def device_view(cuda: Cuda, value: Any, label: str) -> DeviceView | None:
    """The array in GPU memory that `value` is; None for anything else.

    Args:
        cuda: the GPU it has to be on.
        value: an array of any library.
        label: what it is, for messages: "input 'x'".

    Raises:
        InvalidArgument: not contiguous, on another GPU, or of an unknown element type.
    """
    if isinstance(value, DeviceArray):
        return DeviceView(value.address, value.shape, value.dtype.name, value.stream, value)
    if any(base.__module__.partition(".")[0] == "torch" for base in type(value).__mro__) and hasattr(value, "data_ptr"):
        return _of_torch(cuda, value, label) if value.is_cuda else None
    if hasattr(value, "__cuda_array_interface__"):
        return _of_interface(cuda, value, label)
    if hasattr(value, "__dlpack_device__") and int(value.__dlpack_device__()[0]) in (dlpack.CUDA, dlpack.CUDA_MANAGED):
        _check_device(cuda, int(value.__dlpack_device__()[1]), label)
        capsule = value.__dlpack__(stream=LEGACY_STREAM)  # the producer makes that stream wait for its own
        array = dlpack.unpack(capsule)
        _check_contiguous(array.shape, array.strides, 1, label)
        return DeviceView(array.address, array.shape, array.dtype, LEGACY_STREAM, capsule)
    return None


def order(cuda: Cuda, first: int, then: int) -> None:
    """Work enqueued on stream `then` from here on waits for what is on stream `first` now. The host does not wait."""
    if first != then:
        event = Event(cuda)
        event.record(first)
        event.order_before(then)


def stream_handle(stream: Any) -> int:
    """The handle of a stream: an integer, or a stream of torch, CuPy, pycuda, cuda.core or cuda-bindings.

    Raises:
        InvalidArgument: it is none.
    """
    if hasattr(stream, "__cuda_stream__"):
        protocol = stream.__cuda_stream__
        return int((protocol() if callable(protocol) else protocol)[1])
    for attribute in ("cuda_stream", "handle", "ptr"):
        if isinstance(getattr(stream, attribute, None), int):
            return int(getattr(stream, attribute))
    if isinstance(stream, bool | float | str) or not hasattr(stream, "__int__") or int(stream) < 0:
        raise InvalidArgument(f"stream is {stream!r}; wanted a CUDA stream of torch, CuPy, pycuda or cuda-bindings, or its handle")
    return int(stream)


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy type of a name; bfloat16 and float8 come from ml_dtypes.

    Raises:
        InvalidArgument: there is none.
    """
    try:
        return np.dtype(name)
    except TypeError:
        ml_dtypes = lazy_import("ml_dtypes", extra="gpu")
        if not hasattr(ml_dtypes, name):
            raise InvalidArgument(f"there is no element type {name!r}") from None
        dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return dtype


def _of_torch(cuda: Cuda, value: Any, label: str) -> DeviceView:
    _check_device(cuda, value.device.index or 0, label)
    if str(value.layout) != "torch.strided" or not value.is_contiguous():
        raise InvalidArgument(f"{label} is not contiguous; wanted a dense tensor in C order; call .contiguous() on it")
    if value.is_neg() or value.is_conj():
        raise InvalidArgument(
            f"{label} is a negated or conjugated view, whose memory holds other values; call .resolve_neg().resolve_conj() on it"
        )
    stream = sys.modules["torch"].cuda.current_stream(value.device).cuda_stream
    return DeviceView(int(value.data_ptr()), tuple(value.shape), str(value.dtype).removeprefix("torch."), int(stream), value)


def _of_interface(cuda: Cuda, value: Any, label: str) -> DeviceView:
    interface = value.__cuda_array_interface__
    shape, dtype, address = tuple(interface["shape"]), np.dtype(interface["typestr"]), int(interface["data"][0] or 0)
    if interface.get("mask") is not None or not dtype.isnative:
        raise InvalidArgument(f"{label} is a masked or byte-swapped array; wanted a plain one in the machine's byte order")
    _check_contiguous(shape, interface.get("strides"), dtype.itemsize, label)
    if address:
        _check_pointer(cuda, address, label)
    # Before version 3 there is no word on streams: whatever is pending, it most likely is on the default stream.
    stream = interface.get("stream") if interface.get("version", 0) >= 3 else LEGACY_STREAM
    return DeviceView(address, shape, dtype.name, stream, value)


def _check_pointer(cuda: Cuda, address: int, label: str) -> None:
    try:
        attributes = cuda.call("cudaPointerGetAttributes", address)
    except RuntimeFailure as error:
        raise InvalidArgument(f"{label} points to memory that this GPU's context does not know: {error}") from error
    if int(attributes.type) not in (2, 3):  # cudaMemoryTypeDevice, cudaMemoryTypeManaged
        raise InvalidArgument(f"{label} says it is in GPU memory, but points elsewhere; a pycuda array needs pycuda.autoprimaryctx")
    _check_device(cuda, int(attributes.device), label)


def _check_device(cuda: Cuda, device: int, label: str) -> None:
    if device != cuda.device:
        raise InvalidArgument(f"{label} is on GPU {device}, the engine on GPU {cuda.device}; move it, or load with device={device}")


def _check_contiguous(shape: tuple[int, ...], strides: Any, step: int, label: str) -> None:
    """step: stride of the last axis, in the unit of `strides`."""
    if strides is None or 0 in shape:
        return
    for size, stride in zip(reversed(shape), reversed(tuple(strides)), strict=True):
        if size != 1 and stride != step:
            raise InvalidArgument(
                f"{label} is not contiguous (strides {tuple(strides)}); wanted C order; copy it, as in numpy.ascontiguousarray"
            )
        step *= size


def _public(stream: int | None) -> int | None:
    return LEGACY_STREAM if stream == 0 else stream
