"""Small models of every kind that the page knows, and a server to put them in."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from PIL import Image

from deploydcn.onnx_schema import DOMAIN, VERSION
from deploydcn.serving.http_app import HttpApp
from deploydcn.serving.options import ModelOptions, ServerOptions
from deploydcn.serving.page import OPEN_PATHS, page_routes
from deploydcn.serving.repository import Repository
from deploydcn.serving.service import Service

HEIGHT, WIDTH = 32, 48


def answering(path: Path, outputs: Mapping[str, np.ndarray], *, inputs: Mapping[str, list[Any]] | None = None, **metadata: str) -> Path:
    """A model file that gives these outputs for whatever image."""
    given = inputs or {"image": [1, 3, HEIGHT, WIDTH]}
    nodes = [onnx.helper.make_node("ReduceMean", [next(iter(given))], ["mean"], keepdims=0)]
    nodes.append(onnx.helper.make_node("Mul", ["mean", "zero"], ["nothing"]))
    tensors = [onnx.numpy_helper.from_array(np.zeros((), np.float32), "zero")]
    for name, array in outputs.items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        tensors.append(onnx.numpy_helper.from_array(array, f"{name}_value"))
        nodes.append(onnx.helper.make_node("Cast", ["nothing"], [f"{name}_nothing"], to=kind))
        nodes.append(onnx.helper.make_node("Add", [f"{name}_value", f"{name}_nothing"], [name]))
    infos = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in outputs.items()
    ]
    taken = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in given.items()]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "answering", taken, infos, tensors), opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9
    )
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def detector(path: Path, *, offset: float = 0.75, **metadata: str) -> Path:
    """A YOLO's head of three classes: every 8 x 8 pixels are a box, how red, green and blue they are its scores.

    Before that a 3x3 deformable convolution moves the image to the left: its points lie `offset` pixels further right than regular ones,
    their masks are 0 to 0.8, and only the middle one has a weight.
    """
    rows, columns = HEIGHT // 8, WIDTH // 8
    y, x = (8 * at.ravel() + 4 for at in np.mgrid[:rows, :columns])
    weight = np.zeros((3, 3, 3, 3), np.float32)
    weight[:, :, 1, 1] = np.eye(3) / 0.4
    offsets = np.zeros((1, 18, HEIGHT, WIDTH), np.float32)
    offsets[:, 1::2] = offset
    constants = {
        "weight": weight,
        "offset": offsets,
        "mask": np.broadcast_to(np.arange(9, dtype=np.float32).reshape(1, 9, 1, 1) / 10, (1, 9, HEIGHT, WIDTH)),
        "places": np.stack([x, y, np.full_like(x, 12), np.full_like(x, 10)])[None].astype(np.float32),
        "head": np.array([1, 3, -1]),
    }
    nodes = [
        onnx.helper.make_node(
            "DeformConv2d", ["image", "weight", "offset", "", "mask"], ["moved"], "moving", domain=DOMAIN, pads=[1, 1, 1, 1]
        ),
        onnx.helper.make_node("AveragePool", ["moved"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
        onnx.helper.make_node("Reshape", ["pooled", "head"], ["scores"]),
        onnx.helper.make_node("Concat", ["places", "scores"], ["output"], axis=1),
    ]
    taken, given = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("image", [1, 3, HEIGHT, WIDTH]), ("output", [1, 7, rows * columns]))
    )
    tensors = [onnx.numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "detector", [taken], [given], tensors),
        opset_imports=[onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid(DOMAIN, VERSION)],
        ir_version=9,
    )
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def picture(height: int = 2 * HEIGHT, width: int = 2 * WIDTH, *, kind: str = "PNG", **options: Any) -> bytes:
    """An image file of random colours."""
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Calls an application as a server would."""

    def __init__(self, app: HttpApp) -> None:
        self._app = app

    async def __call__(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        sent: list[Any] = []
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(key.encode(), value.encode()) for key, value in headers.items()],
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        answered = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
        return Reply(sent[0]["status"], answered, b"".join(message["body"] for message in sent[1:]))


def with_page(source: Path, scenario: Callable[[Client], Awaitable[Any]], **options: Any) -> Any:
    """What a scenario gives that talks to a server of these models, in this process."""

    async def main() -> Any:
        repository = Repository([source], ModelOptions())
        await repository.load_all()
        service = Service(repository, ServerOptions(**options))
        try:
            return await scenario(Client(HttpApp(service, page_routes(service), OPEN_PATHS)))
        finally:
            await repository.close()

    return asyncio.run(main())


@contextmanager
def serving(*arguments: Path | str, token: str | None = None) -> Iterator[str]:
    """A server process; gives its address."""
    command = [str(Path(sys.executable).with_name("deploydcn")), "serve", *map(str, arguments), "--http", "0", "--no-grpc", "--drain", "5"]
    environment = {**os.environ, **({"DEPLOYDCN_TOKEN": token} if token else {})}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if line.startswith("HTTP "))
        yield line.split()[1]
    finally:
        process.terminate()
        assert process.wait(30) == 0
