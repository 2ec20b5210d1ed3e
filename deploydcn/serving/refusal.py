"""What a server says when it does not do what was asked."""

from __future__ import annotations


class Refusal(Exception):
    """A request that is not carried out. status: of HTTP; gRPC's code follows from it (see grpc_service).

    retry_after: seconds after which the same request may succeed.
    """

    def __init__(self, message: str, status: int = 400, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after
