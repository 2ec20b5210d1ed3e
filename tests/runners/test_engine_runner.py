"""The engine runner on a fake GPU and a fake TensorRT: every promise of engine_checks, and what happens at the ends of a runner's life."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import deploydcn
from deploydcn.errors import RuntimeFailure
from deploydcn.runners import dlpack
from deploydcn.runners.base import Runner
from deploydcn.runners.engine_slot import Slot
from tests.runners.engine_checks import CHECKS
from tests.runners.fake_tensorrt import FakeTensorRT
from tests.runners.machine import InterfaceArray, Machine, doubled, images, install, torch_tensor


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return install(monkeypatch, tmp_path)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_promise(machine: Machine, check: Callable[[Machine], None]) -> None:
    check(machine)


def test_it_is_a_runner(machine: Machine) -> None:
    runner = machine.load()
    assert isinstance(runner, Runner)
    assert runner.name == "tensorrt 10.16.1 (m.engine)"
    assert [str(info) for info in (*runner.inputs, *runner.outputs)] == ["x: float32[?x3x?x?]", "y: float32[?x3x?x?]"]


@pytest.mark.slow
@pytest.mark.parametrize("explicitly", [True, False])
@pytest.mark.parametrize("options", [{}, {"cuda_graph": True}], ids=["plain", "graph"])
def test_everything_is_released(machine: Machine, options: dict[str, bool], explicitly: bool) -> None:
    runner = machine.load(**options)
    results = []
    for x in images((1, 3, 4, 4), (1, 3, 4, 4), (4, 3, 16, 16)):
        runner.run([x])
        results.append(runner.run_on_device([x])["y"])
    if explicitly:
        runner.close()
        with pytest.raises(ValueError, match="this runner is closed"):
            runner.run([x])
    del runner
    gc.collect()
    assert machine.cuda.alive()["device"] == 3  # the results live on
    np.testing.assert_array_equal(results[-1].numpy(), doubled(x))
    results.clear()
    gc.collect()
    machine.check_released()
    machine.check_clean()


def test_torch_tensors_are_read_in_place(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    (x,) = images((2, 3, 4, 4))
    tensor = torch_tensor(monkeypatch, machine, x)
    result = machine.load().run_on_device([tensor])["y"]
    assert sum(machine.cuda.copies.values()) == 0
    np.testing.assert_array_equal(machine.contents(result), doubled(x))
    machine.check_clean()


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("contiguous", False, r"input 'x' is not contiguous; .* call \.contiguous\(\)"),
        ("negated", True, r"input 'x' is a negated .* call \.resolve_neg\(\)"),
        ("dtype", "torch.float64", "input 'x' is float64; wanted float32"),
        ("device", SimpleNamespace(index=1), "input 'x' is on GPU 1, the engine on GPU 0"),
    ],
)
def test_unfit_torch_tensors_are_refused(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, attribute: str, value: object, message: str
) -> None:
    (x,) = images((2, 3, 4, 4))
    tensor = torch_tensor(monkeypatch, machine, x)
    setattr(tensor, attribute, value)
    with pytest.raises(ValueError, match=message):
        machine.load().run([tensor])


def test_torch_bfloat16_on_the_host_stays_exact(machine: Machine) -> None:
    import ml_dtypes
    import torch

    content = {"inputs": {"x": ("BF16", (1, 3, 2, 2))}, "outputs": {"y": ("BF16", (1, 3, 2, 2))}, "profiles": []}
    x = torch.randn(1, 3, 2, 2).bfloat16()
    got = machine.load(content=content).run([x])["y"]
    np.testing.assert_array_equal(got, (2 * x.float().numpy().astype(ml_dtypes.bfloat16) + 4).astype(ml_dtypes.bfloat16))


def test_results_pass_to_other_libraries(machine: Machine) -> None:
    """The consumer's stream waits; the memory lives as long as the capsule."""
    (x,) = images((2, 3, 4, 4))
    ours, theirs = (int(machine.cuda.cudaStreamCreateWithFlags(1)[1]) for _ in range(2))
    runner = machine.load()
    result = runner.run_on_device([x], stream=ours)["y"]
    assert np.isnan(machine.contents(result)).all()
    assert result.__cuda_array_interface__ == {
        "version": 3,
        "shape": (2, 3, 4, 4),
        "typestr": "<f4",
        "data": (result.address, False),
        "strides": None,
        "stream": ours,
    }
    capsule = result.__dlpack__(stream=theirs, max_version=(1, 0))
    array = dlpack.unpack(capsule)
    assert (array.address, array.shape, array.strides, array.dtype) == (result.address, (2, 3, 4, 4), None, "float32")
    assert array.device == result.__dlpack_device__() == (dlpack.CUDA, 0)
    machine.cuda.cudaStreamSynchronize(theirs)
    np.testing.assert_array_equal(machine.contents(result), doubled(x))
    address = result.address
    del result
    gc.collect()
    machine.cuda.read(address, 4)
    del capsule
    gc.collect()
    assert any(allocation.freed for allocation in machine.cuda.allocations if allocation.base == address)


