"""Small models, and servers on free ports."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploydcn.serving.options import ModelOptions, ServerOptions
from deploydcn.serving.server import Server


def write_model(
    path: Path, nodes: Sequence[onnx.NodeProto], inputs: dict[str, Any], outputs: dict[str, Any], weights: Sequence[Any] = ()
) -> Path:
    """inputs, outputs: name -> (type, shape)."""
    described = [[helper.make_tensor_value_info(name, *info) for name, info in side.items()] for side in (inputs, outputs)]
    graph = helper.make_graph(list(nodes), "model", *described, list(weights))
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def write_linear(path: Path, *, factor: float = 1.0, rows: Any = "n") -> Path:
    """y = factor * x @ W, x: (rows, 4), y: (rows, 3)."""
    weight = (factor * np.random.default_rng(0).standard_normal((4, 3))).astype(np.float32)
    return write_model(
        path,
        [helper.make_node("MatMul", ["x", "W"], ["y"])],
        {"x": (TensorProto.FLOAT, [rows, 4])},
        {"y": (TensorProto.FLOAT, [rows, 3])},
        [numpy_helper.from_array(weight, "W")],
    )


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    return write_linear(tmp_path / "linear.onnx")


class Running:
    """A server on a thread of its own."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.server, self.loop = server, loop

    @property
    def http(self) -> str:
        return f"127.0.0.1:{self.server.http_port}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.server.grpc_port}"

    def call(self, coroutine: Any) -> Any:
        """Run something on the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)


@contextmanager
def running(sources: Sequence[str | Path], models: ModelOptions | None = None, **options: Any) -> Iterator[Running]:
    """A server that answers, stopped and drained at the end."""
    loop = asyncio.new_event_loop()
    server = Server(sources, models or ModelOptions(threads=1), ServerOptions(**{"http": 0, "grpc": 0, "drain": 5.0, **options}))
    ready = threading.Event()
    failure: list[BaseException] = []

    def work() -> None:
        try:
            loop.run_until_complete(server.run(lambda _: ready.set()))
        except BaseException as error:
            failure.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait(30)
    try:
        if failure:
            raise failure[0]
        yield Running(server, loop)
    finally:
        if not failure:
            loop.call_soon_threadsafe(server.stop)
        thread.join(30)
        loop.close()
        assert not thread.is_alive(), "the server did not stop"
    if failure:
        raise failure[0]
