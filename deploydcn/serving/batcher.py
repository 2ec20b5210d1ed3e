"""A bounded queue in front of a model: requests that fit together run together."""

from __future__ import annotations

import asyncio
import collections
import itertools
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from deploydcn.errors import RuntimeFailure, UserError
from deploydcn.serving.refusal import Refusal
from deploydcn.serving.statistics import Statistics

Arrays = Mapping[str, np.ndarray]
Run = Callable[[Arrays], Arrays]


@dataclass(frozen=True)
class BatchLimits:
    """How requests queue and batch.

    size: of a batch at most, along the first axis of every tensor; 0 runs each request by itself.
    delay: seconds that a request waits for others while a runner is free. 0: whatever came while the runners were busy runs together.
    queue: requests that wait at most; further ones are refused.
    """

    size: int = 8
    delay: float = 0.0
    queue: int = 256


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request in the queue. size: along the batch axis; 1 where there is none."""

    inputs: Arrays
    size: int
    shape: tuple[tuple[int, ...], ...]  # requests of equal shape, the batch axis aside, can run together
    done: asyncio.Future[Arrays]
    since: int


@dataclass(frozen=True, slots=True)
class _Ran:
    """What a run gave each of its requests, in their order, and nanoseconds of joining, running and splitting."""

    results: list[Arrays | Exception]
    phases: tuple[int, int, int]


class Batcher:
    """Runs requests on `runners` threads. All methods but the threads' work belong to the event loop's thread.

    run: the model; called by several threads at once if `runners` is above 1.

    joins: whether requests may run together at all; may be set from any thread.
    """

    def __init__(self, run: Run, limits: BatchLimits, statistics: Statistics, *, runners: int = 1) -> None:
        self._run, self._limits, self._statistics = run, limits, statistics
        self.joins = limits.size > 0
        self._waiting: collections.deque[_Waiting] = collections.deque()
        self._threads = ThreadPoolExecutor(runners, thread_name_prefix="deploydcn-run")
        self._free = runners
        self._running = 0
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def depth(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    async def infer(self, inputs: Arrays, timeout: float) -> Arrays:
        """The outputs for checked inputs.

        Raises:
            Refusal: the queue is full (503), the time is over (504), or the model fails on these inputs.
        """
        statistics, since = self._statistics, time.perf_counter_ns()
        if len(self._waiting) >= self._limits.queue:
            statistics.rejected += 1
            raise Refusal(f"{len(self._waiting)} requests wait already; try again", 503, retry_after=1)
        size = next(iter(inputs.values())).shape[0] if self._limits.size else 1
        shape = tuple(array.shape[1:] for array in inputs.values()) if self._limits.size else ()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Arrays] = loop.create_future()
        item = _Waiting(inputs, size, shape, done, since)
        self._waiting.append(item)
        self._idle.clear()
        expiry = loop.call_later(timeout, _expire, done, timeout)
        self._start()
        try:
            outputs = await done
        except BaseException:
            done.cancel()  # where the client has left
            statistics.failed(time.perf_counter_ns() - since)
            if item in self._waiting:  # its time is over, or its client left: others can have its place
                self._waiting.remove(item)
                self._start()
            raise
        finally:
            expiry.cancel()
        statistics.answered(time.perf_counter_ns() - since)
        return outputs

    async def drain(self) -> None:
        """Wait until nothing waits or runs, then end the threads."""
        await self._idle.wait()
        self._threads.shutdown(wait=False)

    def _start(self) -> None:
        """Give free runners work."""
        while self._free and (batch := self._next_batch()):
            self._free -= 1
            self._running += 1
            started = time.perf_counter_ns()
            future = asyncio.get_running_loop().run_in_executor(self._threads, self._work, [item.inputs for item in batch])
            future.add_done_callback(lambda future, batch=batch, started=started: self._finish(future, batch, started))  # type: ignore[misc]
        if not self._waiting and not self._running:
            self._idle.set()

    def _next_batch(self) -> list[_Waiting]:
        """The first in the queue and what fits to it; nothing while it may wait for more."""
        waiting, limits = self._waiting, self._limits
        while waiting and waiting[0].done.done():
            waiting.popleft()  # expired, or its client left
        if not waiting:
            return []
        if limits.delay and self.joins and self._must_wait():
            return []
        batch = [waiting.popleft()]
        size = batch[0].size
        while waiting and self.joins:
            following = waiting[0]
            if following.done.done():
                waiting.popleft()
                continue
            if following.shape != batch[0].shape or size + following.size > limits.size:
                break
            batch.append(waiting.popleft())
            size += following.size
        return batch

    def _must_wait(self) -> bool:
        """Whether the queue holds less than a batch, and its first request has waited less than the delay; sets the timer then."""
        remaining = self._limits.delay - (time.perf_counter_ns() - self._waiting[0].since) / 1e9
        if remaining <= 0 or sum(item.size for item in self._waiting) >= self._limits.size:
            return False
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(remaining, self._end_delay)
        return True

    def _end_delay(self) -> None:
        self._timer = None
        self._start()

    def _work(self, batch: list[Arrays]) -> list[_Ran]:
        """On a thread: join, run, split. Where a batch fails, each of its requests runs by itself: one cannot spoil the others."""
        begin = time.perf_counter_ns()
        try:
            inputs = batch[0] if len(batch) == 1 else {name: np.concatenate([item[name] for item in batch]) for name in batch[0]}
            joined = time.perf_counter_ns()
            outputs = self._run(inputs)
            ran = time.perf_counter_ns()
            results: list[Arrays | Exception] = (
                [outputs] if len(batch) == 1 else _split(outputs, [next(iter(item.values())).shape[0] for item in batch])
            )
        except Exception as error:
            return [_Ran([error], (0, 0, 0))] if len(batch) == 1 else [ran for item in batch for ran in self._work([item])]
        return [_Ran(results, (joined - begin, ran - joined, time.perf_counter_ns() - ran))]

    def _finish(self, future: asyncio.Future[list[_Ran]], batch: list[_Waiting], started: int) -> None:
        self._free += 1
        self._running -= 1
        following = iter(batch)
        for ran in future.result():
            items = list(itertools.islice(following, len(ran.results)))
            if not isinstance(ran.results[0], Exception):
                self._statistics.ran([started - item.since for item in items], sum(item.size for item in items), ran.phases)
            for item, result in zip(items, ran.results, strict=True):
                if item.done.done():
                    continue
                if isinstance(result, Exception):
                    item.done.set_exception(_as_refusal(result))
                else:
                    item.done.set_result(result)
        self._start()


def _split(outputs: Arrays, sizes: list[int]) -> list[Arrays | Exception]:
    """The rows of each request.

    Raises:
        RuntimeFailure: an output has other than a row for each of the inputs'.
    """
    ends = np.cumsum(sizes).tolist()
    for name, array in outputs.items():
        if array.shape[:1] != (ends[-1],):
            raise RuntimeFailure(f"output {name!r} has shape {list(array.shape)} for a batch of {ends[-1]}")
    return [{name: array[end - size : end] for name, array in outputs.items()} for size, end in zip(sizes, ends, strict=True)]


def _expire(done: asyncio.Future[Arrays], timeout: float) -> None:
    if not done.done():
        done.set_exception(Refusal(f"not answered within {timeout:g} s", 504))


def _as_refusal(error: Exception) -> Exception:
    """What a client is told. A model that a user gave may fail on what a client sent; other exceptions are ours."""
    return Refusal(str(error), 500) if isinstance(error, UserError) else error
