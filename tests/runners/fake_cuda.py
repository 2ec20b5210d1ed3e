# ruff: noqa: N801, N802, N815 (NVIDIA's names)
"""A stand-in for `cuda.bindings.runtime` that is stricter than a GPU: nothing runs before somebody waits for it.

Device memory cannot be reached from the host. Copies and kernels are queued per stream and run when a stream or event is
synchronized, in the order that streams and events demand and no other. New memory, and pinned memory that a copy is on its way to,
hold 0xFF: NaN in every floating-point type. Mistakes that a GPU would forgive most of the time are collected in `violations`.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

POISON = 0xFF
DEVICE_BASE, GAP = 0x7F00_0000_0000, 1 << 12


class Status(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorInvalidDevice = 101
    cudaErrorInvalidResourceHandle = 400
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


class cudaMemcpyKind(IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class cudaStreamCaptureMode(IntEnum):
    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1


class Fault(Exception):
    """The GPU touched memory that is not there."""


@dataclass(eq=False)
class Allocation:
    base: int
    size: int
    kind: str
    device: int
    data: np.ndarray
    freed: bool = False


@dataclass(eq=False)
class Op:
    """Queued work. touches: memory it reads or writes. after: an event's point that has to be reached first."""

    run: Callable[[], None]
    touches: tuple[Allocation, ...] = ()
    after: Op | None = None
    done: bool = False


@dataclass(eq=False)
class FakeEvent:
    point: Op | None = None
    stream: int = 0
    time: float = 0.0


@dataclass(eq=False)
class FakeStream:
    handle: int
    device: int
    queue: list[Op] = field(default_factory=list)
    recording: list[Op] | None = None
    recorded_by: int = 0
    spoiled: bool = False

    def __int__(self) -> int:
        return self.handle


@dataclass(eq=False)
class FakeGraph:
    ops: list[Op]


