"""The checks of the engine runner fire: each planted bug makes the ones named beside it fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploydcn.errors import RuntimeFailure
from deploydcn.runners import engine_runner, engine_slot
from deploydcn.runners.cuda_memory import Cuda, Event
from deploydcn.runners.device_arrays import DeviceArray
from deploydcn.runners.engine_info import EngineInfo
from deploydcn.runners.engine_runner import _Pool
from deploydcn.runners.engine_slot import Slot, _Memory
from tests.runners import engine_checks as checks
from tests.runners.fake_cuda import Fault
from tests.runners.fake_tensorrt import Crash
from tests.runners.machine import Machine, install

Patch = pytest.MonkeyPatch


def wrong_dtype(patch: Patch) -> None:
    """float64 where the engine reads float32."""
    patch.setattr(engine_runner, "check_tensor", lambda *_, **__: None)
    patch.setattr(engine_runner, "contiguous", lambda array: np.ascontiguousarray(array, np.float64))


def narrow_dtype(patch: Patch) -> None:
    patch.setattr(engine_runner, "contiguous", lambda array: np.ascontiguousarray(array, np.float16))


def wrong_output_dtype(patch: Patch) -> None:
    real = EngineInfo.dtype
    patch.setattr(EngineInfo, "dtype", lambda info, name: np.dtype(np.float16) if real(info, name).itemsize == 2 else real(info, name))


def stale_shape(patch: Patch) -> None:
    """Shapes are set at a context's first run only."""
    real = Slot._set_inputs

    def set_inputs(slot: Slot, shapes: Any, addresses: Any, profile: int, stream: int) -> None:
        slot.__dict__.setdefault("first", shapes)
        real(slot, slot.__dict__["first"], addresses, profile, stream)

    patch.setattr(Slot, "_set_inputs", set_inputs)


def no_synchronisation(patch: Patch) -> None:
    real = Slot.end
    patch.setattr(Slot, "end", lambda slot, stream, *, wait: real(slot, stream, wait=False))


def synchronised_the_wrong_stream(patch: Patch) -> None:
    real = Cuda.call
    patch.setattr(Cuda, "call", lambda cuda, name, *rest: real(cuda, name, *((0,) if name == "cudaStreamSynchronize" else rest)))


def producer_not_waited_for(patch: Patch) -> None:
    patch.setattr(engine_slot, "order", lambda *_: None)


def runs_of_a_context_not_ordered(patch: Patch) -> None:
    patch.setattr(Event, "order_before", lambda *_: None)


def pinned_memory_written_too_early(patch: Patch) -> None:
    patch.setattr(Event, "synchronize", lambda *_: None)


def freed_early(patch: Patch) -> None:
    """An output's memory goes back while the caller holds it."""
    real = Slot.fetch_on_device

    def fetch(slot: Slot, name: str, stream: int, *, pending: Any) -> DeviceArray | None:
        array = real(slot, name, stream, pending=pending)
        if array is not None:
            array._buffer.close()
        return array

    patch.setattr(Slot, "fetch_on_device", fetch)


def grown_without_waiting(patch: Patch) -> None:
    real = _Memory.__init__
    patch.setattr(_Memory, "__init__", lambda memory, cuda, settle: real(memory, cuda, lambda: None))


def results_share_memory(patch: Patch) -> None:
    """A result is a view of the pinned buffer."""

    class View(np.ndarray):
        def copy(self, *_: Any) -> Any:
            return self.view(np.ndarray)

    real = Slot.fetch_to_host
    patch.setattr(Slot, "fetch_to_host", lambda slot, name, stream: real(slot, name, stream).view(View))


def outputs_not_snapshots(patch: Patch) -> None:
    """A DeviceArray is the context's own buffer, which the next run writes to."""
    real = Slot.fetch_on_device

    def fetch(slot: Slot, name: str, stream: int, *, pending: Any) -> DeviceArray | None:
        kept = dict(slot._memory.device)
        array = real(slot, name, stream, pending=pending)
        slot._memory.device.update(kept)
        return array

    patch.setattr(Slot, "fetch_on_device", fetch)


def profile_not_switched(patch: Patch) -> None:
    patch.setattr(EngineInfo, "profile_for", lambda *_: 0)


def one_context_for_all_threads(patch: Patch) -> None:
    real = _Pool._take

    def take(pool: _Pool, key: Any) -> Slot:
        slots = pool.__dict__.setdefault("shared", [])
        if not slots:
            slots.append(real(pool, key))
        return slots[0]

    patch.setattr(_Pool, "_take", take)
    patch.setattr(_Pool, "_put_back", lambda *_: None)
    patch.setattr(_Pool, "_drop", lambda *_: None)
    patch.setattr(_Pool, "close", lambda *_: None)


