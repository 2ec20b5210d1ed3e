"""The queue in front of a model: who runs with whom, who waits, who is refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from deploydcn.errors import RuntimeFailure
from deploydcn.serving.batcher import Arrays, Batcher, BatchLimits
from deploydcn.serving.refusal import Refusal
from deploydcn.serving.statistics import Statistics


class Model:
    """Doubles its input. Runs stand still until `gate` opens; rows of 13 make it fail."""

    def __init__(self, *, open: bool = True) -> None:
        self.gate = threading.Event()
        self.runs: list[list[float]] = []
        if open:
            self.gate.set()

    def __call__(self, inputs: Arrays) -> Arrays:
        self.gate.wait(10)
        x = inputs["x"]
        self.runs.append(x[:, 0].tolist())
        if (x == 13).any():
            raise RuntimeFailure("thirteen")
        return {"y": 2 * x}


def rows(*values: float, width: int = 1) -> dict[str, np.ndarray]:
    return {"x": np.repeat(np.array(values, np.float32)[:, None], width, 1)}


def run(test: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(test(), 20))  # type: ignore[arg-type]


async def gathered(model: Model, batcher: Batcher, *requests: dict[str, np.ndarray], timeout: float = 10.0) -> list[Any]:
    """The first request occupies the runner, the others queue behind it, then the gate opens."""
    tasks = []
    for request in requests:
        tasks.append(asyncio.ensure_future(batcher.infer(request, timeout)))
        await asyncio.sleep(0)
    model.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await batcher.drain()
    return results


def test_what_came_while_the_model_ran_runs_together() -> None:
    model, statistics = Model(open=False), Statistics()

    async def test() -> list[Any]:
        return await gathered(model, Batcher(model, BatchLimits(size=4), statistics), *(rows(value) for value in range(6)))

    results = run(test)
    assert model.runs == [[0], [1, 2, 3, 4], [5]]
    assert [result["y"].tolist() for result in results] == [[[2 * value]] for value in range(6)]
    assert (statistics.executions, statistics.inferences, statistics.success.count) == (3, 6, 6)
    assert sorted(statistics.batches) == [1, 4]


def test_requests_of_several_rows_get_their_own_rows() -> None:
    model = Model(open=False)

    async def test() -> list[Any]:
        return await gathered(model, Batcher(model, BatchLimits(size=4), Statistics()), rows(0), rows(1, 2), rows(3, 4), rows(5))

    results = run(test)
    assert model.runs == [[0], [1, 2, 3, 4], [5]]
    assert [result["y"][:, 0].tolist() for result in results] == [[0], [2, 4], [6, 8], [10]]


def test_other_shapes_do_not_run_together() -> None:
    model = Model(open=False)

    async def test() -> list[Any]:
        return await gathered(model, Batcher(model, BatchLimits(size=8), Statistics()), rows(0), rows(1), rows(2, width=2), rows(3))

    run(test)
    assert model.runs == [[0], [1], [2], [3]]


def test_size_0_runs_each_by_itself() -> None:
    model = Model(open=False)

    async def test() -> list[Any]:
        return await gathered(model, Batcher(model, BatchLimits(size=0), Statistics()), rows(0), rows(1), rows(2, 3))

    results = run(test)
    assert model.runs == [[0], [1], [2, 3]]
    assert results[2]["y"][:, 0].tolist() == [4, 6]


def test_a_request_that_fails_does_not_spoil_its_batch() -> None:
    model, statistics = Model(open=False), Statistics()

    async def test() -> list[Any]:
        return await gathered(model, Batcher(model, BatchLimits(size=8), statistics), rows(0), rows(1), rows(13), rows(2))

    results = run(test)
    assert model.runs == [[0], [1, 13, 2], [1], [13], [2]]
    assert [result["y"].item() for result in (results[1], results[3])] == [2, 4]
    assert isinstance(results[2], Refusal)
    assert (results[2].status, str(results[2])) == (500, "thirteen")
    assert (statistics.success.count, statistics.fail.count) == (3, 1)
    # as Triton counts: what failed is neither an inference nor an execution
    assert (statistics.executions, statistics.inferences, statistics.queue.count, statistics.batches.keys()) == (3, 3, 3, {1})


def test_outputs_without_a_row_for_each_row_are_not_split() -> None:
    """A file may say that its outputs have the batch's size where they have as many rows as it found."""
    gate = threading.Event()

    def model(inputs: Arrays) -> Arrays:
        gate.wait(10)
        return {"y": inputs["x"][inputs["x"] > 0]}

    async def test() -> list[Any]:
        batcher = Batcher(model, BatchLimits(size=8), Statistics())
        tasks = [asyncio.ensure_future(batcher.infer(request, 10)) for request in (rows(1), rows(2), rows(-3), rows(4, 5))]
        await asyncio.sleep(0)
        gate.set()
        return await asyncio.gather(*tasks)

    assert [result["y"].tolist() for result in run(test)] == [[1], [2], [], [4, 5]]


