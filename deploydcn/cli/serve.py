"""Answer inference requests: Open Inference Protocol v2 (KServe, Triton) over HTTP and gRPC."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploydcn._lazy import lazy_import
from deploydcn.cli.options import console
from deploydcn.errors import InvalidArgument

if TYPE_CHECKING:
    from deploydcn.serving.options import Scaling, ServerOptions
    from deploydcn.serving.server import Server

# Options of the embedded server that Ray's proxies have nothing like, and those that only Ray has.
NOT_WITH_RAY = ("no_http", "header_timeout", "tls_cert", "tls_key", "tls_client_ca", "model_control", "watch")
ONLY_WITH_RAY = (
    "replicas",
    "min_replicas",
    "max_replicas",
    "num_cpus",
    "num_gpus",
    "ongoing",
    "target_ongoing",
    "upscale_delay",
    "ray_address",
    "high_throughput",
)


def command(
    context: typer.Context,
    models: Annotated[list[str], typer.Argument(help="Model files (.onnx, .engine, .plan), NAME=FILE, or folders of NAME/VERSION/FILE.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all of the machine's.")] = "127.0.0.1",
    http: Annotated[int, typer.Option(help="Port for HTTP; 0 takes a free one.")] = 8000,
    grpc: Annotated[int, typer.Option(help="Port for gRPC; 0 takes a free one.")] = 8001,
    no_http: Annotated[bool, typer.Option("--no-http", help="Do not answer HTTP.")] = False,
    no_grpc: Annotated[bool, typer.Option("--no-grpc", help="Do not answer gRPC.")] = False,
    max_batch: Annotated[int, typer.Option(help="Requests that run together at most; 0 runs each by itself.")] = 8,
    delay_ms: Annotated[float, typer.Option(help="Milliseconds that a request waits for others while nothing runs.")] = 0.0,
    queue: Annotated[int, typer.Option(help="Requests that wait per model at most; further ones get 503.")] = 256,
    instances: Annotated[int, typer.Option(help="Runs of one model under way at once.")] = 1,
    threads: Annotated[int | None, typer.Option(help="Threads of ONNX Runtime per run; its default if left out.")] = None,
    bfloat16: Annotated[bool, typer.Option("--bfloat16", help="Faster, less precise products, with AMX or AVX512-BF16.")] = False,
    precise: Annotated[bool, typer.Option("--precise", help="Slower, more precise products; see README.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds that a request may take.")] = 30.0,
    max_body_mb: Annotated[float, typer.Option(help="Megabytes (2^20 bytes) of a request at most.")] = 64.0,
    max_connections: Annotated[int, typer.Option(help="HTTP connections, and gRPC calls, at once.")] = 512,
    header_timeout: Annotated[float, typer.Option(help="Seconds for a request's headers to arrive.")] = 10.0,
    drain: Annotated[float, typer.Option(help="Seconds for requests under way when the server is told to stop.")] = 30.0,
    token_file: Annotated[Path | None, typer.Option(help="File with the bearer token; or set DEPLOYDCN_TOKEN.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file with the server's certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file with its key.")] = None,
    tls_client_ca: Annotated[Path | None, typer.Option(help="PEM file: clients must show a certificate signed by these.")] = None,
    model_control: Annotated[
        bool | None, typer.Option("--model-control/--no-model-control", help="Clients may load and unload; see README.")
    ] = None,
    watch: Annotated[float | None, typer.Option(help="Seconds between looks for changed model files, which are loaded anew.")] = None,
    no_self_check: Annotated[bool, typer.Option("--no-self-check", help="Do not compare with MODEL.golden.npz.")] = False,
    no_page: Annotated[bool, typer.Option("--no-page", help="No page for browsers at /.")] = False,
    access_log: Annotated[bool, typer.Option("--access-log", help="Write a line per request to standard error.")] = False,
    ray: Annotated[bool, typer.Option("--ray", help="Run replicas on Ray Serve; see README.")] = False,
    replicas: Annotated[int, typer.Option(help="Ray: copies of the models.")] = 1,
    min_replicas: Annotated[int | None, typer.Option(help="Ray: copies at least, where their number follows the load.")] = None,
    max_replicas: Annotated[int | None, typer.Option(help="Ray: copies at most; their number follows the load.")] = None,
    num_cpus: Annotated[float, typer.Option(help="Ray: processors that each reserves.")] = 1.0,
    num_gpus: Annotated[float, typer.Option(help="Ray: GPUs that each reserves.")] = 0.0,
    ongoing: Annotated[int | None, typer.Option(help="Ray: requests in one at most; twice what it runs at once if left out.")] = None,
    target_ongoing: Annotated[float | None, typer.Option(help="Ray: requests in one that the load is measured by.")] = None,
    upscale_delay: Annotated[float, typer.Option(help="Ray: seconds of more load before more copies start.")] = 30.0,
    ray_address: Annotated[str | None, typer.Option(help="Ray: of a cluster that runs, or auto; starts one if left out.")] = None,
    high_throughput: Annotated[bool, typer.Option("--high-throughput", help="Ray: HAProxy in place of Ray's own proxy.")] = False,
) -> None:
    lazy_import("uvicorn", extra="serve")
    lazy_import("grpc", extra="serve", package="grpcio")
    lazy_import("msgspec", extra="serve")
    lazy_import("starlette", extra="serve")
    lazy_import("prometheus_client", extra="serve", package="prometheus-client")
    from deploydcn.serving.batcher import BatchLimits
    from deploydcn.serving.options import ModelOptions, Scaling, ServerOptions, Tls, read_token

    given = {name for name in context.params if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"}
    _refuse(given, NOT_WITH_RAY if ray else ONLY_WITH_RAY, "does not go with --ray" if ray else "is for --ray only")
    if (tls_cert is None) != (tls_key is None) or (tls_client_ca is not None and tls_cert is None):
        raise InvalidArgument("TLS needs --tls-cert and --tls-key, and --tls-client-ca only with them")
    if not 0 < max_body_mb < math.inf:
        raise InvalidArgument(f"--max-body-mb is {max_body_mb:g}; wanted megabytes above 0")
    options = ServerOptions(
        host=host,
        http=None if no_http else http,
        grpc=None if no_grpc or (ray and "grpc" not in given) else grpc,
        token=read_token(token_file),
        tls=None if tls_cert is None or tls_key is None else Tls(tls_cert, tls_key, tls_client_ca),
        timeout=timeout,
        max_body=round(max_body_mb * 2**20),
        max_connections=max_connections,
        header_timeout=header_timeout,
        drain=drain,
        access_log=access_log,
        model_control=model_control,
        watch=watch,
        page=not no_page,
    )
    model_options = ModelOptions(BatchLimits(max_batch, delay_ms / 1e3, queue), instances, threads, bfloat16, precise, not no_self_check)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if ray:
        from deploydcn.serving.ray_server import Cluster, serve_on_ray

        scaling = Scaling(replicas, min_replicas, max_replicas, num_cpus, num_gpus, ongoing, target_ongoing, upscale_delay)
        cluster = Cluster(ray_address, high_throughput)
        serve_on_ray(models, model_options, options, scaling, cluster, started=lambda bound: _announce_ray(bound, scaling))
        return
    from deploydcn.serving.server import serve

    serve(models, model_options, options, started=_announce)


def _refuse(given: set[str], names: tuple[str, ...], why: str) -> None:
    if wrong := [f"--{name.replace('_', '-')}" for name in names if name in given]:
        raise InvalidArgument(f"{', '.join(wrong)} {why}")


def _announce_ray(options: ServerOptions, scaling: Scaling) -> None:
    count = f"{scaling.least} to {scaling.most}" if scaling.autoscales else str(scaling.replicas)
    console.print(f"Ray Serve: {count} replica{'s' if scaling.most > 1 else ''}", soft_wrap=True)
    console.print(f"HTTP http://{options.host}:{options.http}", soft_wrap=True)
    if options.grpc is not None:
        console.print(f"gRPC {options.host}:{options.grpc}", soft_wrap=True)


def _announce(server: Server) -> None:
    from deploydcn.serving.options import url_host

    options = server.options
    host = url_host(options.host)
    scheme = "http" if options.tls is None else "https"
    for model in server.service.repository.loaded():
        batch = f"batches of up to {model.max_batch}" if model.max_batch else "one by one"
        console.print(f"{model.name} version {model.version}: {model.path}, {batch}", soft_wrap=True)
    if server.http_port is not None:
        console.print(f"HTTP {scheme}://{host}:{server.http_port}", soft_wrap=True)
        if options.page:
            console.print("its page for browsers is /")
    if server.grpc_port is not None:
        console.print(f"gRPC {host}:{server.grpc_port}", soft_wrap=True)
