"""What must hold of the engine runner, one function per promise. test_engine_runner.py runs them; test_engine_planted.py shows that each
fires on a runner with a planted bug."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np

from tests.runners.fake_cuda import cudaMemcpyKind
from tests.runners.machine import DlpackArray, InterfaceArray, Machine, doubled, images

SHAPES = ((1, 3, 4, 4), (4, 3, 16, 16), (2, 3, 5, 7), (1, 3, 16, 2), (4, 3, 2, 2))
MIXED = {
    "inputs": {"a": ("FLOAT", (-1, 2)), "b": ("HALF", (-1, 2))},
    "outputs": {"sum": ("BF16", (-1, 2)), "half": ("HALF", (-1, 2)), "count": ("INT64", (-1,))},
    "profiles": [{"a": [(1, 2), (2, 2), (4, 2)], "b": [(1, 2), (2, 2), (4, 2)]}],
}


def several_shapes_in_sequence(machine: Machine) -> None:
    with machine.load() as runner:
        for x in images(*SHAPES, *SHAPES):
            np.testing.assert_array_equal(runner.run([x])["y"], doubled(x))
    machine.check_clean()


def results_are_the_callers(machine: Machine) -> None:
    """A later run changes neither an earlier result nor its input."""
    with machine.load() as runner:
        first, second = images((2, 3, 4, 4), (2, 3, 4, 4))
        kept = first.copy()
        result = runner.run([first])["y"]
        runner.run([second])
        np.testing.assert_array_equal(result, doubled(first))
        np.testing.assert_array_equal(first, kept)
    machine.check_clean()


def mixed_types(machine: Machine) -> None:
    rng = np.random.default_rng(0)
    with machine.load("mixed", content=MIXED) as runner:
        for batch in (3, 1, 4):
            a, b = rng.standard_normal((batch, 2)).astype(np.float32), rng.standard_normal((batch, 2)).astype(np.float16)
            got = runner.run({"b": b, "a": a})
            assert [(name, value.dtype.name) for name, value in got.items()] == [
                ("sum", "bfloat16"),
                ("half", "float16"),
                ("count", "int64"),
            ]
            np.testing.assert_array_equal(got["sum"], (a + b.astype(np.float32)).astype(ml_dtypes.bfloat16))
            np.testing.assert_array_equal(got["half"], b * np.float16(0.5))
            np.testing.assert_array_equal(got["count"], np.full(batch, 2 * batch))
    machine.check_clean()


def threads_share_a_runner(machine: Machine) -> None:
    arrays = list(images(*SHAPES, *SHAPES, *SHAPES, *SHAPES))
    with machine.load(contexts=3) as runner:
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda x: runner.run([x])["y"], arrays))
        assert len(machine.trt.configs) <= 3
    for x, result in zip(arrays, results, strict=True):
        np.testing.assert_array_equal(result, doubled(x))
    machine.check_clean()


def device_arrays_without_copies(machine: Machine) -> None:
    """Pending work on the producer's stream is waited for, and no byte is copied."""
    stream = int(machine.cuda.cudaStreamCreateWithFlags(1)[1])
    (x,) = images((2, 3, 4, 4))
    with machine.load() as runner:
        for value in (
            InterfaceArray(machine, x),
            InterfaceArray(machine, x, stream=stream),
            InterfaceArray(machine, x, stream=1, version=2),
            DlpackArray(machine, x),
        ):
            result = runner.run_on_device([value])["y"]
            assert sum(machine.cuda.copies.values()) == 0
            np.testing.assert_array_equal(machine.contents(result), doubled(x))
            np.testing.assert_array_equal(result.numpy(), doubled(x))
            machine.cuda.copies = dict.fromkeys(cudaMemcpyKind, 0)
            np.testing.assert_array_equal(runner.run([value])["y"], doubled(x))
            assert list(machine.cuda.copies.values()) == [0, 1, 0]
            machine.cuda.copies = dict.fromkeys(cudaMemcpyKind, 0)
    machine.check_clean()


