"""A real tritonserver takes what is written, computes what our runner computes, and refuses what the check refuses."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import deploydcn
from deploydcn.triton.server import running
from tests.triton.models import deformable, repository, squares
from tests.triton.server import PROGRAM
from tests.triton.test_check import FAULTS
from tests.triton.test_repository import scalars

pytestmark = [pytest.mark.slow, *(pytest.mark.backend(name) for name in ("ort", "tritonclient", "tritonserver"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served")
    repository(path, deformable(path / "net.onnx"), squares(path / "squares.onnx"))
    return repository(path, scalars(path / "scalars.onnx"), batch=0)


def test_it_loads_what_is_written(folder: Path) -> None:
    check = deploydcn.check_triton_repository(folder, tritonserver=PROGRAM)
    assert check.problems == ()
    assert check.server == "triton 2.51.0 loaded 3 of 3"


def test_it_computes_what_the_runner_computes(folder: Path) -> None:
    """Several clients at once, batches of several sizes, in every one of them the same bytes."""
    runner = deploydcn.load(folder / "net" / "1" / "model.onnx")
    rng = np.random.default_rng(0)
    shapes = [(1, 8, 8), (2, 8, 8), (3, 5, 9), (1, 8, 8), (8, 4, 4), (1, 5, 9)] * 3
    requests = [
        {"x": rng.standard_normal((n, 2, h, w), "float32"), "offset": rng.standard_normal((n, 18, h, w), "float32")} for n, h, w in shapes
    ]
    with running(PROGRAM, folder) as server, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda inputs: infer(server, "net", inputs)["y"], requests))
        summed = infer(server, "scalars", {"x": np.ones((2, 3), "float32"), "s": np.ones(1, "float32")})
    for inputs, answer in zip(requests, answers, strict=True):
        assert answer.tobytes() == runner.run(inputs)["y"].tobytes()
    assert summed["total"].tolist() == [12.0], "a scalar travels as one value"


def infer(server: object, model: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One request as JSON; every float32 survives that."""
    tensors = [{"name": name, "shape": value.shape, "datatype": "FP32", "data": value.ravel().tolist()} for name, value in inputs.items()]
    answer = server.ask("POST", f"v2/models/{model}/infer", {"inputs": tensors})  # type: ignore[attr-defined]
    return {item["name"]: np.array(item["data"], "float32").reshape(item["shape"]) for item in answer["outputs"]}


REFUSED = [
    "unknown type",
    "size zero",
    "reshape",
    "name of the model",
    "misspelt field",
    "field twice",
    "negative batch",
    "KIND_TPU",
    "GPUs of a CPU",
    "preferred size",
    "label file",
    "served version",
    "no library",
    "missing library",
    "truncated library",
    "truncated model",
    "truncated configuration",
    "no model",
    "version v1",
    "version 01",
]
"""Faults that the server itself sees, or ONNX Runtime; the others its ONNX Runtime backend would, which is not here."""


def test_it_refuses_what_the_check_refuses(folder: Path, tmp_path: Path) -> None:
    """Every fault in a model of its own, in one repository."""
    for index, fault in enumerate(REFUSED):
        one = tmp_path / f"{index}"
        shutil.copytree(folder / "net", one / "net")
        FAULTS[fault].change(one)
        shutil.move(one / "net", tmp_path / "all" / f"net{index}")
        config = tmp_path / "all" / f"net{index}" / "config.pbtxt"
        config.write_text(config.read_text().replace('name: "net"', f'name: "net{index}"'))
    shutil.copytree(folder / "squares", tmp_path / "all" / "squares")
    check = deploydcn.check_triton_repository(tmp_path / "all", tritonserver=PROGRAM)
    models = {problem.path.relative_to(tmp_path / "all").parts[0] for problem in check.problems}
    assert models == {f"net{index}" for index in range(len(REFUSED))}
    refused = {problem.path.name for problem in check.problems if "tritonserver does not load it" in problem.message}
    assert refused == models
    assert check.server == f"triton 2.51.0 loaded 1 of {len(REFUSED) + 1}"


def test_a_server_that_does_not_start(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "tritonserver"
    broken.write_text("#!/bin/sh\necho no such library\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(deploydcn.RuntimeFailure, match="ended with exit code 3: no such library"):
        deploydcn.check_triton_repository(folder, tritonserver=broken)
