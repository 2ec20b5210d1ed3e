"""Both protocols' sockets: opened, and closed without losing what was accepted."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import uvicorn
from starlette.types import ASGIApp

from deploydcn.errors import RuntimeFailure
from deploydcn.serving.grpc_service import create_handlers
from deploydcn.serving.http_protocol import TimedHttpProtocol
from deploydcn.serving.options import ServerOptions, url_host
from deploydcn.serving.service import Service

LINGER = 1.0
"""Seconds for which idle connections stay open when the server is told to stop: a request may be on its way to it."""


@dataclass(frozen=True)
class Listener:
    """A protocol that answers. drain: take nothing new, answer the rest, close; within the limit of the options."""

    port: int
    drain: Callable[[], Awaitable[None]]


class _Uvicorn(uvicorn.Server):
    """Uvicorn, whose signals are handled elsewhere: on SIGTERM, gRPC drains too."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def listen_http(app: ASGIApp, options: ServerOptions) -> Listener:
    """Answer HTTP.

    Raises:
        RuntimeFailure: the address or port cannot be had.
    """
    tls = options.tls
    config = uvicorn.Config(
        app,
        host=options.host,
        port=options.http or 0,
        http=TimedHttpProtocol.with_timeout(options.header_timeout),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=options.max_connections,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=max(1, round(options.drain - LINGER)),
        ssl_certfile=None if tls is None else tls.certificate,
        ssl_keyfile=None if tls is None else tls.key,
        ssl_ca_certs=None if tls is None or tls.client_ca is None else str(tls.client_ca),
        ssl_cert_reqs=ssl.CERT_REQUIRED if tls is not None and tls.client_ca is not None else ssl.CERT_NONE,
    )
    server = _Uvicorn(config)
    try:
        socket = config.bind_socket()
    except (SystemExit, OSError) as error:  # uvicorn leaves, where the port is taken
        raise RuntimeFailure(f"cannot listen on {options.host}:{options.http} for HTTP; choose another address or port") from error
    task = asyncio.create_task(server.serve([socket]))
    while not server.started and not task.done():
        await asyncio.sleep(0.005)
    if task.done():
        await task

    async def drain() -> None:
        for listener in server.servers:
            listener.close()
        # Connections close by their next answer, which says so; those that stay idle after this.
        for _ in range(round(min(LINGER, options.drain) / 0.02)):
            if not server.server_state.connections:
                break
            await asyncio.sleep(0.02)
        server.should_exit = True
        await task
        socket.close()

    return Listener(socket.getsockname()[1], drain)


async def listen_grpc(service: Service) -> Listener:
    """Answer gRPC.

    Raises:
        RuntimeFailure: the address or port cannot be had.
    """
    options = service.options
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", min(options.max_body, 2**31 - 1)),  # what its integers hold
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            ("grpc.max_metadata_size", 16 << 10),
        ],
        maximum_concurrent_rpcs=options.max_connections,
    )
    server.add_generic_rpc_handlers((create_handlers(service),))
    address = f"{url_host(options.host)}:{options.grpc}"
    try:
        credentials = _credentials(options)
        port = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise RuntimeFailure(f"cannot listen on {address} for gRPC; choose another address or port") from error
    await server.start()
    return Listener(port, lambda: server.stop(options.drain))


def _credentials(options: ServerOptions) -> Any:
    if options.tls is None:
        return None
    authority = None if options.tls.client_ca is None else options.tls.client_ca.read_bytes()
    pair = (options.tls.key.read_bytes(), options.tls.certificate.read_bytes())
    return grpc.ssl_server_credentials([pair], root_certificates=authority, require_client_auth=authority is not None)
