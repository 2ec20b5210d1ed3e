"""Uvicorn's HTTP connection with a limit on how long a request's headers may take, and requests that end with it."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

TASK, LEFT = "deploydcn.task", "deploydcn.left"
"""Keys of a request's scope: the task to cancel when its client leaves, set by who answers it; and whether that happened."""


class TimedHttpProtocol(HttpToolsProtocol):
    """Closes a connection whose headers are not complete in time: uvicorn itself would wait for them for ever."""

    header_timeout: ClassVar[float]
    _timer: asyncio.TimerHandle | None = None

    @classmethod
    def with_timeout(cls, seconds: float) -> type[TimedHttpProtocol]:
        """The class for `uvicorn.Config(http=...)`."""
        return type(cls.__name__, (cls,), {"header_timeout": seconds})

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)
        scope: dict[str, Any] = getattr(self, "scope", {})
        if task := scope.get(TASK):
            scope[LEFT] = True
            task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._arm()  # the first bytes of a further request
        super().data_received(data)

    def on_headers_complete(self) -> None:
        self._disarm()
        super().on_headers_complete()

    def _arm(self) -> None:
        self._timer = self.loop.call_later(self.header_timeout, self._expired)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expired(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()
