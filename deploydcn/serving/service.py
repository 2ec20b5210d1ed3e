"""What the server answers, whatever protocol asks."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Collection
from importlib.metadata import version as package_version
from typing import Any

from deploydcn.serving.options import ServerOptions
from deploydcn.serving.refusal import Refusal
from deploydcn.serving.repository import Repository

NAME = "deploydcn"
VERSION = package_version(NAME)
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")

access_log = logging.getLogger("deploydcn.access")


class Service:
    """The calls of the Open Inference Protocol v2 as plain values; HTTP and gRPC translate.

    draining: set when the server is told to stop; it is not ready any more then, but answers.
    """

    def __init__(self, repository: Repository, options: ServerOptions) -> None:
        self.repository, self.options = repository, options
        self.draining = False

    @property
    def ready(self) -> bool:
        """Whether new requests should come."""
        return not self.draining and any(True for _ in self.repository.loaded())

    def authorize(self, authorization: str | None) -> None:
        """Check a request's Authorization.

        Raises:
            Refusal: a token is needed and this is another (401).
        """
        token = self.options.token
        if token is None:
            return
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
            raise Refusal("wanted the header 'Authorization: Bearer TOKEN' with this server's token", 401)

    def metadata(self) -> dict[str, Any]:
        """Of the server."""
        return {"name": NAME, "version": VERSION, "extensions": list(EXTENSIONS)}

    def model_metadata(self, name: str, version: str = "") -> dict[str, Any]:
        """Names, types and shapes."""
        model = self.repository.get(name, version)
        return {**model.metadata(), "versions": [version] if version else self.repository.versions(name)}

    def model_config(self, name: str, version: str = "") -> dict[str, Any]:
        """See ServedModel.config."""
        return self.repository.get(name, version).config()

    def statistics(self, name: str = "", version: str = "") -> dict[str, Any]:
        """Of one model, or of all."""
        if name:
            models = [self.repository.get(name, version)] if version else [m for m in self.repository.loaded() if m.name == name]
            if not models:
                self.repository.get(name)
        else:
            models = list(self.repository.loaded())
        rows = [{"name": model.name, "version": str(model.version), **model.statistics.to_json()} for model in models]
        return {"model_stats": rows}

    async def load(self, name: str, parameters: Collection[str]) -> None:
        """Load a model of the repository, or load it anew.

        parameters: names of those given. None are taken: files and configurations are not accepted from clients.
        """
        self._check_control(parameters)
        # A client that leaves does not end it: its thread would work on, and the next load beside it.
        await asyncio.shield(self.repository.load(name))

    async def unload(self, name: str) -> None:
        """Let a model go."""
        self._check_control(())
        await self.repository.unload(name)

    def log(self, protocol: str, peer: str, call: str, status: int, seconds: float) -> None:
        """A line in the access log, if there is one."""
        if self.options.access_log:
            access_log.info("%s %s %s %d %.1f ms", peer, protocol, call, status, 1e3 * seconds)

    def _check_control(self, parameters: Collection[str]) -> None:
        if not self.options.controllable:
            raise Refusal("this server does not let clients load or unload models; start it with --model-control", 403)
        if parameters:
            raise Refusal(f"parameter {', '.join(sorted(parameters))} is not accepted: models come from the server's own files")
