"""A real tritonserver, asked what it thinks of a repository."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from deploydcn.errors import RuntimeFailure
from deploydcn.libraries import PLUGIN_LIBRARY, plugin_library_path
from deploydcn.triton.report import Problem
from deploydcn.triton.repository import CONFIG

START_SECONDS = 300
"""How long a server may take to load everything."""

STOP_SECONDS = 20
"""How long it may take to end, with nothing under way."""


def load_on_server(program: Path, repository: Path, names: Sequence[str]) -> tuple[str, list[Problem]]:
    """Start a server on a repository, ask it for its models, end it. What it said, and what it refused.

    Raises:
        RuntimeFailure: the server does not start, or takes too long.
    """
    with running(program, repository) as server:
        about = server.ask("GET", "v2")
        index = {item["name"]: item for item in server.loaded()}
        problems = []
        for name in names:
            item = index.get(name, {})
            if item.get("state") != "READY":
                reason = item.get("reason", "").strip().partition("\n")[0] or server.last_words(name)
                problems.append(Problem(repository / name, None, f"tritonserver does not load it: {reason}"))
                continue
            metadata, config = server.ask("GET", f"v2/models/{name}"), server.ask("GET", f"v2/models/{name}/config")
            for kind in ("input", "output"):
                told, configured = ([tensor["name"] for tensor in tensors] for tensors in (metadata[f"{kind}s"], config[kind]))
                if told != configured:
                    problems.append(
                        Problem(repository / name / CONFIG, None, f"tritonserver has {kind}s {told}, its configuration {configured}")
                    )
    ready = len(names) - len({problem.path for problem in problems})
    return f"{about['name']} {about['version']} loaded {ready} of {len(names)}", problems


@dataclass(frozen=True)
class Server:
    """A running server. log: what it printed."""

    process: subprocess.Popen[bytes]
    port: int
    log: IO[str]

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON that the server answers a request with.

        Raises:
            RuntimeFailure: it does not answer, or with an error.
        """
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", data=data, method=method)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as response:
                answer = response.read()
        except OSError as error:  # refused, reset, too slow, or an HTTP status
            raise RuntimeFailure(f"tritonserver does not answer {method} {path}: {error}") from error
        return json.loads(answer) if answer else None

    def loaded(self) -> list[dict[str, str]]:
        """What the server has of every model, when it is done loading."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            index: list[dict[str, str]] = self.ask("POST", "v2/repository/index")
            if all(item.get("state") != "LOADING" for item in index):
                return index
            if time.monotonic() > deadline:
                raise RuntimeFailure(f"tritonserver still loads after {START_SECONDS} s: {index}")
            time.sleep(0.2)

    def last_words(self, name: str) -> str:
        """What the log says of a model that the server did not even try to load."""
        self.log.seek(0)
        errors = [line for line in self.log.read().splitlines() if line[:1] in "EW" and f"'{name}'" in line]
        return errors[-1].partition("] ")[2].strip('"') if errors else "it gives no reason"

    def wait(self) -> None:
        """Until the server answers.

        Raises:
            RuntimeFailure: it ended instead, or takes too long.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            with suppress(RuntimeFailure):  # not yet
                self.ask("GET", "v2/health/ready")
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.log.seek(0)
                last = " / ".join(self.log.read().strip().splitlines()[-5:])
                code = self.process.returncode
                state = "is not ready" if code is None else f"ended with exit code {code}"
                raise RuntimeFailure(f"tritonserver {state}: {last}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End the server and what it started."""
        self.process.send_signal(signal.SIGTERM)
        try:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@contextmanager
def running(program: Path, repository: Path) -> Iterator[Server]:
    """A server on a repository, listening on this machine only, with whatever it could load.

    Raises:
        RuntimeFailure: it does not start.
    """
    port = _free_port()
    options = ["--model-control-mode=none", "--exit-on-error=false", "--strict-readiness=false", "--exit-timeout-secs=5"]
    options += ["--http-address=127.0.0.1", f"--http-port={port}", "--allow-grpc=false", "--allow-metrics=false"]
    if any(repository.glob("*/*/model.plan")):
        plugins = repository / PLUGIN_LIBRARY
        options.append(f"--backend-config=tensorrt,plugins={plugins.resolve() if plugins.is_file() else plugin_library_path()}")
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        command = [str(program), f"--model-repository={repository.resolve()}", *options]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)
        server = Server(process, port, log)
        try:
            server.wait()
            yield server
        finally:
            server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
