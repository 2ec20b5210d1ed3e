"""Device and pinned memory, streams, events and graphs, by NVIDIA's cuda-bindings; every status is checked.

Memory and handles are released with the object that holds them, at exit too. Nothing here knows of models.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from deploydcn._lazy import lazy_import
from deploydcn.errors import InvalidArgument, RuntimeFailure

ALIGNMENT = 256
"""Bytes; what cudaMalloc gives and TensorRT asks of every tensor."""

_NON_BLOCKING, _NO_TIMING = 1, 2  # cudaStreamNonBlocking, cudaEventDisableTiming
_RESTART = "the process can use this GPU no more: restart it; if it happens again with the same input, report it with the model"
FIXES = {
    2: "free GPU memory, use smaller shapes, or load with fewer contexts",
    35: "install or update the NVIDIA driver; `deploydcn doctor` shows the versions",
    46: "another process holds the GPU exclusively; end it, or choose another GPU with CUDA_VISIBLE_DEVICES",
    100: "check that nvidia-smi lists a GPU, that containers run with --gpus all, and CUDA_VISIBLE_DEVICES",
    209: "this build has no code for this GPU; rebuild the engine on this machine",
    700: _RESTART,
    715: _RESTART,
    716: _RESTART,
    719: _RESTART,
    802: "the driver is still starting; try again, or see `systemctl status nvidia-fabricmanager`",
    803: "driver and its libraries have different versions; reboot, or reinstall the driver",
}
"""What to do about a cudaError_t."""


class Cuda:
    """The CUDA runtime on one GPU.

    Args:
        device: index of the GPU as CUDA counts the visible ones; the calling thread's current one when None.

    Raises:
        MissingDependency: cuda-bindings is not installed.
        RuntimeFailure: no usable driver or GPU.
        InvalidArgument: no GPU of that index.
    """

    def __init__(self, device: int | None = None) -> None:
        self.api = lazy_import("cuda.bindings.runtime", extra="gpu", package="cuda-bindings")
        count = int(self.call("cudaGetDeviceCount"))
        if count == 0:
            raise RuntimeFailure(f"there is no NVIDIA GPU; engines run on one; {FIXES[100]}")
        if device is not None and not 0 <= device < count:
            raise InvalidArgument(f"device is {device}; wanted 0 to {count - 1}: this process sees {count} GPU{'s' if count > 1 else ''}")
        self.device = int(self.call("cudaGetDevice")) if device is None else device
        self.activate()

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the CUDA runtime; return what it yields besides its status.

        Raises:
            RuntimeFailure: the status is an error; the message says what it means and what to do.
        """
        status, *values = getattr(self.api, name)(*arguments)
        if int(status) != 0:
            raise self._failure(name, status)
        return values[0] if values else None

    def activate(self) -> None:
        """Make the GPU current in the calling thread: a new thread starts with GPU 0."""
        self.call("cudaSetDevice", self.device)

    def copy_to_device(self, destination: int, source: int, size: int, stream: int) -> None:
        """size: bytes. source: pinned memory, which must stay as it is until the copy is done."""
        self.call("cudaMemcpyAsync", destination, source, size, self.api.cudaMemcpyKind.cudaMemcpyHostToDevice, stream)

    def copy_to_host(self, destination: int, source: int, size: int, stream: int) -> None:
        """destination: pinned memory, which holds the data once the stream has come to it."""
        self.call("cudaMemcpyAsync", destination, source, size, self.api.cudaMemcpyKind.cudaMemcpyDeviceToHost, stream)

    def copy_on_device(self, destination: int, source: int, size: int, stream: int) -> None:
        """size: bytes; the two must not overlap."""
        self.call("cudaMemcpyAsync", destination, source, size, self.api.cudaMemcpyKind.cudaMemcpyDeviceToDevice, stream)

    def _failure(self, name: str, status: Any) -> RuntimeFailure:
        code = int(status)
        text = self.api.cudaGetErrorString(status)[1]
        reason = text.decode() if isinstance(text, bytes) else str(text)
        fix = FIXES.get(code, "`deploydcn doctor` shows the versions; NVIDIA's documentation of cudaError_t has more")
        return RuntimeFailure(f"CUDA: {reason} ({name}, error {code}); {fix}")


# -------------------------------------------------------------------------------------------------------------- releasing
class _Recording(threading.local):
    """What this thread has to release once it records no graph any more; None while it records none."""

    postponed: list[tuple[Cuda, str, Any]] | None = None


