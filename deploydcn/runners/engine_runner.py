"""TensorRT and TensorRT-RTX engines."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploydcn.errors import InvalidArgument
from deploydcn.runners.base import Inputs, TensorInfo, as_array, check_tensor, contiguous, named_inputs
from deploydcn.runners.cuda_memory import ALIGNMENT
from deploydcn.runners.device_arrays import DeviceView, device_view, numpy_dtype, stream_handle
from deploydcn.runners.engine_info import EngineInfo, Range
from deploydcn.runners.engine_slot import Feed, Slot
from deploydcn.runners.tensorrt_api import load_engine
from deploydcn.tensorrt_runtimes import RUNTIMES


class EngineRunner:
    """An engine on a GPU. Several threads may call `run` at once: each run has an execution context of its own.

    Inputs are host arrays, or arrays in GPU memory of any library (see device_arrays), which are read in place if their address
    is a multiple of 256, as allocators make them, and copied on the GPU otherwise.

    Args:
        path: the engine file.
        backend: "tensorrt" or "tensorrt-rtx", whichever built it.
        device: index of the GPU; the current one when None.
        contexts: how many runs can be under way at once; further ones wait. Each context holds GPU memory for the engine's
            intermediate results, from when it is first needed.
        cuda_graph: record the work of each set of input shapes in a CUDA graph at its second run, and launch that from then on: less
            work for the host. Inputs and outputs are copied on the GPU then; the `contexts` last used shapes are kept.
        plugins: further plugin libraries; deploydcn's own is found by itself.
        allow_code: let the engine run code it brings along (plugins stored in it): for files you trust.

    Raises:
        InvalidModel: not an engine, or one of another version.
        RuntimeFailure: no usable GPU, a missing plugin, or TensorRT refuses.
        MissingDependency: TensorRT or cuda-bindings are not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        backend: str = "tensorrt",
        device: int | None = None,
        contexts: int = 2,
        cuda_graph: bool = False,
        plugins: Sequence[str | os.PathLike[str]] = (),
        allow_code: bool = False,
    ) -> None:
        if backend not in RUNTIMES:
            raise InvalidArgument(f"backend is {backend!r}; wanted one of {', '.join(RUNTIMES)}")
        if not isinstance(path, str | os.PathLike):
            raise InvalidArgument(f"got a {type(path).__name__}; wanted the path of an engine file")
        if not isinstance(contexts, int) or isinstance(contexts, bool) or contexts < 1:
            raise InvalidArgument(f"contexts is {contexts!r}; wanted a whole number, 1 or more")
        loaded = load_engine(
            RUNTIMES[backend], Path(path), device=device, plugins=[Path(plugin) for plugin in plugins], allow_code=allow_code
        )
        info = EngineInfo.of(loaded)
        self.name, self.inputs, self.outputs = loaded.label, info.inputs, info.outputs
        self._cuda, self._info, self._graph = loaded.cuda, info, cuda_graph
        self._slots = _Pool(lambda: Slot(loaded, info, record_graph=cuda_graph), contexts)
        # A runner that is forgotten waits for what the GPU still does with its memory; at exit nobody is left to care.
        weakref.finalize(self, self._slots.close).atexit = False

    @property
    def profiles(self) -> tuple[Mapping[str, Range], ...]:
        """Per optimization profile, smallest, optimal and largest shape of every dynamic input."""
        return self._info.profiles

    def run(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """See Runner.run. Arrays in GPU memory may be among the inputs; bfloat16 outputs have ml_dtypes' type."""
        with self._run(inputs, {}, None) as (slot, stream):
            arrays = {info.name: slot.fetch_to_host(info.name, stream) for info in self.outputs}
            slot.end(stream, wait=True)
            return {name: array.copy() for name, array in arrays.items()}

    def run_on_device(self, inputs: Inputs, *, out: Mapping[str, Any] | None = None, stream: Any = None) -> dict[str, Any]:
        """Run once, and leave the outputs in GPU memory.

        Args:
            inputs: as for `run`.
            out: arrays in GPU memory to write outputs to, by name; they are returned as they are. The other outputs become
                new DeviceArrays.
            stream: a CUDA stream of torch, CuPy, pycuda or cuda-bindings, or its handle. The work is enqueued there, and this returns
                before it is done: inputs must be kept, and not be changed, until then. None: a stream of our own; this returns when
                the outputs are complete.

        Raises:
            InvalidArgument: inputs or arrays in `out` do not fit; the message names the tensor.
            RuntimeFailure: TensorRT or CUDA failed; with `stream`, a failure on the GPU shows in a later call.
        """
        handle = None if stream is None else stream_handle(stream)
        arrays = dict(out or {})
        with self._run(inputs, arrays, handle) as (slot, used):
            for info in self.outputs:
                array = slot.fetch_on_device(info.name, used, pending=stream)
                if array is not None:
                    arrays[info.name] = array
            slot.end(used, wait=handle is None)
        return {info.name: arrays[info.name] for info in self.outputs}

    def close(self) -> None:
        """Free the contexts and their memory, once no run is under way; DeviceArrays stay valid. Without it, that is left to Python."""
        self._slots.close()

    def __enter__(self) -> EngineRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _run(self, inputs: Inputs, out: Mapping[str, Any], handle: int | None) -> Iterator[tuple[Slot, int]]:
        """A slot in which the engine was enqueued, and the stream it was enqueued on."""
        self._cuda.activate()
        named = named_inputs(self.inputs, inputs)
        feeds = {info.name: self._feed(info, named[info.name]) for info in self.inputs}
        known = {info.name: info for info in self.outputs}
        for name in out:
            if name not in known:
                raise InvalidArgument(f"no output named {name!r}; the engine gives {', '.join(map(str, self.outputs))}")
        targets = {name: self._target(known[name], value) for name, value in out.items()}
        shapes = {name: feed.shape for name, feed in feeds.items()}
        profile = self._info.profile_for(shapes)
        with self._slots.borrow(tuple(shapes.values()) if self._graph else None) as slot:
            stream = slot.stream.handle if handle is None else handle
            slot.begin(feeds, targets, profile, stream)
            yield slot, stream

    def _feed(self, info: TensorInfo, value: Any) -> Feed:
        view = device_view(self._cuda, value, f"input {info.name!r}")
        if view is not None:
            check_tensor(info, view.dtype, view.shape)
            return view
        array = _host_array(info, value)
        check_tensor(info, array.dtype.name, array.shape)
        return contiguous(array)

    def _target(self, info: TensorInfo, value: Any) -> DeviceView:
        label = f"the array in `out` for {info.name!r}"
        view = device_view(self._cuda, value, label)
        if view is None:
            raise InvalidArgument(
                f"{label} is a {type(value).__name__} in host memory; wanted one in GPU memory; `run` returns host arrays"
            )
        check_tensor(info, view.dtype, view.shape, kind="output")
        if view.address % ALIGNMENT:
            raise InvalidArgument(
                f"{label} begins at address {view.address:#x}; wanted a multiple of {ALIGNMENT}: no part of a larger array"
            )
        return view


def _host_array(info: TensorInfo, value: Any) -> np.ndarray:
    """As for other runners, where bfloat16 tensors of torch become float32; here they may stay what they are."""
    if info.dtype == "bfloat16" and str(getattr(value, "dtype", "")) == "torch.bfloat16":
        torch = sys.modules["torch"]
        return np.asarray(value.detach().cpu().contiguous().view(torch.int16).numpy().view(numpy_dtype("bfloat16")))
    return as_array(value)


class _Pool:
    """At most `limit` slots, made when needed. A slot is asked for by key, and used again for that key only."""

    def __init__(self, make: Callable[[], Slot], limit: int) -> None:
        self._make, self._limit = make, limit
        self._idle: list[tuple[Hashable, Slot]] = []  # the longest unused first
        self._count = 0
        self._closed = False
        self._making = threading.Lock()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def borrow(self, key: Hashable) -> Iterator[Slot]:
        """A slot for this thread alone. One whose run failed half way is thrown away."""
        slot = self._take(key)
        try:
            yield slot
        except InvalidArgument:  # nothing was enqueued
            self._put_back(key, slot)
            raise
        except BaseException:
            self._drop(slot)
            raise
        self._put_back(key, slot)

    def _put_back(self, key: Hashable, slot: Slot) -> None:
        with self._changed:
            self._idle.append((key, slot))
            self._changed.notify()

    def _take(self, key: Hashable) -> Slot:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._idle or self._count < self._limit)
            if self._closed:
                raise InvalidArgument("this runner is closed; load the engine again")
            of_key = [index for index, (used_for, _) in enumerate(self._idle) if used_for == key]
            if of_key:
                return self._idle.pop(of_key[-1])[1]
            if self._count >= self._limit:
                self._idle.pop(0)[1].close()
            else:
                self._count += 1
        try:
            with self._making:  # TensorRT promises nothing for several threads at once
                return self._make()
        except BaseException:
            with self._changed:
                self._count -= 1
                self._changed.notify()
            raise

    def _drop(self, slot: Slot) -> None:
        slot.close()
        with self._changed:
            self._count -= 1
            self._changed.notify()

    def close(self) -> None:
        """Wait for the runs under way, then close every slot."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._idle) == self._count)
            while self._idle:
                _, slot = self._idle.pop()
                self._count -= 1
                slot.close()