class FakeCuda(ModuleType):
    """One of these is one machine: `devices` GPUs, or the status that a machine without any gives."""

    cudaMemcpyKind = cudaMemcpyKind
    cudaStreamCaptureMode = cudaStreamCaptureMode

    def __init__(self, devices: int = 1, broken: Status | None = None) -> None:
        super().__init__("cuda.bindings.runtime")
        self.devices, self.broken = devices, broken
        self.memory_limit: int | None = None
        self.allocations: list[Allocation] = []
        self.streams = {handle: FakeStream(handle, 0) for handle in (0, 1)}
        self.violations: list[str] = []
        self.copies = dict.fromkeys(cudaMemcpyKind, 0)
        self.launches = 0
        self.clock = 0.0
        self.fault: Status | None = None
        self.events: set[FakeEvent] = set()
        self.graphs: set[FakeGraph] = set()
        self.lock = threading.RLock()
        self._thread = threading.local()
        self._next = DEVICE_BASE
        self._gone: list[FakeStream] = []

    # ------------------------------------------------------------------------------------------------------ for tests
    def alive(self) -> dict[str, int]:
        """What was made and not released."""
        return {
            "device": sum(a.kind == "device" and not a.freed for a in self.allocations),
            "pinned": sum(a.kind == "pinned" and not a.freed for a in self.allocations),
            "streams": len(self.streams) - 2,
            "events": len(self.events),
            "graphs": len(self.graphs),
        }

    def all_streams(self) -> list[FakeStream]:
        """Those made so far, also those destroyed."""
        return [stream for stream in (*self.streams.values(), *self._gone) if stream.handle not in (0, 1)]

    def find(self, address: int, size: int, kind: str = "device") -> Allocation:
        for allocation in self.allocations:
            if allocation.kind == kind and allocation.base <= address and address + size <= allocation.base + allocation.size:
                return allocation
        raise Fault(f"{size} bytes at {address:#x} are not {kind} memory")

    def read(self, address: int, size: int) -> bytes:
        """As a kernel does."""
        allocation = self.find(address, size)
        if allocation.freed:
            raise Fault(f"{size} bytes at {address:#x} were freed")
        return allocation.data[address - allocation.base :][:size].tobytes()

    def write(self, address: int, data: bytes) -> None:
        allocation = self.find(address, len(data))
        if allocation.freed:
            raise Fault(f"{len(data)} bytes at {address:#x} were freed")
        allocation.data[address - allocation.base :][: len(data)] = np.frombuffer(data, np.uint8)

    def enqueue(self, stream: int, op: Op) -> None:
        with self.lock:
            queue = self._handle(stream)
            if queue is None:
                return
            (queue.queue if queue.recording is None else queue.recording).append(op)

    def put(self, array: np.ndarray, *, stream: int | None = None, offset: int = 0) -> int:
        """New device memory with an array in it: at once, or when `stream` comes to it."""
        address = self.cudaMalloc(array.nbytes + offset)[1] + offset
        data = array.tobytes()
        if stream is None:
            self.write(address, data)
        else:
            self.enqueue(stream, Op(lambda: self.write(address, data), (self.find(address, len(data)),)))
        return address

    def is_recording(self, stream: int) -> bool:
        return self.streams[stream].recording is not None

    # ------------------------------------------------------------------------------------------------------ execution
    def _run(self, op: Op) -> None:
        """Run the queue that holds `op` up to and with it."""
        if op.done:
            return
        (stream,) = [stream for stream in (*self.streams.values(), *self._gone) if op in stream.queue]
        while not op.done:
            self._step(stream)

    def _step(self, stream: FakeStream) -> None:
        head = stream.queue[0]
        if head.after is not None:
            self._run(head.after)
        try:
            if any(allocation.freed for allocation in head.touches):
                raise Fault("memory that was freed")
            head.run()
        except Fault as error:
            self.violations.append(f"the GPU reached {error}")
            self.fault = Status.cudaErrorIllegalAddress
        head.done = True
        stream.queue.pop(0)

    def _status(self, *, unless_recording: bool = False) -> Status:
        if self.broken is not None:
            return self.broken
        if unless_recording:
            for stream in self.streams.values():
                if stream.recording is not None and stream.recorded_by == threading.get_ident():
                    stream.spoiled = True
                    return Status.cudaErrorStreamCaptureUnsupported
        return self.fault or Status.cudaSuccess

    def _handle(self, stream: Any) -> FakeStream | None:
        if int(stream) not in self.streams:
            self.violations.append("a stream was used that was destroyed")
        return self.streams.get(int(stream))

    # ------------------------------------------------------------------------------------------------------ device
    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        return self._status(), self.devices

    def cudaGetDevice(self) -> tuple[Any, ...]:
        return self._status(), getattr(self._thread, "device", 0)

    def cudaSetDevice(self, device: int) -> tuple[Any]:
        if not 0 <= device < self.devices:
            return (Status.cudaErrorInvalidDevice,)
        self._thread.device = device
        return (self._status(),)

    def cudaGetErrorString(self, status: Status) -> tuple[Any, ...]:
        texts = {35: b"CUDA driver version is insufficient for CUDA runtime version", 2: b"out of memory"}
        return Status.cudaSuccess, texts.get(int(status), status.name.encode())

    def cudaPointerGetAttributes(self, address: int) -> tuple[Any, ...]:
        for allocation in self.allocations:
            if allocation.base <= address < allocation.base + max(allocation.size, 1) and not allocation.freed:
                return self._status(), SimpleNamespace(type={"pinned": 1, "device": 2}[allocation.kind], device=allocation.device)
        return self._status(), SimpleNamespace(type=0, device=-1)

    # ------------------------------------------------------------------------------------------------------ memory
    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        with self.lock:
            if status := self._status(unless_recording=True):
                return status, None
            if self.memory_limit is not None and size > self.memory_limit:
                return Status.cudaErrorMemoryAllocation, None
            base, self._next = self._next, self._next + -(-size // GAP) * GAP + GAP
            self.allocations.append(Allocation(base, size, "device", getattr(self._thread, "device", 0), np.full(size, POISON, np.uint8)))
            return Status.cudaSuccess, base

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Any, ...]:
        with self.lock:
            if status := self._status(unless_recording=True):
                return status, None
            data = np.full(size, POISON, np.uint8)
            self.allocations.append(Allocation(data.ctypes.data, size, "pinned", 0, data))
            return Status.cudaSuccess, data.ctypes.data

    def _free(self, address: int, kind: str) -> tuple[Any]:
        with self.lock:
            if status := self._status(unless_recording=True):
                return (status,)
            found = [a for a in self.allocations if a.base == address and a.kind == kind and not a.freed]
            if not found:
                self.violations.append(f"{kind} memory freed that is not there, or twice")
                return (Status.cudaErrorInvalidValue,)
            if any(found[0] in op.touches for stream in (*self.streams.values(), *self._gone) for op in stream.queue):
                self.violations.append(f"{kind} memory was freed while the GPU had yet to use it")
            found[0].freed = True
            found[0].data[:] = POISON
            return (Status.cudaSuccess,)

    def cudaFree(self, address: int) -> tuple[Any]:
        return self._free(address, "device")

    def cudaFreeHost(self, address: int) -> tuple[Any]:
        return self._free(address, "pinned")

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: cudaMemcpyKind, stream: Any) -> tuple[Any]:
        with self.lock:
            if status := self._status():
                return (status,)
            kinds = {1: ("device", "pinned"), 2: ("pinned", "device"), 3: ("device", "device")}[int(kind)]
            try:
                target, origin = self.find(to, size, kinds[0]), self.find(source, size, kinds[1])
            except Fault as error:
                self.violations.append(f"a copy to or from other memory: {error}")
                return (Status.cudaErrorInvalidValue,)
            self.copies[kind] += 1
            there, here = slice(to - target.base, to - target.base + size), slice(source - origin.base, source - origin.base + size)
            if target.kind == "pinned":
                target.data[there] = POISON

            def copy() -> None:
                target.data[there] = origin.data[here]

            self.enqueue(int(stream), Op(copy, (target, origin)))
            return (Status.cudaSuccess,)

    # ------------------------------------------------------------------------------------------------------ streams
    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        with self.lock:
            handle = 0x1000 + 16 * (len(self.streams) + len(self._gone))
            self.streams[handle] = FakeStream(handle, getattr(self._thread, "device", 0))
            return self._status(), self.streams[handle]

    def cudaStreamDestroy(self, stream: Any) -> tuple[Any]:
        with self.lock:
            if int(stream) not in self.streams:
                return (Status.cudaErrorInvalidResourceHandle,)
            self._gone.append(self.streams.pop(int(stream)))  # what is queued there still runs
            return (self._status(),)

    def cudaStreamSynchronize(self, stream: Any) -> tuple[Any]:
        with self.lock:
            queue = self._handle(stream)
            if queue is None:
                return (Status.cudaErrorInvalidResourceHandle,)
            if queue.recording is not None:
                queue.spoiled = True
                return (Status.cudaErrorStreamCaptureUnsupported,)
            while queue.queue:
                self._step(queue)
            return (self._status(),)

    def cudaStreamWaitEvent(self, stream: Any, event: FakeEvent, flags: int) -> tuple[Any]:
        with self.lock:
            if event.point is not None and not event.point.done:
                self.enqueue(int(stream), Op(lambda: None, after=event.point))
            return (self._status(),)

    # ------------------------------------------------------------------------------------------------------ events
    def cudaEventCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        event = FakeEvent()
        self.events.add(event)
        return self._status(), event

    def cudaEventDestroy(self, event: FakeEvent) -> tuple[Any]:
        self.events.discard(event)
        return (self._status(),)

    def cudaEventRecord(self, event: FakeEvent, stream: Any) -> tuple[Any]:
        with self.lock:

            def reach() -> None:
                event.time = self.clock

            event.point, event.stream = Op(reach), int(stream)
            self.enqueue(int(stream), event.point)
            return (self._status(),)

    def cudaEventSynchronize(self, event: FakeEvent) -> tuple[Any]:
        with self.lock:
            if event.point is not None:
                self._run(event.point)
            return (self._status(),)

    def cudaEventElapsedTime(self, start: FakeEvent, end: FakeEvent) -> tuple[Any, ...]:
        return self._status(), end.time - start.time

    # ------------------------------------------------------------------------------------------------------ graphs
    def cudaStreamBeginCapture(self, stream: Any, mode: cudaStreamCaptureMode) -> tuple[Any]:
        with self.lock:
            if int(stream) in (0, 1):
                return (Status.cudaErrorStreamCaptureUnsupported,)
            queue = self.streams[int(stream)]
            queue.recording, queue.recorded_by, queue.spoiled = [], threading.get_ident(), False
            return (self._status(),)

    def cudaStreamEndCapture(self, stream: Any) -> tuple[Any, ...]:
        with self.lock:
            queue = self.streams[int(stream)]
            ops, queue.recording = queue.recording, None
            if queue.spoiled:
                return Status.cudaErrorStreamCaptureInvalidated, None
            graph = FakeGraph(ops or [])
            self.graphs.add(graph)
            return self._status(), graph

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, ...]:
        executable = FakeGraph(list(graph.ops))
        self.graphs.add(executable)
        return self._status(), executable

    def cudaGraphLaunch(self, executable: Any, stream: Any) -> tuple[Any]:
        with self.lock:
            self.launches += 1
            for op in executable.ops:
                self.enqueue(int(stream), Op(op.run, op.touches, op.after))
            return (self._status(),)

    def cudaGraphDestroy(self, graph: Any) -> tuple[Any]:
        self.graphs.discard(graph)
        return (self._status(),)

    def cudaGraphExecDestroy(self, executable: Any) -> tuple[Any]:
        self.graphs.discard(executable)
        return (self._status(),)


def host_bytes(address: int, size: int) -> bytes:
    """What the host sees at an address."""
    return ctypes.string_at(address, size)
