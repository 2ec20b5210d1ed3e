"""The server as a process: models and both protocols on one event loop, until a signal."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from deploydcn.serving.http_app import HttpApp
from deploydcn.serving.listeners import Listener, listen_grpc, listen_http
from deploydcn.serving.options import ModelOptions, ServerOptions
from deploydcn.serving.page import OPEN_PATHS, page_routes
from deploydcn.serving.repository import Repository
from deploydcn.serving.service import Service

log = logging.getLogger("deploydcn.serving")


class Server:
    """Start, know the ports, stop.

    Args:
        sources: see Repository.
        models, options: how models are run, and how the server answers.
    """

    def __init__(self, sources: Sequence[str | Path], models: ModelOptions | None = None, options: ServerOptions | None = None) -> None:
        self.options = options or ServerOptions()
        self.service = Service(Repository(sources, models or ModelOptions()), self.options)
        self._listeners: dict[str, Listener] = {}
        self._stop = asyncio.Event()

    @property
    def http_port(self) -> int | None:
        """Where HTTP is answered; None if it is not."""
        return self._listeners["http"].port if "http" in self._listeners else None

    @property
    def grpc_port(self) -> int | None:
        """Where gRPC is answered; None if it is not."""
        return self._listeners["grpc"].port if "grpc" in self._listeners else None

    def stop(self) -> None:
        """Begin to drain; to be called on the event loop's thread."""
        self._stop.set()

    async def run(self, started: Callable[[Server], None] | None = None) -> bool:
        """Load the models, answer until `stop`, drain. started: called once both protocols answer.

        Returns whether all that was accepted is answered; False: a model still runs, on a thread that nobody can end.

        Raises:
            UserError: a model cannot be loaded, or a port is taken.
        """
        await self.service.repository.load_all()
        watch = asyncio.create_task(self._watch())
        try:
            if self.options.grpc is not None:
                self._listeners["grpc"] = await listen_grpc(self.service)
            if self.options.http is not None:
                self._listeners["http"] = await listen_http(create_app(self.service), self.options)
            if started is not None:
                started(self)
            await self._stop.wait()
            log.info("draining, for at most %g s", self.options.drain)
        finally:
            watch.cancel()
            self.service.draining = True
            end = time.monotonic() + self.options.drain
            await asyncio.gather(*(listener.drain() for listener in self._listeners.values()))
        try:
            await asyncio.wait_for(self.service.repository.close(), max(0.5, end - time.monotonic()))
        except asyncio.TimeoutError:
            log.error("a model still runs %g s after the server was told to stop; its requests are not answered", self.options.drain)
            return False
        return True

    async def _watch(self) -> None:
        """Load changed files every now and then."""
        while self.options.watch is not None:
            await asyncio.sleep(self.options.watch)
            try:
                await self.service.repository.reload_changed()
            except Exception:
                log.exception("the model files cannot be looked at")


def create_app(service: Service) -> HttpApp:
    """What answers HTTP, with the page if the options have it."""
    pages = page_routes(service) if service.options.page else []
    return HttpApp(service, pages, OPEN_PATHS if pages else frozenset())


def serve(
    sources: Sequence[str | Path],
    models: ModelOptions | None = None,
    options: ServerOptions | None = None,
    *,
    started: Callable[[Server], None] | None = None,
) -> None:
    """Serve models until SIGTERM or SIGINT; SIGHUP loads changed files. See `Server`.

    Ends the process, with status 1, where a model runs on after the time to drain: Python would wait for its thread.
    """

    async def main() -> bool:
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
        return await server.run(started)

    loop = _new_loop()
    asyncio.set_event_loop(loop)
    try:
        drained = loop.run_until_complete(main())
    finally:
        loop.close()
    if not drained:
        logging.shutdown()
        os._exit(1)


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed: about a third faster."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
