"""What a server can be told, with defaults that suit one machine and no strangers."""

from __future__ import annotations

import ipaddress
import math
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from deploydcn.errors import InvalidArgument
from deploydcn.serving.batcher import BatchLimits

TOKEN_VARIABLE = "DEPLOYDCN_TOKEN"


@dataclass(frozen=True)
class ModelOptions:
    """How models are run.

    instances: runs of one model under way at once. threads: of ONNX Runtime per run; its default when None. bfloat16, precise: see
    `register_ort_ops`. self_check: compare with MODEL.golden.npz.
    """

    batch: BatchLimits = field(default_factory=BatchLimits)
    instances: int = 1
    threads: int | None = None
    bfloat16: bool = False
    precise: bool = False
    self_check: bool = True

    def __post_init__(self) -> None:
        _at_least("--max-batch", self.batch.size, 0)
        _at_least("--delay-ms", self.batch.delay, 0)
        _at_least("--queue", self.batch.queue, 1)
        _at_least("--instances", self.instances, 1)
        if self.bfloat16 and self.precise:
            raise InvalidArgument("got both --bfloat16 and --precise; wanted one of them")


@dataclass(frozen=True)
class Tls:
    """Files in PEM form. client_ca: clients must show a certificate that one of these authorities signed."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def __post_init__(self) -> None:
        for path in (self.certificate, self.key, self.client_ca):
            if path is not None and not path.is_file():
                raise InvalidArgument(f"{path} does not exist; wanted a PEM file")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.key, password="")  # a server cannot ask for the password of a key
        except OSError as error:
            raise InvalidArgument(
                f"{self.certificate} and {self.key} are no certificate and its key; wanted PEM files without a password: {error}"
            ) from error
        try:
            context.load_verify_locations(self.client_ca or self.certificate)
        except OSError as error:
            raise InvalidArgument(f"{self.client_ca} holds no certificates; wanted a PEM file: {error}") from error


@dataclass(frozen=True)
class ServerOptions:
    """Where a server listens, whom it answers, and its limits.

    http, grpc: ports; 0 takes a free one, None leaves the protocol out. token: bearer token that every call but health needs.
    timeout: seconds that a request's body may take to arrive, and that its answer may take then. max_body: bytes of a request.
    max_connections: over HTTP, and calls under way over gRPC. header_timeout: seconds for a request's headers. drain: seconds for
    requests under way when the server is told to stop. model_control: whether clients may load and unload models; None: if only this
    machine, or clients that show a token or certificate, can reach the server. watch: seconds between looks at the model files,
    which are loaded anew when they change; None: never. page: whether HTTP has a page for browsers at /.
    """

    host: str = "127.0.0.1"
    http: int | None = 8000
    grpc: int | None = 8001
    token: str | None = None
    tls: Tls | None = None
    timeout: float = 30.0
    max_body: int = 64 << 20
    max_connections: int = 512
    header_timeout: float = 10.0
    drain: float = 30.0
    access_log: bool = False
    model_control: bool | None = None
    watch: float | None = None
    page: bool = True

    def __post_init__(self) -> None:
        for name, port in (("--http", self.http), ("--grpc", self.grpc)):
            if port is not None and not 0 <= port <= 65535:
                raise InvalidArgument(f"{name} is {port}; wanted a port, 0 to 65535")
        if self.http is None and self.grpc is None:
            raise InvalidArgument("neither HTTP nor gRPC is served; leave one of --no-http and --no-grpc out")
        if not self.host:
            raise InvalidArgument("--host is empty; wanted an address, 0.0.0.0 for all of the machine's")
        for name, seconds in (("--timeout", self.timeout), ("--header-timeout", self.header_timeout), ("--watch", self.watch)):
            if seconds is not None and not 0 < seconds < math.inf:
                raise InvalidArgument(f"{name} is {seconds:g}; wanted seconds above 0")
        _at_least("--drain", self.drain, 0)
        _at_least("--max-body", self.max_body, 1024)
        _at_least("--max-connections", self.max_connections, 1)
        if self.token is not None and (not self.token or not self.token.isascii() or not self.token.isprintable()):
            raise InvalidArgument("the token is empty or holds characters that headers cannot carry; wanted printable ASCII")

    @property
    def controllable(self) -> bool:
        """Whether clients may load and unload models."""
        if self.model_control is not None:
            return self.model_control
        return self.token is not None or (self.tls is not None and self.tls.client_ca is not None) or is_loopback(self.host)


@dataclass(frozen=True)
class Scaling:
    """How many replicas run, and what each takes.

    replicas: always so many; min_replicas and max_replicas: between these, by the load. num_cpus, num_gpus: that each replica
    reserves; parts of one are allowed. ongoing: requests in a replica at most, others wait in front of it; None: twice what it runs
    at once. target: requests per replica that Ray aims at when it scales; None: what it runs at once. upscale_delay: seconds for
    which the load asks for more replicas before they start.
    """

    replicas: int = 1
    min_replicas: int | None = None
    max_replicas: int | None = None
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    ongoing: int | None = None
    target: float | None = None
    upscale_delay: float = 30.0

    def __post_init__(self) -> None:
        for name, count in (("--replicas", self.replicas), ("--min-replicas", self.min_replicas), ("--max-replicas", self.max_replicas)):
            _at_least(name, 1 if count is None else count, 1)
        if self.autoscales and self.replicas != 1:
            raise InvalidArgument("the number of replicas is either fixed, --replicas, or follows the load, --max-replicas")
        if self.min_replicas is not None and not self.autoscales:
            raise InvalidArgument("--min-replicas is for replicas that follow the load; give --max-replicas too")
        if self.least > self.most:
            raise InvalidArgument(f"--min-replicas is {self.least}, above --max-replicas, {self.most}")
        _at_least("--num-cpus", self.num_cpus, 0)
        _at_least("--num-gpus", self.num_gpus, 0)
        _at_least("--upscale-delay", self.upscale_delay, 0)
        for name, requests in (("--ongoing", self.ongoing), ("--target-ongoing", self.target)):
            if requests is not None and not 0 < requests < math.inf:
                raise InvalidArgument(f"{name} is {requests:g}; wanted a number above 0")

    @property
    def autoscales(self) -> bool:
        """Whether the number of replicas follows the load."""
        return self.max_replicas is not None

    @property
    def least(self) -> int:
        """Replicas that always run."""
        return (self.min_replicas or 1) if self.autoscales else self.replicas

    @property
    def most(self) -> int:
        """Replicas that may run."""
        return self.max_replicas or self.replicas


def read_token(file: Path | None) -> str | None:
    """The bearer token in a file; without one, that of the environment, if there is one.

    Raises:
        InvalidArgument: the file cannot be read.
    """
    if file is None:
        return os.environ.get(TOKEN_VARIABLE)
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"cannot read the token from {file}: {error}") from error


def url_host(host: str) -> str:
    """A host as it stands before ":PORT": IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _at_least(name: str, value: float, least: int) -> None:
    if not least <= value < math.inf:
        raise InvalidArgument(f"{name} is {value:g}; wanted {least} or more")
