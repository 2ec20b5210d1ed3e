"""The Open Inference Protocol v2 over HTTP: an ASGI application."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router

from deploydcn.serving import http_codec, metrics
from deploydcn.serving.http_body import Receive, read_body
from deploydcn.serving.http_protocol import LEFT, TASK
from deploydcn.serving.openapi import describe
from deploydcn.serving.refusal import Refusal
from deploydcn.serving.service import Service
from deploydcn.serving.tracing import span

log = logging.getLogger("deploydcn.serving")

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

OPEN = ("/v2/health/live", "/v2/health/ready")
"""What answers without a token: who asks is the machine's supervisor."""


_MISSING = {404: "there is nothing under this path; see /openapi.json", 405: "this path has other methods"}


class IndexBody(msgspec.Struct):
    """Of POST /v2/repository/index."""

    ready: bool = False


class LoadBody(msgspec.Struct):
    """Of POST /v2/repository/models/NAME/load and unload."""

    parameters: dict[str, Any] = {}


class HttpApp:
    """Routes under /v2, /metrics and /openapi.json, and `pages` beside them.

    Every refusal is JSON, {"error": text}; a request never ends in a traceback for its client.

    pages: further routes. open_paths: those of them that answer without a token.
    """

    def __init__(self, service: Service, pages: list[BaseRoute] | None = None, open_paths: frozenset[str] = frozenset()) -> None:
        self.service = service
        self._open_paths = {*OPEN, *open_paths}
        self._router = Router([*_routes(service), *(pages or ())])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        begin, status = time.perf_counter(), 500
        started = False

        async def send_on(message: MutableMapping[str, Any]) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                started, status = True, message["status"]
                if self.service.draining:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        scope["app"] = self  # makes the router raise what it has no route for
        headers = dict(scope["headers"])
        try:
            path = scope["path"]
            with span(scope["method"], _text(headers), {"http.request.method": scope["method"], "url.path": path}):
                if path not in self._open_paths:
                    self.service.authorize(headers.get(b"authorization", b"").decode("latin-1"))
                await self._router(scope, receive, send_on)
        except asyncio.CancelledError:
            if scope.get(LEFT):
                status = 499
                return
            if started or not self.service.draining:
                raise
            await _refusal_response(Refusal("the server stops before this is answered", 503))(scope, receive, send_on)
        except Exception as error:
            if started:
                raise
            await _refusal_response(error)(scope, receive, send_on)
        finally:
            client = scope.get("client") or ("", 0)
            raw = scope.get("raw_path") or b""  # escaped: a path cannot write lines of its own into the log
            self.service.log("http", str(client[0]), f"{scope['method']} {raw.decode('latin-1')}", status, time.perf_counter() - begin)


def _routes(service: Service) -> list[BaseRoute]:
    repository = service.repository

    async def live(request: Request) -> Response:
        return Response()

    async def ready(request: Request) -> Response:
        return Response(status_code=200 if service.ready else 400)

    async def metadata(request: Request) -> Response:
        return _json(service.metadata())

    async def model_ready(request: Request) -> Response:
        repository.get(**_model(request))
        return Response(status_code=400 if service.draining else 200)

    async def model_metadata(request: Request) -> Response:
        return _json(service.model_metadata(**_model(request)))

    async def model_config(request: Request) -> Response:
        return _json(service.model_config(**_model(request)))

    async def statistics(request: Request) -> Response:
        return _json(service.statistics(**_model(request)))

    async def index(request: Request) -> Response:
        body = await _parse(request, service, IndexBody)
        return _json(repository.index(ready=body.ready))

    async def load(request: Request) -> Response:
        body = await _parse(request, service, LoadBody)
        await service.load(request.path_params["name"], body.parameters.keys())
        return Response()

    async def unload(request: Request) -> Response:
        await _parse(request, service, LoadBody)
        await service.unload(request.path_params["name"])
        return Response()

    async def scrape(request: Request) -> Response:
        return Response(metrics.render(service), media_type="text/plain; version=0.0.4")

    async def description(request: Request) -> Response:
        return _json(describe(service))

    routes: list[BaseRoute] = []
    for model in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        routes += [
            Route(f"{model}/infer", _Infer(service), methods=["POST"]),
            Route(model, model_metadata),
            Route(f"{model}/ready", model_ready),
            Route(f"{model}/config", model_config),
            Route(f"{model}/stats", statistics),
        ]
    return [
        # "stats" would be read as a model's name
        Route("/v2/models/stats", statistics),
        *routes,
        Route("/v2", metadata),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
        Route("/v2/repository/index", index, methods=["POST"]),
        Route("/v2/repository/models/{name}/load", load, methods=["POST"]),
        Route("/v2/repository/models/{name}/unload", unload, methods=["POST"]),
        Route("/metrics", scrape),
        Route("/openapi.json", description),
    ]


_JOINED = 1 << 16
"""Bytes up to which copying an answer together costs less than sending it in parts."""


class _Infer:
    """POST .../infer, as plain ASGI: this one has to be fast."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        options = self._service.options
        parameters = scope["path_params"]
        scope[TASK] = asyncio.current_task()
        model = self._service.repository.get(parameters["name"], parameters.get("version", ""))
        headers = dict(scope["headers"])
        body = await read_body(headers, receive, limit=options.max_body, timeout=options.timeout)
        request, asked = http_codec.decode(body, _header_length(headers))
        outputs = await model.infer(request, options.timeout)
        parts, header_length = http_codec.encode(outputs, asked, model=model.name, version=str(model.version))
        size = sum(map(len, parts))
        answer = [
            (b"content-type", b"application/json" if header_length is None else b"application/octet-stream"),
            (b"content-length", str(size).encode()),
        ]
        if header_length is not None:
            answer.append((b"inference-header-content-length", str(header_length).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": answer})
        if size <= _JOINED:
            parts = [b"".join(parts)]
        for part in parts[:-1]:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": parts[-1]})


def _header_length(headers: Mapping[bytes, bytes]) -> int | None:
    text = headers.get(b"inference-header-content-length")
    if text is None:
        return None
    if not text.isdigit() or len(text) > 18:
        raise Refusal(f"Inference-Header-Content-Length is {text[:40].decode('latin-1')!r}; wanted a number of bytes")
    return int(text)


def _model(request: Request) -> dict[str, str]:
    """The name and version in a path, as far as they are there."""
    return {key: value for key, value in request.path_params.items() if key in ("name", "version")}


async def _parse(request: Request, service: Service, kind: type[Any]) -> Any:
    options = service.options
    headers = dict(request.scope["headers"])
    body = await read_body(headers, request.receive, limit=options.max_body, timeout=options.timeout)
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(f"the request's JSON cannot be read: {error}") from error


def _refusal_response(error: Exception) -> Response:
    if isinstance(error, Refusal):
        headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
        if error.status in (408, 413):
            headers["connection"] = "close"  # the rest of the body is not read
        if error.status == 401:
            headers["www-authenticate"] = "Bearer"
        return _json({"error": str(error)}, error.status, headers)
    if isinstance(error, HTTPException):
        text = _MISSING.get(error.status_code, error.detail)
        return _json({"error": text}, error.status_code, dict(error.headers or {}))
    log.error("a request failed", exc_info=error)
    return _json({"error": "a bug in the server; its log says more"}, 500)


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")


def _text(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    """What carries a trace from caller to callee."""
    return {key.decode(): headers[key].decode("latin-1") for key in (b"traceparent", b"tracestate", b"baggage") if key in headers}