def test_results_feed_the_next_run(machine: Machine) -> None:
    """An engine's output, still being computed, into the next engine, on another stream."""
    (x,) = images((2, 3, 4, 4))
    first, second = machine.load(), machine.load()
    stream = int(machine.cuda.cudaStreamCreateWithFlags(1)[1])
    between = first.run_on_device([x], stream=stream)["y"]
    np.testing.assert_array_equal(second.run([between])["y"], doubled(doubled(x)))
    machine.check_clean()


@pytest.mark.parametrize("devices", [1, 2])
def test_every_thread_uses_the_engines_gpu(machine: Machine, monkeypatch: pytest.MonkeyPatch, devices: int) -> None:
    machine.cuda.devices = devices
    runner = machine.load(device=devices - 1)
    with ThreadPoolExecutor(2) as pool:
        (x,) = images((2, 3, 4, 4))
        np.testing.assert_array_equal(pool.submit(runner.run, [x]).result()["y"], doubled(x))
        result = pool.submit(runner.run_on_device, [x]).result()["y"]
        machine.cuda.cudaSetDevice(0)
        np.testing.assert_array_equal(result.numpy(), doubled(x))
    assert {a.device for a in machine.cuda.allocations if a.kind == "device"} == {devices - 1}
    assert {stream.device for stream in machine.cuda.all_streams()} == {devices - 1}
    machine.check_clean()


def test_closing_frees_everything_at_once(machine: Machine) -> None:
    for options in ({}, {"cuda_graph": True}):
        with machine.load(**options) as runner:
            for x in images((1, 3, 4, 4), (1, 3, 4, 4)):
                runner.run([x])
        machine.check_released()
        with pytest.raises(ValueError, match="this runner is closed"):
            runner.run([x])


def test_closing_waits_for_runs_under_way_and_turns_waiting_ones_away(machine: Machine) -> None:
    runner = machine.load(contexts=1)
    (x,) = images((1, 3, 4, 4))
    with ThreadPoolExecutor(2) as pool:
        with runner._slots.borrow(None) as slot:
            waiting = pool.submit(runner.run, [x])
            time.sleep(0.05)
            closing = pool.submit(runner.close)
            with pytest.raises(ValueError, match="this runner is closed"):
                waiting.result(timeout=10)
            assert not closing.done()
            assert slot._context is not None
        closing.result(timeout=10)
    machine.check_released()


@pytest.mark.parametrize("explicitly", [True, False])
def test_closing_waits_for_work_on_the_callers_stream(machine: Machine, explicitly: bool) -> None:
    stream = int(machine.cuda.cudaStreamCreateWithFlags(1)[1])
    (x,) = images((2, 3, 4, 4))
    runner = machine.load()
    result = runner.run_on_device([x], stream=stream)["y"]
    if explicitly:
        runner.close()
    del runner
    gc.collect()
    np.testing.assert_array_equal(result.numpy(), doubled(x))
    machine.check_clean()


def test_threads_that_wait_for_a_context_that_cannot_be_made(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.runners.fake_tensorrt import ICudaEngine

    def none(engine: ICudaEngine, config: object = None) -> None:
        time.sleep(0.05)

    monkeypatch.setattr(ICudaEngine, "create_execution_context", none)
    runner = machine.load(contexts=1)
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(runner.run, list(images((1, 3, 4, 4)))) for _ in range(3)]
        assert all("no execution context" in str(future.exception(timeout=10)) for future in futures)


