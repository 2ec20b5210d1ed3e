"""`deploydcn serve --ray`: a Ray of our own on this machine, or one that runs already, with the application until a signal."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from deploydcn._lazy import lazy_import
from deploydcn.errors import InvalidArgument, RuntimeFailure
from deploydcn.serving.options import ModelOptions, Scaling, ServerOptions, is_loopback
from deploydcn.serving.repository import Repository

APPLICATION = "deploydcn"
LINGER = 3.0
"""Seconds for which the proxies stay after the last replica: its answers are on their way through them."""

STOP = (signal.SIGTERM, signal.SIGINT)
PROXY = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deploydcn.serving.ray_proxy:middlewares"}
"""What the environment of a cluster's Ray must hold for requests to outlive the replica that had them."""

HIGH_THROUGHPUT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(1 << 20),
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3",
}
"""The same for HAProxy in place of Ray's own proxy. It gives a request to another replica if it fits into its buffer (bytes)."""


@dataclass(frozen=True)
class Cluster:
    """Which Ray. address: of one that runs, "auto" finds it; None starts one. high_throughput: with HAProxy, if it is started here."""

    address: str | None = None
    high_throughput: bool = False

    def __post_init__(self) -> None:
        if self.high_throughput and self.address is not None:
            variables = " ".join(f"{name}='{value}'" for name, value in HIGH_THROUGHPUT.items())
            raise InvalidArgument(f"--high-throughput has to be said where Ray is started: {variables} ray start ...; leave it out here")


def serve_on_ray(
    sources: Sequence[str],
    models: ModelOptions,
    options: ServerOptions,
    scaling: Scaling,
    cluster: Cluster,
    *,
    started: Callable[[ServerOptions], None] | None = None,
) -> None:
    """Run the application until SIGTERM or SIGINT, then let the replicas finish what they have. started: called once it answers, with
    the ports that were free where 0 was asked for.

    Raises:
        UserError: the models cannot be found or loaded, Ray cannot be started or found, or a port is taken.
    """
    _check(options, cluster)
    sources = [_absolute(source) for source in sources]
    if cluster.address is None:  # what is wrong is said before Ray is started
        Repository(sources, models)
        grpc = None if options.grpc is None else _free_port(options.host, options.grpc)
        options = replace(options, http=_free_port(options.host, options.http or 0), grpc=grpc)
    with contextlib.ExitStack() as stack:
        if cluster.address is None:
            stack.enter_context(_environment(options, cluster))
        serve = lazy_import("ray.serve", extra="ray")
        from deploydcn.serving.ray_app import bind

        application = bind(sources, models, options, scaling)
        stack.enter_context(_connected(cluster, scaling))
        for number in STOP:
            signal.signal(number, _leave)
        _start_proxies(options, cluster)
        stop = threading.Event()
        try:
            serve.run(application, name=APPLICATION, route_prefix="/")
            for number in STOP:
                signal.signal(number, lambda *_: stop.set())
            if started is not None:
                started(options)
            stop.wait()
            logging.getLogger("deploydcn.serving").info("draining, for at most %g s", options.drain)
        except RuntimeError as error:
            raise RuntimeFailure(f"the replicas do not start: {error}") from error
        finally:
            serve.delete(APPLICATION)  # when the replicas have answered what they had
            if cluster.address is None:
                time.sleep(LINGER)
                serve.shutdown()


def _check(options: ServerOptions, cluster: Cluster) -> None:
    if options.http is None:
        raise InvalidArgument("Ray Serve always answers HTTP; leave --no-http out")
    if cluster.address is not None and 0 in (options.http, options.grpc):
        raise InvalidArgument("a free port, 0, is found for a Ray that is started here; name one for a cluster")
    if options.grpc is not None and is_loopback(options.host):
        raise InvalidArgument(
            f"Ray's gRPC proxy listens on every address of the machine, not only on {options.host}; say --host 0.0.0.0 if that is "
            "wanted, or leave --grpc out"
        )


def _absolute(source: str) -> str:
    """The source as every process finds it, whatever its working directory."""
    name, equals, file = source.partition("=")
    if equals and not Path(source).exists():
        return f"{name}={Path(file).resolve()}"
    return str(Path(source).resolve())


@contextlib.contextmanager
def _environment(options: ServerOptions, cluster: Cluster) -> Iterator[None]:
    """What Ray's processes inherit; read when ray.serve is imported and when Ray starts."""
    folder = tempfile.mkdtemp(prefix="deploydcn-ray-")
    values = {"RAY_USAGE_STATS_ENABLED": "0", **PROXY}
    if is_loopback(options.host):
        values["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray's name for: this machine only, by its loopback address
    if cluster.high_throughput:
        values |= {
            **HIGH_THROUGHPUT,
            "RAY_SERVE_HAPROXY_MAXCONN": str(options.max_connections),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(_free_port()),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(_free_port()),
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(_free_port()),
            "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(_free_port()),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
            "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
        }
    os.environ.update({name: value for name, value in values.items() if name not in os.environ})
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port(host: str = "127.0.0.1", port: int = 0) -> int:
    """The port if it is free, or one that is. Ray itself would try a taken one for ever.

    Raises:
        RuntimeFailure: the address or port cannot be had.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            free: int = probe.getsockname()[1]
    except OSError as error:
        raise RuntimeFailure(f"cannot listen on {host}:{port}: {error.strerror}; choose another port") from error
    return free


@contextlib.contextmanager
def _connected(cluster: Cluster, scaling: Scaling) -> Iterator[None]:
    import ray

    try:
        if cluster.address is None:
            # Processors are what replicas are placed by, not what they may use: one machine runs as many as it is told to.
            cpus = max(os.cpu_count() or 1, round(scaling.most * scaling.num_cpus + 0.5))
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, logging_level=logging.WARNING)
        else:
            ray.init(address=cluster.address, logging_level=logging.WARNING)
    except Exception as error:  # Ray raises that very class where a process of its own is late
        raise RuntimeFailure(f"Ray {'is not there' if cluster.address else 'does not start'}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _leave(number: int, frame: Any) -> NoReturn:
    """A signal while the replicas start. Ray's own handler would abort the process and leave others behind."""
    sys.exit(128 + number)


def _start_proxies(options: ServerOptions, cluster: Cluster) -> None:
    from ray import serve
    from ray.serve.context import _get_global_client

    grpc: dict[str, Any] | None = None
    if options.grpc is not None:
        grpc = {
            "port": options.grpc,
            "grpc_servicer_functions": ["deploydcn.serving.ray_proxy.add_servicer"],
            "request_timeout_s": options.timeout,
            "enable_reflection": False,  # it knows the messages of protobuf's default pool only
        }
    http = {"host": options.host, "port": options.http, "request_timeout_s": options.timeout, "keep_alive_timeout_s": 60}
    try:
        serve.start(http_options=http, grpc_options=grpc, logging_config={"enable_access_log": False, "log_level": "WARNING"})
    except RuntimeError as error:
        raise RuntimeFailure(f"cannot listen on {options.host}:{options.http} for HTTP; choose another port: {error}") from error
    client = _get_global_client()
    assert client is not None
    there = client.http_config
    if cluster.address is not None and (there.host, there.port) != (options.host, options.http):
        raise RuntimeFailure(
            f"this cluster's Serve was started before, on {there.host}:{there.port}; give --host {there.host} --http {there.port}, "
            "or end it with 'serve shutdown'"
        )
