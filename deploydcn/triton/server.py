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
from pathlib import Path
from typing import Any

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
    with _running(program, repository) as (ask, log):
        about = ask("GET", "v2")
        index = {item["name"]: item for item in _loaded(ask)}
        problems = []
        for name in names:
            item = index.get(name, {})
            if item.get("state") != "READY":
                reason = item.get("reason", "").strip().partition("\n")[0] or _last_words(log, name)
                problems.append(Problem(repository / name, None, f"tritonserver does not load it: {reason}"))
                continue
            metadata, config = ask("GET", f"v2/models/{name}"), ask("GET", f"v2/models/{name}/config")
            for kind in ("input", "output"):
                told, configured = ([tensor["name"] for tensor in tensors] for tensors in (metadata[f"{kind}s"], config[kind]))
                if told != configured:
                    problems.append(
                        Problem(repository / name / CONFIG, None, f"tritonserver has {kind}s {told}, its configuration {configured}")
                    )
    ready = len(names) - len({problem.path for problem in problems})
    return f"{about['name']} {about['version']} loaded {ready} of {len(names)}", problems


def _loaded(ask: Any) -> list[dict[str, str]]:
    """What the server has of every model, when it is done loading."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        index: list[dict[str, str]] = ask("POST", "v2/repository/index")
        if all(item.get("state") != "LOADING" for item in index):
            return index
        if time.monotonic() > deadline:
            raise RuntimeFailure(f"tritonserver still loads after {START_SECONDS} s: {index}")
        time.sleep(0.2)


def _last_words(log: Any, name: str) -> str:
    """What the log says of a model that the server did not even try to load."""
    log.seek(0)
    errors = [line for line in log.read().splitlines() if line[:1] in "EW" and f"'{name}'" in line]
    return errors[-1].partition("] ")[2].strip('"') if errors else "it gives no reason"


@contextmanager
def _running(program: Path, repository: Path) -> Iterator[Any]:
    port = _free_port()
    options = ["--model-control-mode=none", "--exit-on-error=false", "--strict-readiness=false", "--exit-timeout-secs=5"]
    options += ["--http-address=127.0.0.1", f"--http-port={port}", "--allow-grpc=false", "--allow-metrics=false"]
    if any(repository.glob("*/*/model.plan")):
        plugins = repository / PLUGIN_LIBRARY
        options.append(f"--backend-config=tensorrt,plugins={plugins.resolve() if plugins.is_file() else plugin_library_path()}")
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        command = [str(program), f"--model-repository={repository.resolve()}", *options]
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)

        def ask(method: str, path: str) -> Any:
            request = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", data=b"{}" if method == "POST" else None, method=method)
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as response:
                body = response.read()
            return json.loads(body) if body else None

        try:
            _wait(server, ask, log)
            yield ask, log
        finally:
            _stop(server)


def _wait(server: subprocess.Popen[bytes], ask: Any, log: Any) -> None:
    """Until the server answers, which it does when every model is loaded or refused."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            ask("GET", "v2/health/ready")
            return
        except OSError:  # refused, reset, or an HTTP status: not yet
            pass
        if server.poll() is not None or time.monotonic() > deadline:
            log.seek(0)
            last = " / ".join(log.read().strip().splitlines()[-5:])
            state = "still is not ready" if server.returncode is None else f"ended with exit code {server.returncode}"
            raise RuntimeFailure(f"tritonserver {state}: {last}")
        time.sleep(0.1)


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End the server and what it started."""
    server.send_signal(signal.SIGTERM)
    try:
        with suppress(subprocess.TimeoutExpired):
            server.wait(STOP_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