def test_a_failure_half_way_waits_for_the_gpu_and_lets_others_go_on(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is enqueued when fetching fails: its memory is not freed under it, and a waiting thread gets a fresh context."""
    runner = machine.load(contexts=1)
    (x,) = images((2, 3, 4, 4))
    fetch, failures = Slot.fetch_to_host, [RuntimeFailure("no memory")]

    def failing(slot: Slot, name: str, stream: int) -> np.ndarray:
        if failures:
            time.sleep(0.05)
            raise failures.pop()
        return fetch(slot, name, stream)

    monkeypatch.setattr(Slot, "fetch_to_host", failing)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(runner.run, [x]) for _ in range(2)]
        outcomes = [future.exception(timeout=10) or future.result() for future in futures]
    errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert [str(error) for error in errors] == ["no memory"]
    np.testing.assert_array_equal(runner.run([x])["y"], doubled(x))
    assert len(machine.trt.configs) == 2
    runner.close()
    machine.check_released()
    machine.check_clean()


def test_a_run_that_failed_spoils_no_later_one(machine: Machine) -> None:
    runner = machine.load(contexts=1)
    x, larger = images((2, 3, 4, 4), (4, 3, 16, 16))
    machine.cuda.memory_limit = 1024
    with pytest.raises(Exception, match="out of memory"):
        runner.run([larger])
    machine.cuda.memory_limit = None
    for value in (x, larger):
        np.testing.assert_array_equal(runner.run([value])["y"], doubled(value))
    machine.check_clean()


def test_garbage_collected_while_a_graph_is_recorded(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Freeing memory in the middle of a recording would spoil it."""
    from tests.runners.fake_tensorrt import IExecutionContext

    (x,) = images((2, 3, 4, 4))
    runner = machine.load(cuda_graph=True)
    garbage = [runner.run_on_device([x])["y"]]
    execute = IExecutionContext.execute_async_v3

    def collect_and_execute(context: IExecutionContext, stream: int) -> bool:
        garbage.clear()
        return execute(context, stream)

    monkeypatch.setattr(IExecutionContext, "execute_async_v3", collect_and_execute)
    np.testing.assert_array_equal(runner.run([x])["y"], doubled(x))
    runner.close()
    machine.check_released()


def test_rtx_compiles_before_a_graph_is_recorded(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    from enum import Enum

    strategies = Enum("DynamicShapesKernelSpecializationStrategy", ["LAZY", "EAGER", "NONE"])
    monkeypatch.setattr(machine.trt, strategies.__name__, strategies, raising=False)
    for graph in (False, True):
        runner = machine.load(cuda_graph=graph)
        runner.run(list(images((1, 3, 4, 4))))
    plain, recorded = machine.trt.configs
    assert plain is None
    assert recorded.dynamic_shapes_kernel_specialization_strategy == strategies.EAGER


def test_copies_are_left_to_consumers(machine: Machine) -> None:
    """As torch.from_dlpack(array, copy=True) asks, and then asks again without."""
    result = machine.load().run_on_device(list(images((1, 3, 4, 4))))["y"]
    for unusual in ({"copy": True}, {"dl_device": (dlpack.CUDA, 1)}, {"dl_device": (dlpack.CPU, 0)}):
        with pytest.raises(TypeError):
            result.__dlpack__(**unusual)
    assert result.__dlpack__(copy=False, dl_device=(dlpack.CUDA, 0), max_version=(1, 0), stream=-1)


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_verify_takes_engine_files(machine: Machine, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    rtx = backend == "tensorrt-rtx"
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", FakeTensorRT(machine.cuda, "tensorrt_rtx", "1.7.1", b"vtrt"))
    path = machine.engine(tag=b"vtrt", version="1.7.1") if rtx else machine.engine()
    example = {"x": next(images((1, 3, 4, 4)))}
    report = deploydcn.verify(deploydcn.load(path, backend), path, example)
    assert report.passed
    assert report.candidate == f"{backend} {'1.7.1' if rtx else '10.16.1'} (m.engine)"


def test_numpy_views_and_lists_are_taken_as_by_other_runners(machine: Machine) -> None:
    (x,) = images((4, 3, 6, 4))
    runner = machine.load()
    for view in (x[::2, :, ::2], x.transpose(0, 1, 3, 2), x.astype(">f4")):
        np.testing.assert_array_equal(runner.run([view])["y"], doubled(np.ascontiguousarray(view, np.float32)))


def test_unused_arrays_of_the_test_library(machine: Machine) -> None:
    """The stand-ins really leave work pending: reading without waiting gives NaN."""
    stream = int(machine.cuda.cudaStreamCreateWithFlags(1)[1])
    (x,) = images((1, 3, 4, 4))
    assert np.isnan(machine.contents(InterfaceArray(machine, x, stream=stream))).all()
