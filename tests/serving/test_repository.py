"""Where models come from, how they are replaced, and what a bad one does to a good one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from deploydcn.errors import InvalidArgument, InvalidModel, RuntimeFailure, UserError
from deploydcn.parity import Tolerance
from deploydcn.parity.golden import Golden, GoldenCase, write_golden
from deploydcn.runners import load
from deploydcn.serving.batcher import BatchLimits
from deploydcn.serving.model import ServedModel
from deploydcn.serving.options import ModelOptions
from deploydcn.serving.refusal import Refusal
from deploydcn.serving.repository import Repository
from deploydcn.serving.request import InferRequest
from tests.ort import test_products
from tests.runners.machine import doubled, install
from tests.serving.conftest import write_linear, write_model

OPTIONS = ModelOptions(threads=1)
X = np.arange(4, dtype=np.float32)[None]


def run(test: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(test(), 60))  # type: ignore[arg-type]


async def answer(repository: Repository, name: str, version: str = "") -> list[float]:
    outputs = await repository.get(name, version).infer(InferRequest({"x": X}), 10)
    return next(iter(outputs.values()))[0].tolist()  # type: ignore[no-any-return]


def expected(path: Path) -> list[float]:
    return next(iter(load(path, threads=1).run([X]).values()))[0].tolist()  # type: ignore[no-any-return]


def touch_later(path: Path) -> None:
    """A time that differs, whatever the file system's clock."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))


def names(sources: list[Any]) -> dict[str, list[str]]:
    async def test() -> dict[str, list[str]]:
        repository = Repository(sources, OPTIONS)
        await repository.load_all()
        found = {row["name"]: repository.versions(row["name"]) for row in repository.index()}
        await repository.close()
        return found

    return run(test)  # type: ignore[no-any-return]


def test_a_file_is_version_1_of_a_model_of_its_name(linear: Path) -> None:
    assert names([linear]) == {"linear": ["1"]}
    assert names([f"other={linear}"]) == {"other": ["1"]}


def test_a_folder_holds_models_and_versions(tmp_path: Path) -> None:
    write_linear(tmp_path / "models" / "a" / "1" / "model.onnx")
    write_linear(tmp_path / "models" / "a" / "12" / "model.onnx")
    write_linear(tmp_path / "models" / "b.onnx")
    (tmp_path / "models" / "a" / "config.pbtxt").write_text("")
    (tmp_path / "models" / "notes").mkdir()
    assert names([tmp_path / "models"]) == {"a": ["1", "12"], "b": ["1"]}
    assert names([tmp_path / "models" / "a"]) == {"a": ["1", "12"]}


def test_the_highest_version_answers_where_none_is_named(tmp_path: Path) -> None:
    old = write_linear(tmp_path / "m" / "2" / "model.onnx")
    new = write_linear(tmp_path / "m" / "10" / "model.onnx", factor=2.0)

    async def test() -> None:
        repository = Repository([tmp_path / "m"], OPTIONS)
        await repository.load_all()
        assert await answer(repository, "m") == expected(new)
        assert await answer(repository, "m", "2") == expected(old)
        for version in ("3", "x", "-1", "२", "9" * 5000):
            with pytest.raises(Refusal, match="no version") as refused:
                repository.get("m", version)
            assert refused.value.status == 404
        await repository.close()

    run(test)


def two_files_of_a_version(folder: Path) -> list[Any]:
    for name in ("a.onnx", "b.onnx"):
        write_linear(folder / "v" / "1" / name)
    return [folder / "v"]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder: [folder / "missing.onnx"], "does not exist"),
        (lambda folder: [folder], "no models in"),
        (lambda folder: [write_linear(folder / "a b.onnx")], "'a b' is no model name"),
        (lambda folder: [write_linear(folder / "a.onnx"), write_linear(folder / "x" / "a.onnx")], "two models are named 'a'"),
        (lambda folder: [Path(__file__)], "no name that can be served"),
        (two_files_of_a_version, "holds a.onnx, b.onnx"),
    ],
    ids=["missing", "empty folder", "name", "twice", "suffix", "two files of one version"],
)
def test_sources_that_cannot_be_served_are_refused(make: Callable[[Path], list[Any]], reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason):
        Repository(make(tmp_path), OPTIONS)