def test_a_full_queue_refuses_with_503() -> None:
    model, statistics = Model(open=False), Statistics()

    async def test() -> list[Any]:
        return await gathered(model, Batcher(model, BatchLimits(size=1, queue=2), statistics), *(rows(value) for value in range(5)))

    results = run(test)
    refused = [result for result in results if isinstance(result, Refusal)]
    assert [(error.status, error.retry_after) for error in refused] == [(503, 1), (503, 1)]
    assert statistics.rejected == 2
    assert model.runs == [[0], [1], [2]]


def test_who_waits_too_long_is_told_and_never_run() -> None:
    model = Model(open=False)

    async def test() -> Any:
        batcher = Batcher(model, BatchLimits(size=1), Statistics())
        first = asyncio.ensure_future(batcher.infer(rows(0), 10))
        await asyncio.sleep(0)
        with pytest.raises(Refusal, match=r"not answered within 0\.01 s") as late:
            await batcher.infer(rows(1), 0.01)
        model.gate.set()
        await first
        await batcher.drain()
        return late.value.status

    assert run(test) == 504
    assert model.runs == [[0]]


def test_who_leaves_is_not_run() -> None:
    model = Model(open=False)

    async def test() -> None:
        batcher = Batcher(model, BatchLimits(size=4), Statistics())
        tasks = [asyncio.ensure_future(batcher.infer(rows(value), 10)) for value in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
        model.gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        await batcher.drain()

    run(test)
    assert model.runs == [[0], [2]]


@pytest.mark.parametrize("how", ["too late", "left"])
def test_who_is_gone_leaves_a_place_in_the_queue(how: str) -> None:
    model, statistics = Model(open=False), Statistics()

    async def test() -> None:
        batcher = Batcher(model, BatchLimits(size=1, queue=2), statistics)
        first = asyncio.ensure_future(batcher.infer(rows(0), 10))
        await asyncio.sleep(0)
        gone = [asyncio.ensure_future(batcher.infer(rows(value), 0.01 if how == "too late" else 10)) for value in (1, 2)]
        await asyncio.sleep(0)
        assert batcher.depth == 2
        if how == "left":
            for task in gone:
                task.cancel()
        await asyncio.wait(gone)
        assert batcher.depth == 0
        last = asyncio.ensure_future(batcher.infer(rows(3), 10))
        await asyncio.sleep(0)
        model.gate.set()
        await asyncio.gather(first, last)
        await batcher.drain()

    run(test)
    assert model.runs == [[0], [3]]
    assert (statistics.success.count, statistics.fail.count, statistics.rejected) == (2, 2, 0)


def test_draining_does_not_wait_for_who_is_gone() -> None:
    async def test() -> None:
        batcher = Batcher(Model(), BatchLimits(size=8, delay=30.0), Statistics())
        with pytest.raises(Refusal, match="not answered"):
            await batcher.infer(rows(0), 0.01)
        await batcher.drain()

    run(test)  # within its limit, which is less than the delay


def test_a_delay_gathers_a_batch_for_a_free_runner() -> None:
    model = Model()

    async def test() -> None:
        batcher = Batcher(model, BatchLimits(size=3, delay=5.0), Statistics())
        await asyncio.gather(*(batcher.infer(rows(value), 10) for value in range(3)))
        await batcher.drain()

    run(test)  # a full batch does not wait for the delay, or this would take its time
    assert model.runs == [[0, 1, 2]]


def test_a_delay_ends() -> None:
    model = Model()

    async def test() -> None:
        batcher = Batcher(model, BatchLimits(size=8, delay=0.02), Statistics())
        await asyncio.gather(*(batcher.infer(rows(value), 10) for value in range(2)))
        await batcher.drain()

    run(test)
    assert model.runs == [[0, 1]]


def test_several_runners_run_at_once() -> None:
    together = threading.Barrier(2, timeout=10)

    def model(inputs: Arrays) -> Arrays:
        together.wait()
        return {"y": inputs["x"]}

    async def test() -> None:
        batcher = Batcher(model, BatchLimits(size=1), Statistics(), runners=2)
        await asyncio.gather(batcher.infer(rows(0), 10), batcher.infer(rows(1), 10))
        await batcher.drain()

    run(test)


def test_draining_answers_what_waits() -> None:
    model = Model(open=False)

    async def test() -> list[Any]:
        batcher = Batcher(model, BatchLimits(size=1), Statistics())
        tasks = [asyncio.ensure_future(batcher.infer(rows(value), 10)) for value in range(3)]
        await asyncio.sleep(0)
        draining = asyncio.ensure_future(batcher.drain())
        await asyncio.sleep(0)
        assert not draining.done()
        model.gate.set()
        await draining
        return [task.result()["y"].item() for task in tasks]

    assert run(test) == [0, 2, 4]
