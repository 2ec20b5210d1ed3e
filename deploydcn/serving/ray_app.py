"""The server as a Ray Serve application: every replica answers as the embedded server does; Ray decides how many there are, and where.

`deploydcn serve --ray` runs it. On a cluster that is there already:

    serve run deploydcn.serving.ray_app:build models=/models/detector.onnx replicas=4 max_batch=8

or `import_path: deploydcn.serving.ray_app:build`, with the same `args`, in a configuration for `serve deploy`. `app` is that application
with its arguments in the environment, for `serve build`. gRPC needs `deploydcn.serving.ray_proxy.add_servicer` among Serve's
`grpc_servicer_functions`.
"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import msgspec
from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig

from deploydcn.errors import InvalidArgument, RuntimeFailure
from deploydcn.serving.batcher import BatchLimits
from deploydcn.serving.grpc_service import STREAM, UNARY, method_handlers
from deploydcn.serving.http_body import Receive
from deploydcn.serving.options import ModelOptions, Scaling, ServerOptions, read_token
from deploydcn.serving.ray_proxy import App, Message, Send
from deploydcn.serving.refusal import Refusal
from deploydcn.serving.repository import Repository
from deploydcn.serving.server import create_app
from deploydcn.serving.service import Service

ARGUMENTS_VARIABLE = "DEPLOYDCN_RAY_APP"
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"


class ReplicaService(Service):
    """What a replica answers. It is one of several: what a client asks of it, the others do not hear."""

    async def load(self, name: str, parameters: Collection[str]) -> None:
        raise _not_here(name)

    async def unload(self, name: str) -> None:
        raise _not_here(name)


def _not_here(name: str) -> Refusal:
    return Refusal(
        f"model {name[:128]!r} stays as it is: this replica is one of several, and the others would not follow; change the model's "
        "file and deploy the application again, which replaces the replicas one after another",
        403,
    )


class Replica:
    """One process with all models, behind Ray's proxies: HTTP by its ASGI application, gRPC by its methods."""

    async def __init__(self, sources: Sequence[str], models: ModelOptions, options: ServerOptions) -> None:  # type: ignore[misc]
        logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
        self._service = ReplicaService(Repository(sources, models), options)
        self._handlers = method_handlers(self._service)
        await self._service.repository.load_all()

    def __serve_build_asgi_app__(self) -> App:
        return _picklable(create_app(self._service))

    async def check_health(self) -> None:
        """Asked by Ray; a replica that raises is replaced."""
        if not self._service.ready:
            raise RuntimeFailure("no model is loaded")

    async def __del__(self) -> None:
        """Awaited by Ray when no request is left."""
        self._service.draining = True
        await self._service.repository.close()

    async def answer(self, name: str, request: bytes, context: Any) -> Any:
        """The response message of a gRPC call whose request Ray's proxy left as bytes."""
        context = _Context(context, self._service.options.max_body)
        return await self._handlers[name].unary_unary(await context.checked(request), context)

    async def stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
        """The response messages of ModelStreamInfer."""
        context = _Context(context, self._service.options.max_body)

        async def read() -> AsyncIterator[bytes]:
            async for request in requests:
                yield await context.checked(request)

        async for response in self._handlers[STREAM].stream_stream(read(), context):
            yield response


def _picklable(app: App) -> App:
    """The application, sending bytes: Ray pickles messages on their way to the proxy, and views of arrays cannot be."""

    async def call(scope: Message, receive: Receive, send: Send) -> None:
        async def send_bytes(message: Message) -> None:
            await send({**message, "body": bytes(message["body"])} if "body" in message else message)

        await app(scope, receive, send_bytes)

    return call


class _Context:
    """Ray's stand-in for the context of a gRPC call, with what our handlers need of a real one."""

    def __init__(self, context: Any, limit: int) -> None:
        self._context, self._limit = context, limit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def time_remaining(self) -> None:
        """Not known here: the proxy cancels what its client no longer waits for."""

    async def checked(self, request: bytes) -> bytes:
        """The request, if it is within the limit: Ray's proxy has none that can be set."""
        if len(request) > self._limit:
            await self.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"the message is larger than this server takes: {self._limit} bytes")
        return request

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self._context.set_code(code)
        self._context.set_details(details)
        raise grpc.aio.AbortError(details)


def _unary(name: str) -> Any:
    async def call(self: Replica, request: bytes, grpc_context: Any) -> Any:
        return await self.answer(name, request, grpc_context)

    return call


async def _stream(self: Replica, requests: AsyncIterator[bytes], grpc_context: Any) -> AsyncIterator[Any]:
    async for response in self.stream(requests, grpc_context):
        yield response


for _name in UNARY:  # Ray looks for methods that are named as the calls are
    setattr(Replica, _name, _unary(_name))
setattr(Replica, STREAM, _stream)


