"""The routes of the page: its files, and what it asks for."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from deploydcn._lazy import lazy_import
from deploydcn.serving.http_body import read_body
from deploydcn.serving.model import ServedModel
from deploydcn.serving.page.layers import LayerWatcher, describe_layers, sampled_points
from deploydcn.serving.page.pictures import ImageTask, read_picture
from deploydcn.serving.page.results import describe_outputs
from deploydcn.serving.refusal import Refusal
from deploydcn.serving.request import InferRequest
from deploydcn.serving.service import Service
from deploydcn.visual.photo import Photo

FILES = {"/": ("index.html", "text/html"), "/page.js": ("page.js", "text/javascript"), "/page.css": ("page.css", "text/css")}

OPEN_PATHS = frozenset(FILES)
"""What a browser gets without a token: the page, which then asks for it. Whatever it tells of models needs the token."""

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}

MOST_REQUESTS = 8
"""Under way at once; further ones get 503. Their images are in memory, the model's own limits come after that."""

MOST_BYTES = 32 << 20
"""Of an image file."""

T = TypeVar("T")


def page_routes(service: Service) -> list[BaseRoute]:
    """GET / and its files, POST /demo/NAME and /demo/NAME/layers.

    Raises:
        MissingDependency: Pillow is not installed.
    """
    lazy_import("PIL.Image", extra="serve", package="pillow")
    page = _Page(service)
    return [
        *(_file_route(path, *kind) for path, kind in FILES.items()),
        Route("/demo/{name}", page.answer, methods=["POST"]),
        Route("/demo/{name}/layers", page.layers, methods=["POST"]),
    ]


def _file_route(path: str, file: str, media_type: str) -> Route:
    content = (Path(__file__).parent / file).read_bytes()

    async def send(request: Request) -> Response:
        return Response(content, headers=HEADERS, media_type=media_type)

    return Route(path, send)


class _Page:
    """Reads images and results on threads of its own; the model runs in its queue, like for any other request."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._pictures = ThreadPoolExecutor(2, thread_name_prefix="deploydcn-page")
        self._watching = ThreadPoolExecutor(1, thread_name_prefix="deploydcn-layers")
        self._watcher = LayerWatcher()
        self._under_way = 0

    async def answer(self, request: Request) -> Response:
        """POST /demo/NAME: the body is an image file; what the model finds in it, and how long that took."""
        model = self._model(request)
        with self._place():
            body = await self._body(request)
            task = ImageTask.of(model.inputs, model.file_metadata)
            times = [time.perf_counter()]
            photo, inputs, size = await self._on(self._pictures, _prepare, task, body)
            times.append(time.perf_counter())
            outputs = await model.infer(InferRequest(inputs), self._service.options.timeout)
            times.append(time.perf_counter())
            found = await self._on(self._pictures, describe_outputs, outputs, photo, task.names)
            times.append(time.perf_counter())
        spent = [1e3 * (end - begin) for begin, end in pairwise(times)]
        return _json(
            {
                "image": size,
                "input": list(photo.size),
                **found,
                "milliseconds": {**dict(zip(("decode", "model", "results"), spent, strict=True)), "server": sum(spent)},
            }
        )

    async def layers(self, request: Request) -> Response:
        """POST /demo/NAME/layers: the body is an image file; the model's deformable layers. With ?layer=INDEX&y=ROW&x=COLUMN[&group=0]
        where the output pixel at that place of the image samples it."""
        model = self._model(request)
        query = request.query_params
        index = _number(query["layer"], "layer") if "layer" in query else None
        place = (_coordinate(query.get("y"), "y"), _coordinate(query.get("x"), "x")) if index is not None else (0.0, 0.0)
        group = _number(query.get("group", "0"), "group")

        def work(body: bytes | bytearray) -> Any:
            photo, layers = self._watcher.layers(model, body)
            return describe_layers(photo, layers) if index is None else sampled_points(photo, layers, index, place, group)

        with self._place():
            body = await self._body(request)
            return _json(await self._on(self._watching, work, body))

    def _model(self, request: Request) -> ServedModel:
        return self._service.repository.get(request.path_params["name"], request.query_params.get("version", ""))

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._under_way >= MOST_REQUESTS:
            raise Refusal(f"{self._under_way} images are being worked on; try again", 503, retry_after=1)
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    async def _body(self, request: Request) -> bytes | bytearray:
        options = self._service.options
        limit = min(options.max_body, MOST_BYTES)
        return await read_body(dict(request.scope["headers"]), request.receive, limit=limit, timeout=options.timeout)

    async def _on(self, threads: Executor, function: Callable[..., T], *arguments: Any) -> T:
        """Run it on a thread; what has not begun when the time is over never begins."""
        limit = self._service.options.timeout
        future = asyncio.get_running_loop().run_in_executor(threads, function, *arguments)
        try:
            return await asyncio.wait_for(future, limit)
        except asyncio.TimeoutError:
            raise Refusal(f"not answered within {limit:g} s", 504) from None


def _prepare(task: ImageTask, body: bytes | bytearray) -> tuple[Photo, dict[str, np.ndarray], list[int]]:
    image = read_picture(body)
    photo, inputs = task.prepare(image)
    return photo, inputs, list(image.shape[:2])


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise Refusal(f"{name} is {text[:40]!r}; wanted a number from 0")
    return int(text)


def _coordinate(text: str | None, name: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not abs(value) < 1e9:
        raise Refusal(f"{name} is {(text or '')[:40]!r}; wanted a place in the image, in pixels from its upper left corner")
    return value


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
