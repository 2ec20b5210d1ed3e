"""What Ray's proxies run of ours, named to them by import path: `middlewares` for HTTP, `add_servicer` for gRPC."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import grpc
import msgspec
from starlette.middleware import Middleware

from deploydcn.serving.grpc_service import SERVICE, STREAM, UNARY
from deploydcn.serving.http_body import Receive

log = logging.getLogger("ray.serve")

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

ATTEMPTS = 3
"""Replicas that a request is given to, one after another, while they die under it."""

KEPT = 64 << 20
"""Bytes of a request that are kept for a further attempt; one that is larger has one attempt."""

STATUS = {404: 503, 408: 504, 503: 503}
"""Ray's own refusals: its status -> the embedded server's. It knows no path (404) while no application is there."""


def middlewares() -> list[Middleware]:
    """For RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH."""
    return [Middleware(RetryLost)]


class RetryLost:
    """Gives a request that is lost, because the replica that had it died, to another one, and speaks for Ray in the protocol's words.

    That a request may run twice does no harm: inference changes nothing.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"].startswith("/-/"):
            await self._app(scope, receive, send)
            return
        request = _Request(receive)
        for attempt in range(1, ATTEMPTS + 1):
            answer: list[Message] = []

            async def keep(message: Message, answer: list[Message] = answer) -> None:
                answer.append(message)

            await self._app(dict(scope), request.from_the_start(), keep)
            if _complete(answer):
                break
            if request.left:
                return
            if not request.repeatable:
                answer = []
                break
            log.warning("%s %s: its replica died, attempt %d of %d", scope["method"], scope["path"], attempt, ATTEMPTS)
        for message in _in_protocol(answer):
            await send(message)


class _Request:
    """A request's messages as they come, and once more from the start."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: list[Message] = []
        self._size = 0
        self.repeatable, self.left = True, False

    def from_the_start(self) -> Receive:
        """A `receive` that gives all of the request."""
        kept = iter(self._messages)
        self._messages = list(self._messages)

        async def receive() -> Message:
            message = next(kept, None)
            return await self._next() if message is None else message

        return receive

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.left = True
            return message
        self._size += len(message.get("body", b""))
        if self._size > KEPT:
            self.repeatable = False
            self._messages = []
        elif self.repeatable:
            self._messages.append(message)
        return message


def _complete(answer: list[Message]) -> bool:
    return bool(answer) and answer[-1]["type"] == "http.response.body" and not answer[-1].get("more_body")


def _in_protocol(answer: list[Message]) -> list[Message]:
    """An answer as it is if it is a replica's, or what stands for Ray's own."""
    if not _complete(answer):
        return _refusal(500, "the replicas that had this request died", {})
    status, headers = answer[0]["status"], {key.lower(): value for key, value in answer[0].get("headers", ())}
    if status not in STATUS or headers.get(b"content-type") == b"application/json":
        return answer
    if status == 404:
        return _refusal(503, "no application answers here: it is not deployed, or it is being stopped", {b"retry-after": b"1"})
    text = b"".join(message.get("body", b"") for message in answer[1:]).decode(errors="replace")
    return _refusal(STATUS[status], text, {key: headers[key] for key in (b"retry-after", b"x-request-id") if key in headers})


def _refusal(status: int, text: str, headers: Mapping[bytes, bytes]) -> list[Message]:
    body = msgspec.json.encode({"error": text})
    about = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers.items()]
    return [{"type": "http.response.start", "status": status, "headers": about}, {"type": "http.response.body", "body": body}]


def add_servicer(servicer: Any, server: Any) -> None:
    """Register the protocol's calls with Ray's gRPC proxy, which answers none of them itself but passes them on.

    Messages stay the bytes they are: classes of a private descriptor pool could not be pickled on their way to a replica.
    """
    handlers = {name: grpc.unary_unary_rpc_method_handler(None) for name in UNARY}
    handlers[STREAM] = grpc.stream_stream_rpc_method_handler(None)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