def bind(sources: Sequence[str], models: ModelOptions, options: ServerOptions, scaling: Scaling) -> serve.Application:
    """The application, for `ray.serve.run`. The models' files must lie under the same paths on every machine."""
    threads = models.threads if models.threads is not None else max(1, round(scaling.num_cpus))
    at_once = models.instances * max(1, models.batch.size)
    settings: dict[str, Any] = (
        {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=scaling.least,
                max_replicas=scaling.most,
                target_ongoing_requests=scaling.target or at_once,
                upscale_delay_s=scaling.upscale_delay,
                metrics_interval_s=min(10.0, max(1.0, scaling.upscale_delay / 3)),
                look_back_period_s=min(30.0, max(2.0, scaling.upscale_delay)),
            )
        }
        if scaling.autoscales
        else {"num_replicas": scaling.replicas}
    )
    decorate: Any = serve.deployment(
        name="deploydcn",
        ray_actor_options={"num_cpus": scaling.num_cpus, "num_gpus": scaling.num_gpus},
        max_ongoing_requests=scaling.ongoing or at_once + min(at_once, models.batch.queue),
        max_queued_requests=models.batch.queue,
        backpressure_config=BackpressureConfig(retry_after_s=1),
        graceful_shutdown_timeout_s=options.drain,
        graceful_shutdown_wait_loop_s=0.2,
        health_check_period_s=2.0,  # a replica that died is replaced that much sooner
        logging_config={"enable_access_log": False},  # --access-log is ours
        max_constructor_retry_count=1,  # a model that cannot be loaded will not load the next time
        **settings,
    )
    application: serve.Application = decorate(serve.ingress()(Replica)).bind(list(sources), replace(models, threads=threads), options)
    return application


class AppArgs(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Arguments of `build`, named, and left out, as the options of `deploydcn serve`. models: a list, or one text with commas."""

    models: list[str]
    max_batch: int = BatchLimits.size
    delay_ms: float = 1e3 * BatchLimits.delay
    queue: int = BatchLimits.queue
    instances: int = ModelOptions.instances
    threads: int | None = ModelOptions.threads
    bfloat16: bool = ModelOptions.bfloat16
    precise: bool = ModelOptions.precise
    self_check: bool = ModelOptions.self_check
    timeout: float = ServerOptions.timeout
    max_body_mb: float = ServerOptions.max_body / 2**20
    drain: float = ServerOptions.drain
    token_file: str | None = None
    access_log: bool = ServerOptions.access_log
    page: bool = ServerOptions.page
    replicas: int = Scaling.replicas
    min_replicas: int | None = Scaling.min_replicas
    max_replicas: int | None = Scaling.max_replicas
    num_cpus: float = Scaling.num_cpus
    num_gpus: float = Scaling.num_gpus
    ongoing: int | None = Scaling.ongoing
    target_ongoing: float | None = Scaling.target
    upscale_delay: float = Scaling.upscale_delay


def build(args: Mapping[str, Any]) -> serve.Application:
    """What Ray imports and calls: the application of `AppArgs`, whose values may be texts.

    Raises:
        InvalidArgument: an argument that is missing, unknown or unusable.
    """
    models = args.get("models")
    texts = {**args, "models": models.split(",")} if isinstance(models, str) else dict(args)
    try:
        given = msgspec.convert(texts, AppArgs, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"application arguments: {error}; wanted, for example, models=/models/detector.onnx max_batch=8") from error
    return bind(
        given.models,
        ModelOptions(
            BatchLimits(given.max_batch, given.delay_ms / 1e3, given.queue),
            instances=given.instances,
            threads=given.threads,
            bfloat16=given.bfloat16,
            precise=given.precise,
            self_check=given.self_check,
        ),
        ServerOptions(
            token=read_token(None if given.token_file is None else Path(given.token_file)),
            timeout=given.timeout,
            max_body=round(given.max_body_mb * 2**20),
            drain=given.drain,
            access_log=given.access_log,
            page=given.page,
        ),
        Scaling(
            replicas=given.replicas,
            min_replicas=given.min_replicas,
            max_replicas=given.max_replicas,
            num_cpus=given.num_cpus,
            num_gpus=given.num_gpus,
            ongoing=given.ongoing,
            target=given.target_ongoing,
            upscale_delay=given.upscale_delay,
        ),
    )


def __getattr__(name: str) -> serve.Application:
    """`app`: the application whose arguments are in the environment, for what takes no arguments, such as `serve build`."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    words = shlex.split(os.environ.get(ARGUMENTS_VARIABLE, ""))
    if not words:
        raise InvalidArgument(f"{ARGUMENTS_VARIABLE} is not set; wanted arguments as in 'models=/models/detector.onnx max_batch=8'")
    if wrong := [word for word in words if "=" not in word]:
        raise InvalidArgument(f"{ARGUMENTS_VARIABLE}: {wrong[0]!r} is no NAME=VALUE")
    return build(dict(word.split("=", 1) for word in words))