def test_a_server_does_not_start_with_half_of_its_models(linear: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(linear.read_bytes()[:50])

    async def test() -> None:
        with pytest.raises(InvalidModel, match=r"broken\.onnx"):
            await Repository([linear, tmp_path / "broken.onnx"], OPTIONS).load_all()

    run(test)


def test_loading_anew_takes_the_new_file_and_a_broken_one_leaves_the_old(linear: Path) -> None:
    async def test() -> None:
        repository = Repository([linear], OPTIONS)
        await repository.load_all()
        first = expected(linear)
        assert await answer(repository, "linear") == first
        write_linear(linear, factor=3.0)
        second = expected(linear)
        await repository.load("linear")
        assert await answer(repository, "linear") == second != first
        linear.write_bytes(b"no model")
        with pytest.raises(Refusal, match=r"not loaded.*not an ONNX model"):
            await repository.load("linear")
        assert await answer(repository, "linear") == second
        (row,) = repository.index()
        assert row["state"] == "READY"
        assert "not an ONNX model" in row["reason"]
        await repository.close()

    run(test)


def test_changed_files_are_noticed_once(linear: Path) -> None:
    async def test() -> None:
        repository = Repository([linear], OPTIONS)
        await repository.load_all()
        before = repository.get("linear")
        await repository.reload_changed()
        assert repository.get("linear") is before
        write_linear(linear, factor=3.0)
        touch_later(linear)
        await repository.reload_changed()
        after = repository.get("linear")
        assert after is not before
        linear.write_bytes(b"no model")
        await repository.reload_changed()
        await repository.reload_changed()
        assert repository.get("linear") is after
        await repository.close()

    run(test)


def test_a_model_that_appears_in_a_folder_can_be_loaded(tmp_path: Path) -> None:
    write_linear(tmp_path / "a.onnx")

    async def test() -> None:
        repository = Repository([tmp_path], OPTIONS)
        await repository.load_all()
        write_linear(tmp_path / "b.onnx")
        assert {row["name"]: row["state"] for row in repository.index()} == {"a": "READY", "b": "UNAVAILABLE"}
        await repository.load("b")
        assert await answer(repository, "b") == expected(tmp_path / "b.onnx")
        await repository.close()

    run(test)


def test_a_file_that_is_gone_is_served_on(linear: Path) -> None:
    async def test() -> None:
        repository = Repository([linear], OPTIONS)
        await repository.load_all()
        before = expected(linear)
        linear.unlink()
        with pytest.raises(Refusal, match="does not exist") as refused:
            await repository.load("linear")
        assert refused.value.status == 400
        assert [row["state"] for row in repository.index()] == ["READY"]
        assert await answer(repository, "linear") == before
        await repository.close()

    run(test)


def gone(folder: Path) -> None:
    (folder / "given.onnx").unlink()


def two_files(folder: Path) -> None:
    for name in ("a", "b"):
        write_linear(folder / "models" / "versions" / "1" / f"{name}.onnx")


def bad_name(folder: Path) -> None:
    write_linear(folder / "models" / "no name.onnx")


def twice(folder: Path) -> None:
    write_linear(folder / "models" / "given.onnx")


@pytest.mark.parametrize("spoil", [gone, two_files, bad_name, twice])
def test_what_is_wrong_with_one_model_keeps_no_other_from_loading(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    async def test() -> None:
        write_linear(tmp_path / "given.onnx")
        good = write_linear(tmp_path / "models" / "zebra.onnx")
        repository = Repository([tmp_path / "given.onnx", tmp_path / "models"], OPTIONS)
        await repository.load_all()
        spoil(tmp_path)
        write_linear(good, factor=2.0)
        await repository.load("zebra")
        assert await answer(repository, "zebra") == expected(good)
        write_linear(good, factor=3.0)
        touch_later(good)
        await repository.reload_changed()
        assert await answer(repository, "zebra") == expected(good)
        assert {row["name"] for row in repository.index(ready=True)} >= {"given", "zebra"}
        await repository.close()

    run(test)


def test_a_file_of_equal_time_and_size_behind_an_exchanged_link_is_another_one(tmp_path: Path) -> None:
    """As Kubernetes mounts volumes: model.onnx -> ..data/model.onnx, ..data -> ..1; images of containers have one time for all files."""
    folder = tmp_path / "volume"

    def mount(number: int) -> None:
        os.utime(write_linear(folder / f"..{number}" / "linear.onnx", factor=number), (0, 0))
        (folder / "..new").symlink_to(f"..{number}")
        (folder / "..new").replace(folder / "..data")

    async def test() -> None:
        mount(1)
        (folder / "linear.onnx").symlink_to("..data/linear.onnx")
        repository = Repository([folder], OPTIONS)
        await repository.load_all()
        mount(2)
        await repository.reload_changed()
        assert await answer(repository, "linear") == expected(folder / "..2" / "linear.onnx")
        await repository.close()

    run(test)


def test_a_golden_that_comes_after_its_model_is_noticed(linear: Path) -> None:
    async def test() -> None:
        repository = Repository([linear], OPTIONS)
        await repository.load_all()
        first = repository.get("linear")
        golden(linear.with_suffix(".golden.npz"), linear)
        await repository.reload_changed()
        second = repository.get("linear")
        assert second is not first
        await repository.reload_changed()
        assert repository.get("linear") is second, "loaded again without a change"
        await repository.close()

    run(test)


def test_an_unloaded_model_is_gone_until_it_is_loaded(linear: Path) -> None:
    async def test() -> None:
        repository = Repository([linear], OPTIONS)
        await repository.load_all()
        await repository.unload("linear")
        with pytest.raises(Refusal, match="no model is named"):
            repository.get("linear")
        assert repository.index() == [{"name": "linear", "version": "", "state": "UNAVAILABLE", "reason": "unloaded"}]
        assert repository.index(ready=True) == []
        touch_later(linear)
        await repository.reload_changed()
        assert repository.index(ready=True) == [], "unloading lasts"
        await repository.load("linear")
        assert await answer(repository, "linear") == expected(linear)
        await repository.close()

    run(test)


@pytest.mark.parametrize("name", ["../linear", "/etc/passwd", "linear/../linear", "..", "", "linear.onnx", "linear\0"])
def test_names_of_clients_are_not_paths(name: str, linear: Path) -> None:
    async def test() -> None:
        repository = Repository([linear.parent], OPTIONS)
        await repository.load_all()
        for call in (repository.load, repository.unload):
            with pytest.raises(Refusal) as refused:
                await call(name)
            assert refused.value.status == 404
        await repository.close()

    run(test)


def golden(path: Path, model: Path, *, wrong: float = 0.0) -> None:
    outputs = {name: array + np.float32(wrong) for name, array in load(model, threads=1).run([X]).items()}
    provenance = {"command": "test", "date": "", "versions": {}, "reference": "test", "model": ""}
    write_golden(path, Golden((GoldenCase("example", {"x": X}, outputs),), Tolerance(1e-4, "the test's"), provenance))


def test_a_model_is_compared_with_the_golden_beside_it(linear: Path) -> None:
    golden(linear.with_suffix(".golden.npz"), linear)
    assert names([linear]) == {"linear": ["1"]}
    golden(linear.with_suffix(".golden.npz"), linear, wrong=0.5)
    with pytest.raises(RuntimeFailure, match=r"FAIL: ort .* against golden linear.golden.npz .*output 'y'"):
        names([linear])
    unchecked = ModelOptions(threads=1, self_check=False)
    assert ServedModel("linear", 1, linear, unchecked).name == "linear"


def relu(path: Path, shape: list[Any], out: list[Any] | None = None) -> Path:
    return write_model(
        path, [helper.make_node("Relu", ["x"], ["y"])], {"x": (TensorProto.FLOAT, shape)}, {"y": (TensorProto.FLOAT, out or shape)}
    )


def softmax_over_rows(path: Path) -> Path:
    shape = (TensorProto.FLOAT, ["n", 4])
    return write_model(path, [helper.make_node("Softmax", ["x"], ["y"], axis=0)], {"x": shape}, {"y": shape})


def minus_mean(path: Path, columns: Any = 4) -> Path:
    """Rows of the same values in another order have the same mean, alone and together."""
    nodes = [helper.make_node("ReduceMean", ["x"], ["m"]), helper.make_node("Sub", ["x", "m"], ["y"])]
    shape = (TensorProto.FLOAT, ["n", columns])
    return write_model(path, nodes, {"x": shape}, {"y": shape})


def fixed_reshape(path: Path) -> Path:
    """Says that its batch is open, and is not."""
    shape = helper.make_node("Constant", [], ["s"], value=helper.make_tensor("s", TensorProto.INT64, [2], [1, 4]))
    nodes = [shape, helper.make_node("Reshape", ["x", "s"], ["y"])]
    return write_model(path, nodes, {"x": (TensorProto.FLOAT, ["n", 4])}, {"y": (TensorProto.FLOAT, ["n", 4])})


@pytest.mark.parametrize(
    ("make", "batch"),
    [
        (lambda path: relu(path, ["n", 4]), 8),
        (lambda path: relu(path, ["n", 3, "h", "w"]), 8),
        (lambda path: relu(path, [1, 4]), 0),
        (lambda path: relu(path, ["n", 4], ["m", 4]), 0),
        (lambda path: relu(path, []), 0),
        (softmax_over_rows, 0),
        (minus_mean, 0),
        (fixed_reshape, 0),
    ],
    ids=[
        "open batch",
        "open sizes",
        "fixed batch",
        "two names",
        "scalar",
        "rows that touch each other",
        "mean of all",
        "batch in name only",
    ],
)
def test_only_rows_that_do_not_touch_each_other_are_batched(make: Callable[[Path], Path], batch: int, tmp_path: Path) -> None:
    model = ServedModel("m", 1, make(tmp_path / "m.onnx"), OPTIONS)
    assert model.max_batch == batch
    assert model.config()["max_batch_size"] == batch


@pytest.mark.parametrize("apart", [True, False], ids=["rows apart", "rows that touch each other"])
def test_open_sizes_are_batched_once_a_request_has_told_them_and_rows_are_apart(apart: bool, tmp_path: Path) -> None:
    """The first request is zeros, of which nothing could be learned but their shape."""

    async def test() -> None:
        path = tmp_path / "m.onnx"
        model = ServedModel("m", 1, relu(path, ["n", "c"]) if apart else minus_mean(path, "c"), OPTIONS)
        await model.infer(InferRequest({"x": np.zeros((1, 4), np.float32)}), 10)
        requests = [np.full((1, 4), value, np.float32) + np.arange(4, dtype=np.float32) for value in range(6)]
        answers = await asyncio.gather(*(model.infer(InferRequest({"x": array}), 10) for array in requests))
        for array, answer in zip(requests, answers, strict=True):
            np.testing.assert_array_equal(answer["y"], array if apart else array - array.mean())
        assert model.statistics.executions == (3 if apart else 7)
        await model.close()

    run(test)


def test_a_request_larger_than_a_batch_is_refused(linear: Path) -> None:
    async def test() -> None:
        model = ServedModel("m", 1, linear, ModelOptions(BatchLimits(size=2), threads=1))
        for size in (0, 3):
            with pytest.raises(Refusal, match="takes 1 to 2"):
                await model.infer(InferRequest({"x": np.zeros((size, 4), np.float32)}), 10)
        await model.close()

    run(test)


def gather(path: Path) -> Path:
    """y = table[x]: an index beyond the table makes it fail."""
    table = helper.make_node("Constant", [], ["t"], value=helper.make_tensor("t", TensorProto.FLOAT, [3], [1, 2, 3]))
    nodes = [table, helper.make_node("Gather", ["t", "x"], ["y"])]
    return write_model(path, nodes, {"x": (TensorProto.INT64, ["n", 1])}, {"y": (TensorProto.FLOAT, ["n", 1])})


def test_a_model_that_fails_on_a_request_only_puts_the_blame_on_the_request(tmp_path: Path) -> None:
    async def test() -> None:
        model = ServedModel("m", 1, gather(tmp_path / "m.onnx"), OPTIONS)
        with pytest.raises(Refusal, match="does not run on these inputs") as refused:
            await model.infer(InferRequest({"x": np.array([[7]])}), 10)
        assert refused.value.status == 400
        assert (await model.infer(InferRequest({"x": np.array([[2]])}), 10))["y"].item() == 3
        await model.close()

    run(test)


def test_types_that_the_protocol_cannot_carry_are_refused_at_the_start(tmp_path: Path) -> None:
    shape = (TensorProto.STRING, ["n"])
    path = write_model(tmp_path / "m.onnx", [helper.make_node("Identity", ["x"], ["y"])], {"x": shape}, {"y": shape})
    with pytest.raises(InvalidModel, match="type that is not served"):
        ServedModel("m", 1, path, OPTIONS)


@pytest.mark.parametrize("products", ["bfloat16", "precise"])
def test_products_are_taken_as_the_options_say(tmp_path: Path, products: str) -> None:
    path = tmp_path / "m.onnx"
    inputs = test_products.arrays()
    onnx.save(test_products.model(inputs), path)

    async def test() -> None:
        model = ServedModel("m", 1, path, ModelOptions(threads=1, **{products: True}))
        outputs = await model.infer(InferRequest(inputs), 10)
        assert np.array_equal(outputs["Y"], load(path, "ort", threads=1, **{products: True}).run(inputs)["Y"])
        await model.close()

    run(test)
    with pytest.raises(InvalidArgument, match="both --bfloat16 and --precise"):
        ModelOptions(bfloat16=True, precise=True)


@pytest.mark.parametrize("field", ["instances", "queue"])
def test_options_outside_their_range_are_refused(field: str) -> None:
    with pytest.raises(InvalidArgument, match=f"--{field} is 0"):
        ModelOptions(batch=BatchLimits(queue=0)) if field == "queue" else ModelOptions(instances=0)


def test_an_engine_is_served_within_its_profiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = install(monkeypatch, tmp_path)
    path = machine.engine("m.plan", function="double")

    async def test() -> None:
        model = ServedModel("m", 1, path, ModelOptions(instances=2))
        assert model.max_batch == 4, "what the engine was built for, not what was asked"
        assert model.metadata()["platform"] == "tensorrt_plan"
        x = np.random.default_rng(0).standard_normal((3, 3, 5, 7)).astype(np.float32)
        outputs = await asyncio.gather(*(model.infer(InferRequest({"x": x[row : row + 1]}), 10) for row in range(3)))
        for row, output in enumerate(outputs):
            np.testing.assert_array_equal(output["y"], doubled(x[row : row + 1]))
        with pytest.raises(Refusal, match="does not run on these inputs") as refused:
            await model.infer(InferRequest({"x": np.zeros((1, 3, 99, 99), np.float32)}), 10)
        assert refused.value.status == 400
        await model.close()

    run(test)
    machine.check_clean()
    machine.check_released()