_recording = _Recording()


def _release(cuda: Cuda, function: str, handle: Any) -> None:
    """Free memory or a handle. A thread that records a graph may not: a garbage collection there would spoil it."""
    if _recording.postponed is not None:
        _recording.postponed.append((cuda, function, handle))
        return
    with contextlib.suppress(Exception):  # nobody is there to handle it: the driver may be gone at exit
        getattr(cuda.api, function)(handle)


class _Owned:
    """Something that is released with this object, or by `close`."""

    def _own(self, cuda: Cuda, function: str, handle: Any) -> None:
        self._finalizer = weakref.finalize(self, _release, cuda, function, handle)

    def close(self) -> None:
        """Release it now. What the GPU still does with it must be done before."""
        self._finalizer()


class DeviceBuffer(_Owned):
    """Memory on the GPU, aligned to ALIGNMENT. size: bytes."""

    def __init__(self, cuda: Cuda, size: int) -> None:
        self.size = size
        self.address = int(cuda.call("cudaMalloc", max(size, 1)))
        self._own(cuda, "cudaFree", self.address)


class PinnedBuffer(_Owned):
    """Memory of the host that the GPU copies from and to by itself. size: bytes."""

    def __init__(self, cuda: Cuda, size: int) -> None:
        self.size = size
        self.address = int(cuda.call("cudaHostAlloc", max(size, 1), 0))
        self._own(cuda, "cudaFreeHost", self.address)

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """A view of its first bytes; not to be used once the buffer is released."""
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * max(self.size, 1)).from_address(self.address))
        return memory[: math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)


class Stream(_Owned):
    """A queue of work that runs in order, and does not wait for the default stream. handle: as an integer."""

    def __init__(self, cuda: Cuda) -> None:
        stream = cuda.call("cudaStreamCreateWithFlags", _NON_BLOCKING)
        self.handle = int(stream)
        self._own(cuda, "cudaStreamDestroy", stream)


class Event(_Owned):
    """A point in a stream. timing: whether times between two can be asked for."""

    def __init__(self, cuda: Cuda, *, timing: bool = False) -> None:
        self._cuda = cuda
        self._event = cuda.call("cudaEventCreateWithFlags", 0 if timing else _NO_TIMING)
        self._own(cuda, "cudaEventDestroy", self._event)

    def record(self, stream: int) -> None:
        """The point behind everything enqueued on `stream` so far."""
        self._cuda.call("cudaEventRecord", self._event, stream)

    def order_before(self, stream: int) -> None:
        """Work enqueued on `stream` from here on waits for the point; the host does not."""
        self._cuda.call("cudaStreamWaitEvent", stream, self._event, 0)

    def synchronize(self) -> None:
        """The host waits until the GPU has come to the point."""
        self._cuda.call("cudaEventSynchronize", self._event)

    def milliseconds_since(self, start: Event) -> float:
        """Both events have timing and are reached."""
        return float(self._cuda.call("cudaEventElapsedTime", start._event, self._event))


class Graph(_Owned):
    """Recorded work, launched at once. It keeps the addresses it was recorded with."""

    def __init__(self, cuda: Cuda, stream: int, work: Callable[[], None]) -> None:
        """Record what `work` enqueues on `stream`, without running it; `stream` is not the default stream."""
        self._cuda = cuda
        with _releases_postponed():
            # Thread-local: this thread may do nothing that a graph cannot hold; other threads are not disturbed.
            cuda.call("cudaStreamBeginCapture", stream, cuda.api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
            try:
                work()
            except BaseException:
                with contextlib.suppress(RuntimeFailure):
                    cuda.call("cudaStreamEndCapture", stream)
                raise
            graph = cuda.call("cudaStreamEndCapture", stream)
            try:
                self._executable = cuda.call("cudaGraphInstantiate", graph, 0)
            finally:
                cuda.call("cudaGraphDestroy", graph)
        self._own(cuda, "cudaGraphExecDestroy", self._executable)

    def launch(self, stream: int) -> None:
        """Enqueue the recorded work."""
        self._cuda.call("cudaGraphLaunch", self._executable, stream)


@contextlib.contextmanager
def _releases_postponed() -> Iterator[None]:
    postponed = _recording.postponed = []
    try:
        yield
    finally:
        _recording.postponed = None
        for release in postponed:
            _release(*release)