def device_results_are_snapshots(machine: Machine) -> None:
    first, second = images((2, 3, 4, 4), (2, 3, 4, 4))
    with machine.load() as runner:
        results = [runner.run_on_device([InterfaceArray(machine, x)])["y"] for x in (first, second)]
        for x, result in zip((first, second), results, strict=True):
            np.testing.assert_array_equal(machine.contents(result), doubled(x))
    np.testing.assert_array_equal(machine.contents(results[0]), doubled(first))
    machine.check_clean()


def a_stream_of_the_callers_is_not_waited_for(machine: Machine) -> None:
    """Runs queue up on the caller's stream, several with one context, in order; also alternating between streams."""
    streams = [int(machine.cuda.cudaStreamCreateWithFlags(1)[1]) for _ in range(2)]
    arrays = list(images(*SHAPES))
    with machine.load(contexts=1) as runner:
        queued = []
        for index, x in enumerate(arrays):
            value = InterfaceArray(machine, x)
            queued.append((value, runner.run_on_device([value], stream=streams[index % 2])["y"]))
        nan = machine.contents(queued[-1][1])
        assert np.isnan(nan).all(), "the last run was waited for"
        machine.cuda.cudaStreamSynchronize(streams[(len(arrays) - 1) % 2])
        machine.cuda.cudaStreamSynchronize(streams[len(arrays) % 2])
        for x, (_, result) in zip(arrays, queued, strict=True):
            np.testing.assert_array_equal(machine.contents(result), doubled(x))
            np.testing.assert_array_equal(result.numpy(), doubled(x))
    machine.check_clean()


def host_arrays_on_the_callers_stream(machine: Machine) -> None:
    """Pinned memory is not written again before it was read, although nobody waits in between."""
    stream = int(machine.cuda.cudaStreamCreateWithFlags(1)[1])
    arrays = list(images((2, 3, 4, 4), (2, 3, 4, 4), (4, 3, 16, 16), (1, 3, 2, 2)))
    with machine.load(contexts=1) as runner:
        results = [runner.run_on_device([x], stream=stream)["y"] for x in arrays]
        for x, result in zip(arrays, results, strict=True):
            np.testing.assert_array_equal(result.numpy(), doubled(x))
    machine.check_clean()


def outputs_into_given_memory(machine: Machine) -> None:
    shapes = ((2, 3, 4, 4), (1, 3, 5, 2), (2, 3, 4, 4))
    for options in ({}, {"cuda_graph": True}):
        with machine.load(**options) as runner:
            for x in images(*shapes, *shapes):
                value, target = InterfaceArray(machine, x), InterfaceArray(machine, np.zeros_like(x))
                before = machine.cuda.alive()["device"]
                result = runner.run_on_device([value], out={"y": target})
                assert result["y"] is target
                assert options or machine.cuda.alive()["device"] == before
                np.testing.assert_array_equal(machine.contents(target), doubled(x))
    machine.check_clean()


def misaligned_inputs_are_copied(machine: Machine) -> None:
    (x,) = images((2, 3, 4, 4))
    with machine.load() as runner:
        result = runner.run_on_device([InterfaceArray(machine, x, offset=64)])["y"]
        np.testing.assert_array_equal(machine.contents(result), doubled(x))
    assert machine.cuda.copies[cudaMemcpyKind.cudaMemcpyDeviceToDevice] == 1
    machine.check_clean()


def misaligned_inputs_that_grow(machine: Machine) -> None:
    """The copy's memory is exchanged for larger one only when the GPU is done with it."""
    stream = int(machine.cuda.cudaStreamCreateWithFlags(1)[1])
    with machine.load(contexts=1) as runner:
        queued = [(x, InterfaceArray(machine, x, offset=64)) for x in images((1, 3, 2, 2), (2, 3, 4, 4), (4, 3, 16, 16))]
        results = [runner.run_on_device([value], stream=stream)["y"] for _, value in queued]
        for (x, _), result in zip(queued, results, strict=True):
            np.testing.assert_array_equal(result.numpy(), doubled(x))
    machine.check_clean()