def graphs_mixed_up(patch: Patch) -> None:
    """A graph is replayed whatever the shapes."""
    real = _Pool.borrow
    patch.setattr(_Pool, "borrow", lambda pool, key: real(pool, None))


def graph_reads_the_first_callers_memory(patch: Patch) -> None:
    patch.setattr(Slot, "_read_in_place", lambda slot, feed: not isinstance(feed, np.ndarray))


def never_recorded(patch: Patch) -> None:
    real = Slot.__init__
    patch.setattr(Slot, "__init__", lambda slot, loaded, info, *, record_graph: real(slot, loaded, info, record_graph=False))


def device_inputs_through_the_host(patch: Patch) -> None:
    patch.setattr(Slot, "_read_in_place", lambda slot, feed: False)


def alignment_ignored(patch: Patch) -> None:
    patch.setattr(engine_slot, "ALIGNMENT", 1)


def target_ignored(patch: Patch) -> None:
    real = Slot.begin
    patch.setattr(Slot, "begin", lambda slot, feeds, targets, profile, stream: real(slot, feeds, {}, profile, stream))


def old_output_of_the_allocator(patch: Patch) -> None:
    """The shape of the first run stands for those of later ones."""
    real = Slot._shape

    def shape(slot: Slot, name: str) -> tuple[int, ...]:
        shapes = slot.__dict__.setdefault("shapes", {})
        return shapes.setdefault(name, real(slot, name))  # type: ignore[no-any-return]

    patch.setattr(Slot, "_shape", shape)


def waits_on_the_callers_stream_at_the_end(patch: Patch) -> None:
    """A stream that the caller may have destroyed by then."""
    real = Slot.close

    def close(slot: Slot) -> None:
        slot._cuda.call("cudaStreamSynchronize", slot._last_stream)
        real(slot)

    patch.setattr(Slot, "close", close)


PLANTED: dict[Callable[[Patch], None], tuple[Callable[[Machine], None], ...]] = {
    wrong_dtype: (checks.several_shapes_in_sequence, checks.mixed_types, checks.threads_share_a_runner),
    narrow_dtype: (checks.several_shapes_in_sequence, checks.mixed_types),
    wrong_output_dtype: (checks.mixed_types,),
    stale_shape: (checks.several_shapes_in_sequence, checks.profiles_are_chosen_by_shape, checks.threads_share_a_runner),
    no_synchronisation: (
        checks.several_shapes_in_sequence,
        checks.mixed_types,
        checks.threads_share_a_runner,
        checks.device_results_are_snapshots,
        checks.graphs_are_recorded_once_per_shape,
    ),
    synchronised_the_wrong_stream: (checks.several_shapes_in_sequence, checks.graphs_and_threads),
    producer_not_waited_for: (checks.device_arrays_without_copies,),
    runs_of_a_context_not_ordered: (checks.a_stream_of_the_callers_is_not_waited_for,),
    pinned_memory_written_too_early: (checks.host_arrays_on_the_callers_stream,),
    freed_early: (checks.device_arrays_without_copies, checks.device_results_are_snapshots),
    grown_without_waiting: (checks.misaligned_inputs_that_grow,),
    results_share_memory: (checks.results_are_the_callers,),
    outputs_not_snapshots: (checks.device_results_are_snapshots,),
    profile_not_switched: (checks.profiles_are_chosen_by_shape,),
    one_context_for_all_threads: (checks.threads_share_a_runner, checks.graphs_and_threads),
    graphs_mixed_up: (checks.graphs_are_recorded_once_per_shape, checks.graphs_of_many_shapes_are_forgotten),
    graph_reads_the_first_callers_memory: (checks.graphs_are_recorded_once_per_shape,),
    never_recorded: (checks.graphs_are_recorded_once_per_shape,),
    device_inputs_through_the_host: (checks.device_arrays_without_copies,),
    alignment_ignored: (checks.misaligned_inputs_are_copied,),
    target_ignored: (checks.outputs_into_given_memory,),
    old_output_of_the_allocator: (checks.shapes_that_depend_on_data,),
    waits_on_the_callers_stream_at_the_end: (checks.the_callers_stream_may_go,),
}


def rows() -> Iterator[object]:
    for plant, failing in PLANTED.items():
        for check in failing:
            yield pytest.param(plant, check, id=f"{plant.__name__}-{check.__name__}")


@pytest.mark.parametrize(("plant", "check"), rows())
def test_the_check_fires(monkeypatch: Patch, tmp_path: Path, plant: Callable[[Patch], None], check: Callable[[Machine], None]) -> None:
    machine = install(monkeypatch, tmp_path)
    plant(monkeypatch)
    with pytest.raises((AssertionError, Crash, Fault, ValueError, RuntimeFailure)):
        check(machine)


def test_every_check_is_known_to_fire() -> None:
    assert {check for failing in PLANTED.values() for check in failing} == set(checks.CHECKS)
