"""One run of an engine: a TensorRT execution context, with the memory, the stream and the CUDA graph that go with it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from deploydcn.errors import InvalidArgument, RuntimeFailure
from deploydcn.runners.cuda_memory import ALIGNMENT, Cuda, DeviceBuffer, Event, Graph, PinnedBuffer, Stream
from deploydcn.runners.device_arrays import DeviceArray, DeviceView, order
from deploydcn.runners.engine_info import EngineInfo, Shape
from deploydcn.runners.tensorrt_api import LoadedEngine, create_context, journal_of, output_allocator

Feed = np.ndarray | DeviceView
Buffer = TypeVar("Buffer", DeviceBuffer, PinnedBuffer)


class _Memory:
    """Buffers by tensor name; each grows to the largest size asked for. settle: waits until the GPU is done with them."""

    def __init__(self, cuda: Cuda, settle: Callable[[], None]) -> None:
        self._cuda, self._settle = cuda, settle
        self.device: dict[str, DeviceBuffer] = {}
        self.pinned: dict[str, PinnedBuffer] = {}

    def on_device(self, name: str, size: int) -> DeviceBuffer:
        return self._sized(self.device, DeviceBuffer, name, size)

    def on_host(self, name: str, size: int) -> PinnedBuffer:
        return self._sized(self.pinned, PinnedBuffer, name, size)

    def _sized(self, buffers: dict[str, Buffer], kind: Callable[[Cuda, int], Buffer], name: str, size: int) -> Buffer:
        if name in buffers and buffers[name].size < size:
            self._settle()
            buffers.pop(name).close()
        if name not in buffers:
            buffers[name] = kind(self._cuda, size)
        return buffers[name]


class Slot:
    """An execution context and its memory, for one run at a time, and with record_graph for one set of input shapes.

    A run is `begin`, a fetch of every output, `end`. The next run's work, on whatever stream, is put behind this one's.
    """

    def __init__(self, loaded: LoadedEngine, info: EngineInfo, *, record_graph: bool) -> None:
        self._loaded, self._cuda, self._info = loaded, loaded.cuda, info
        self._context = create_context(loaded, graph=record_graph)
        self._record_graph = record_graph
        self._graph: Graph | None = None
        self._done = Event(loaded.cuda)
        self._memory = _Memory(loaded.cuda, self._done.synchronize)
        self._allocators: dict[str, Any] = {}
        self._targets: Mapping[str, DeviceView] = {}
        self._held: tuple[Feed, ...] = ()
        self._ran = self._under_way = False
        self._mark = 0
        self.stream = Stream(loaded.cuda)
        self._last_stream = self.stream.handle

    def begin(self, feeds: Mapping[str, Feed], targets: Mapping[str, DeviceView], profile: int, stream: int) -> None:
        """Enqueue copies of host arrays, and the engine. targets: memory of the caller's to write outputs to.

        Raises:
            InvalidArgument: a target does not fit; nothing is enqueued then.
            RuntimeFailure: TensorRT or CUDA failed.
        """
        self._mark = journal_of(self._loaded.trt).mark()
        if any(isinstance(feed, np.ndarray) for feed in feeds.values()):
            self._done.synchronize()  # pinned memory is about to be written; the last run may still be read from it
        self._done.order_before(stream)
        self._targets, self._last_stream, self._held = targets, stream, (*feeds.values(), *targets.values())
        replay = self._record_graph and self._ran
        addresses = {name: self._input_address(name, feed) for name, feed in feeds.items()}
        if not replay:
            self._set_inputs({name: feed.shape for name, feed in feeds.items()}, addresses, profile, stream)
        self._set_outputs(new=not replay)
        self._under_way = True
        for view in self._held:
            if isinstance(view, DeviceView) and view.stream is not None:
                order(self._cuda, view.stream, stream)
        for name, feed in feeds.items():
            self._copy_in(name, feed, addresses[name], stream)
        if replay:
            self._recorded().launch(stream)
        else:
            self._execute(stream)
        self._ran = True

    def fetch_to_host(self, name: str, stream: int) -> np.ndarray:
        """Enqueue the copy of an output to host memory. The array is complete when `stream` is, and valid until the next run."""
        size, shape = self._size(name), self._shape(name)
        pinned = self._memory.on_host(name, size)
        self._cuda.copy_to_host(pinned.address, self._output(name).address, size, stream)
        return pinned.array(shape, self._info.dtype(name))

    def fetch_on_device(self, name: str, stream: int, *, pending: Any) -> DeviceArray | None:
        """An output in GPU memory of its own; None where it goes to a target. pending: the stream a consumer has to wait for, or None."""
        target, own = self._targets.get(name), None
        if self._record_graph:  # a graph's addresses are fixed: the caller gets a copy
            if target is None:
                own = DeviceBuffer(self._cuda, self._size(name))
            to = own.address if own else self._targets[name].address
            self._cuda.copy_on_device(to, self._output(name).address, self._size(name), stream)
        elif target is None:
            own = self._output(name)
            self._memory.device.pop(name, None)
        return None if own is None else DeviceArray(self._cuda, own, self._shape(name), self._info.dtype(name), pending)

    def end(self, stream: int, *, wait: bool) -> None:
        """Mark the end of the run's work. wait: until the GPU has done it.

        Raises:
            RuntimeFailure: the GPU reports an error.
        """
        self._done.record(stream)
        self._under_way = False
        if wait:
            self._cuda.call("cudaStreamSynchronize", stream)
            self._held = ()

    def close(self) -> None:
        """Free everything, once the GPU is done with it."""
        with contextlib.suppress(RuntimeFailure):
            self._cuda.activate()
            if self._under_way:  # it failed half way; a caller's stream may be used during a run only
                self._cuda.call("cudaStreamSynchronize", self._last_stream)
            self._done.synchronize()
        self._context = None
        for owned in (self._graph, *self._memory.device.values(), *self._memory.pinned.values(), self._done, self.stream):
            if owned is not None:
                owned.close()

    # ---------------------------------------------------------------------------------------------------------------- inputs
    def _read_in_place(self, feed: Feed) -> bool:
        return isinstance(feed, DeviceView) and feed.address != 0 and feed.address % ALIGNMENT == 0 and not self._record_graph

    def _input_address(self, name: str, feed: Feed) -> int:
        """Where the engine reads an input: the caller's GPU memory itself where that can be, else memory of ours."""
        if isinstance(feed, DeviceView) and self._read_in_place(feed):
            return feed.address
        return self._memory.on_device(name, feed.nbytes).address

    def _copy_in(self, name: str, feed: Feed, address: int, stream: int) -> None:
        if isinstance(feed, np.ndarray):
            pinned = self._memory.on_host(name, feed.nbytes)
            pinned.array(feed.shape, feed.dtype)[...] = feed
            self._cuda.copy_to_device(address, pinned.address, feed.nbytes, stream)
        elif not self._read_in_place(feed):
            self._cuda.copy_on_device(address, feed.address, feed.nbytes, stream)

    def _set_inputs(self, shapes: Mapping[str, Shape], addresses: Mapping[str, int], profile: int, stream: int) -> None:
        if self._context.active_optimization_profile != profile:
            self._check(self._context.set_optimization_profile_async(profile, stream), f"profile {profile + 1}")
        for name, shape in shapes.items():
            self._check(self._context.set_input_shape(name, shape), f"input {name!r} of shape {list(shape)}")
            self._check(self._context.set_tensor_address(name, addresses[name]), f"the memory of input {name!r}")
        try:
            missing = self._context.infer_shapes()
        except RuntimeError as error:
            raise RuntimeFailure(f"{self._loaded.label} refuses these input shapes: {self._reason()} ({error})") from error
        if missing:
            raise RuntimeFailure(f"{self._loaded.label} still wants to know {', '.join(missing)}; report it with the engine")

    # --------------------------------------------------------------------------------------------------------------- outputs
    def _set_outputs(self, *, new: bool) -> None:
        """Check the targets; new: and say where outputs go."""
        for info in self._info.outputs:
            shape, target = tuple(self._context.get_tensor_shape(info.name)), self._targets.get(info.name)
            if -1 in shape:
                self._set_allocator(info.name)
                continue
            if target is not None and target.shape != shape:
                raise InvalidArgument(
                    f"output {info.name!r} has shape {list(shape)} for these inputs; wanted an array of that shape in `out`, "
                    f"got {list(target.shape)}"
                )
            if new:
                size = math.prod(shape) * self._info.dtype(info.name).itemsize
                own = target is None or self._record_graph
                address = self._memory.on_device(info.name, size).address if own or target is None else target.address
                self._check(self._context.set_tensor_address(info.name, address), f"the memory of output {info.name!r}")

    def _set_allocator(self, name: str) -> None:
        refused = "an array in `out`" if name in self._targets else "cuda_graph" if self._record_graph else ""
        if refused:
            raise InvalidArgument(f"the shape of output {name!r} depends on the data, which {refused} does not allow; leave that out")
        if name not in self._allocators:  # one for the life of the context, which keeps it
            self._allocators[name] = output_allocator(self._loaded)
            self._check(self._context.set_output_allocator(name, self._allocators[name]), f"the allocator of output {name!r}")
        self._allocators[name].buffer, self._allocators[name].shape = None, ()

    def _shape(self, name: str) -> Shape:
        allocator = self._allocators.get(name)
        return tuple(allocator.shape if allocator else self._context.get_tensor_shape(name))

    def _size(self, name: str) -> int:
        return math.prod(self._shape(name)) * self._info.dtype(name).itemsize

    def _output(self, name: str) -> DeviceBuffer:
        allocator = self._allocators.get(name)
        if allocator is None:
            return self._memory.device[name]
        return allocator.buffer or DeviceBuffer(self._cuda, 0)

    # ------------------------------------------------------------------------------------------------------------- execution
    def _execute(self, stream: int) -> None:
        self._check(self._context.execute_async_v3(stream), "the run")
        for name, allocator in self._allocators.items():
            self._check(allocator.buffer is not None or 0 in allocator.shape, f"memory for output {name!r}")

    def _recorded(self) -> Graph:
        """The run as a graph, recorded after the first one: that has made TensorRT finish what it puts off."""
        if self._graph is None:
            self._done.synchronize()
            try:
                self._graph = Graph(self._cuda, self.stream.handle, lambda: self._execute(self.stream.handle))
            except RuntimeFailure as error:
                raise RuntimeFailure(
                    f"{self._loaded.label} cannot be recorded as a CUDA graph: {error}; load it without cuda_graph"
                ) from error
        return self._graph

    def _check(self, succeeded: bool, what: str) -> None:
        """Turn a False of TensorRT into its reason."""
        if not succeeded:
            raise RuntimeFailure(f"{self._loaded.label} refuses {what}: {self._reason()}")

    def _reason(self) -> str:
        return journal_of(self._loaded.trt).since(self._mark) or "it gives no reason"