def graphs_are_recorded_once_per_shape(machine: Machine) -> None:
    shapes = ((1, 3, 4, 4), (4, 3, 16, 16))
    with machine.load(cuda_graph=True) as runner:
        for turn, x in enumerate(images(*shapes * 4)):
            np.testing.assert_array_equal(runner.run([x])["y"], doubled(x))
            assert machine.cuda.launches == max(0, turn - 1)
        for x in images(*shapes * 2, seed=1):
            value = InterfaceArray(machine, x)
            first = runner.run_on_device([value])["y"]
            second = runner.run_on_device([InterfaceArray(machine, -x)])["y"]
            np.testing.assert_array_equal(machine.contents(first), doubled(x))
            np.testing.assert_array_equal(machine.contents(second), doubled(-x))
        assert len(machine.trt.configs) == 2
    machine.check_clean()


def graphs_of_many_shapes_are_forgotten(machine: Machine) -> None:
    with machine.load(cuda_graph=True, contexts=2) as runner:
        for x in images(*SHAPES, *SHAPES):
            for value in (x, -x, 3 * x):
                np.testing.assert_array_equal(runner.run([value])["y"], doubled(value))
        assert machine.cuda.alive()["graphs"] <= 2
    machine.check_clean()


def graphs_and_threads(machine: Machine) -> None:
    arrays = list(images(*SHAPES[:2] * 12))
    with machine.load(cuda_graph=True, contexts=3) as runner, ThreadPoolExecutor(8) as pool:
        for x, result in zip(arrays, pool.map(lambda x: runner.run([x])["y"], arrays), strict=True):
            np.testing.assert_array_equal(result, doubled(x))
    assert machine.cuda.launches > 0
    machine.check_clean()


def profiles_are_chosen_by_shape(machine: Machine) -> None:
    spans = [
        [(1, 3, 2, 2), (1, 3, 16, 16), (8, 3, 32, 32)],
        [(1, 3, 4, 4), (1, 3, 4, 4), (1, 3, 4, 4)],
        [(9, 3, 2, 2), (9, 3, 2, 2), (9, 3, 3, 3)],
    ]
    with machine.load(content={"profiles": [{"x": span} for span in spans]}, contexts=1) as runner:
        for x in images((1, 3, 4, 4), (9, 3, 3, 2), (8, 3, 32, 32), (1, 3, 4, 4), (1, 3, 4, 5)):
            np.testing.assert_array_equal(runner.run([x])["y"], doubled(x))
    machine.check_clean()


def shapes_that_depend_on_data(machine: Machine) -> None:
    content = {"inputs": {"x": ("FLOAT", (-1, 4))}, "outputs": {"y": ("INT64", (2, -1))}, "profiles": [{"x": [(1, 4), (2, 4), (8, 4)]}]}
    with machine.load("positive", content=content) as runner:
        for x in images((2, 4), (8, 4), (1, 4)):
            wanted = np.stack(np.nonzero(x > 0))
            np.testing.assert_array_equal(runner.run([x])["y"], wanted)
            np.testing.assert_array_equal(runner.run_on_device([x])["y"].numpy(), wanted)
        assert runner.run([-np.ones((2, 4), np.float32)])["y"].shape == (2, 0)
    machine.check_clean()


def the_callers_stream_may_go(machine: Machine) -> None:
    """Once its work is done."""
    stream = machine.cuda.cudaStreamCreateWithFlags(1)[1]
    first, second = images((2, 3, 4, 4), (4, 3, 16, 16))
    runner = machine.load(contexts=1)
    result = runner.run_on_device([first], stream=stream)["y"]
    np.testing.assert_array_equal(result.numpy(), doubled(first))
    machine.cuda.cudaStreamDestroy(stream)
    runner.close()
    with machine.load(contexts=1) as runner:
        np.testing.assert_array_equal(runner.run([second])["y"], doubled(second))
    machine.check_clean()


CHECKS = (
    several_shapes_in_sequence,
    results_are_the_callers,
    mixed_types,
    threads_share_a_runner,
    device_arrays_without_copies,
    device_results_are_snapshots,
    a_stream_of_the_callers_is_not_waited_for,
    host_arrays_on_the_callers_stream,
    outputs_into_given_memory,
    misaligned_inputs_are_copied,
    misaligned_inputs_that_grow,
    graphs_are_recorded_once_per_shape,
    graphs_of_many_shapes_are_forgotten,
    graphs_and_threads,
    profiles_are_chosen_by_shape,
    shapes_that_depend_on_data,
    the_callers_stream_may_go,
)
