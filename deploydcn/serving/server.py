"""The server as a process: both protocols on one event loop, until a signal, without losing what was accepted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import uvicorn

from deploydcn.errors import RuntimeFailure
from deploydcn.serving.grpc_service import create_handlers
from deploydcn.serving.http_app import HttpApp
from deploydcn.serving.http_protocol import TimedHttpProtocol
from deploydcn.serving.options import ModelOptions, ServerOptions
from deploydcn.serving.repository import Repository
from deploydcn.serving.service import Service

log = logging.getLogger("deploydcn.serving")

LINGER = 1.0
"""Seconds for which idle connections stay open when the server is told to stop: a request may be on its way to it."""


class Server:
    """Start, know the ports, stop.

    Args:
        sources: see Repository.
        models, options: how models are run, and how the server answers.
    """

    def __init__(self, sources: Sequence[str | Path], models: ModelOptions | None = None, options: ServerOptions | None = None) -> None:
        self.options = options or ServerOptions()
        self.service = Service(Repository(sources, models or ModelOptions()), self.options)
        self.http_port: int | None = None
        self.grpc_port: int | None = None
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Begin to drain; to be called on the event loop's thread."""
        self._stop.set()

    async def run(self, started: Callable[[Server], None] | None = None) -> None:
        """Load the models, answer until `stop`, drain. started: called once both protocols answer.

        Raises:
            UserError: a model cannot be loaded, or a port is taken.
        """
        await self.service.repository.load_all()
        async with contextlib.AsyncExitStack() as stack:
            if self.options.grpc is not None:
                self.grpc_port = await stack.enter_async_context(_serve_grpc(self.service))
            if self.options.http is not None:
                self.http_port = await stack.enter_async_context(_serve_http(self.service))
            if self.options.watch is not None:
                stack.push_async_callback(_cancelled, asyncio.create_task(self._watch(self.options.watch)))
            if started is not None:
                started(self)
            await self._stop.wait()
            self.service.draining = True
            log.info("draining, for at most %g s", self.options.drain)
        await self.service.repository.close()

    async def _watch(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.service.repository.reload_changed()
            except Exception:
                log.exception("the model files cannot be looked at")


def serve(
    sources: Sequence[str | Path],
    models: ModelOptions | None = None,
    options: ServerOptions | None = None,
    *,
    started: Callable[[Server], None] | None = None,
) -> None:
    """Serve models until SIGTERM or SIGINT; SIGHUP loads changed files. See `Server`."""

    async def main() -> None:
        server = Server(sources, models, options)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.stop)
        reloads: set[asyncio.Task[None]] = set()

        def reload() -> None:
            task = loop.create_task(server.service.repository.reload_changed())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        loop.add_signal_handler(signal.SIGHUP, reload)
        await server.run(started)

    loop = _new_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


class _Uvicorn(uvicorn.Server):
    """Uvicorn, whose signals are handled elsewhere: on SIGTERM, gRPC drains too."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def _serve_http(service: Service) -> AsyncIterator[int]:
    """Answer HTTP; gives the port."""
    options = service.options
    tls = options.tls
    config = uvicorn.Config(
        HttpApp(service),
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
        timeout_graceful_shutdown=max(1, round(options.drain)),
        ssl_certfile=None if tls is None else tls.certificate,
        ssl_keyfile=None if tls is None else tls.key,
        ssl_ca_certs=None if tls is None or tls.client_ca is None else str(tls.client_ca),
        ssl_cert_reqs=ssl.CERT_REQUIRED if tls is not None and tls.client_ca is not None else ssl.CERT_NONE,
    )
    server = _Uvicorn(config)
    try:
        socket = config.bind_socket()
    except SystemExit as error:  # uvicorn's way to say that the port is taken
        raise RuntimeFailure(f"cannot listen on {options.host}:{options.http} for HTTP; choose another port") from error
    task = asyncio.create_task(server.serve([socket]))
    while not server.started and not task.done():
        await asyncio.sleep(0.005)
    if task.done():
        await task
    try:
        yield socket.getsockname()[1]
    finally:
        await _drain_http(server, options.drain)
        await task
        socket.close()


async def _drain_http(server: _Uvicorn, limit: float) -> None:
    """No new connections; those that are there get their answers, and then close: by their next answer, or when LINGER is over."""
    for listener in server.servers:
        listener.close()
    for _ in range(round(min(LINGER, limit) / 0.02)):
        if not server.server_state.connections:
            break
        await asyncio.sleep(0.02)
    server.should_exit = True


@contextlib.asynccontextmanager
async def _serve_grpc(service: Service) -> AsyncIterator[int]:
    """Answer gRPC; gives the port."""
    options = service.options
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", options.max_body),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            ("grpc.max_metadata_size", 16 << 10),
        ],
        maximum_concurrent_rpcs=options.max_connections,
    )
    server.add_generic_rpc_handlers((create_handlers(service),))
    address = f"{options.host}:{options.grpc}"
    try:
        credentials = _grpc_credentials(options)
        port = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise RuntimeFailure(f"cannot listen on {address} for gRPC; choose another port") from error
    await server.start()
    try:
        yield port
    finally:
        await server.stop(options.drain)


def _grpc_credentials(options: ServerOptions) -> Any:
    if options.tls is None:
        return None
    authority = None if options.tls.client_ca is None else options.tls.client_ca.read_bytes()
    pair = (options.tls.key.read_bytes(), options.tls.certificate.read_bytes())
    return grpc.ssl_server_credentials([pair], root_certificates=authority, require_client_auth=authority is not None)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed: about a third faster."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
