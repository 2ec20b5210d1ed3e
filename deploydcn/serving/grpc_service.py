"""The Open Inference Protocol v2 over gRPC."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from deploydcn.serving import grpc_codec
from deploydcn.serving.messages import MESSAGES
from deploydcn.serving.refusal import Refusal
from deploydcn.serving.service import Service
from deploydcn.serving.tracing import span

SERVICE = "inference.GRPCInferenceService"

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
HEALTH = ("ServerLive", "ServerReady")
STREAM = "ModelStreamInfer"

log = logging.getLogger("deploydcn.serving")
Method = Callable[[Any, Any], Awaitable[Any]]


def create_handlers(service: Service) -> grpc.GenericRpcHandler:
    """Handlers of all calls, for `grpc.aio.Server.add_generic_rpc_handlers`."""
    return grpc.method_handlers_generic_handler(SERVICE, method_handlers(service))


def method_handlers(service: Service) -> dict[str, grpc.RpcMethodHandler]:
    """Each call's name and handler."""
    calls = _Calls(service)
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            _guarded(service, name, partial(method, calls), MESSAGES[request]),
            response_serializer=MESSAGES[response].SerializeToString,
        )
        for name, (method, request, response) in UNARY.items()
    }
    handlers[STREAM] = grpc.stream_stream_rpc_method_handler(
        calls.stream,
        response_serializer=MESSAGES["ModelStreamInferResponse"].SerializeToString,
    )
    return handlers


def _guarded(service: Service, name: str, method: Method, message: Any) -> Method:
    """The call with authorization, tracing, the access log, and refusals as gRPC's codes."""

    async def call(data: bytes, context: Any) -> Any:
        begin, status = time.perf_counter(), 200
        metadata = dict(context.invocation_metadata() or ())
        try:
            with span(name, metadata, {"rpc.system": "grpc", "rpc.service": SERVICE, "rpc.method": name}):
                if name not in HEALTH:
                    service.authorize(metadata.get("authorization"))
                return await method(_parse(message, data), context)
        except Refusal as refusal:
            status = refusal.status
            if refusal.retry_after is not None:
                context.set_trailing_metadata((("retry-after", str(refusal.retry_after)),))
            await context.abort(CODES.get(status, grpc.StatusCode.FAILED_PRECONDITION), str(refusal))
        except asyncio.CancelledError:
            status = 499  # the client left, or its deadline passed
            raise
        except Exception as error:
            if isinstance(error, grpc.aio.AbortError):
                raise
            status, text = _told(error, name)
            await context.abort(CODES[status], text)
        finally:
            service.log("grpc", context.peer(), name, status, time.perf_counter() - begin)

    return call


def _told(error: Exception, name: str) -> tuple[int, str]:
    """HTTP's status and what the client is told: of bugs nothing but that they are."""
    if isinstance(error, Refusal):
        return error.status, str(error)
    log.error("%s failed", name, exc_info=error)
    return 500, "a bug in the server; its log says more"


def _parse(message: Any, data: bytes) -> Any:
    """What came as a message; here and not in gRPC, which would call bad bytes a bug."""
    try:
        return message.FromString(data)
    except DecodeError as error:
        raise Refusal(f"the request is no {message.DESCRIPTOR.name}: {error}") from error


class _Calls:
    """Each call: a request message in, a response message out."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def server_live(self, request: Any, context: Any) -> Any:
        return MESSAGES["ServerLiveResponse"](live=True)

    async def server_ready(self, request: Any, context: Any) -> Any:
        return MESSAGES["ServerReadyResponse"](ready=self._service.ready)

    async def server_metadata(self, request: Any, context: Any) -> Any:
        return MESSAGES["ServerMetadataResponse"](**self._service.metadata())

    async def model_ready(self, request: Any, context: Any) -> Any:
        try:
            self._service.repository.get(request.name, request.version)
        except Refusal:
            return MESSAGES["ModelReadyResponse"](ready=False)
        return MESSAGES["ModelReadyResponse"](ready=not self._service.draining)

    async def model_metadata(self, request: Any, context: Any) -> Any:
        return MESSAGES["ModelMetadataResponse"](**self._service.model_metadata(request.name, request.version))

    async def model_config(self, request: Any, context: Any) -> Any:
        return MESSAGES["ModelConfigResponse"](config=self._service.model_config(request.name, request.version))

    async def model_statistics(self, request: Any, context: Any) -> Any:
        answer = self._service.statistics(request.name, request.version)
        rows = [{key: value for key, value in row.items() if key != "memory_usage"} for row in answer["model_stats"]]
        return MESSAGES["ModelStatisticsResponse"](model_stats=rows)

    async def model_infer(self, request: Any, context: Any) -> Any:
        remaining = context.time_remaining()
        limit = self._service.options.timeout
        return await self._infer(request, limit if remaining is None else min(limit, max(0.0, remaining)))

    async def stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
        """Answers in the order of the requests; a refused one does not end the stream."""
        response = MESSAGES["ModelStreamInferResponse"]
        try:
            self._service.authorize(dict(context.invocation_metadata() or ()).get("authorization"))
        except Refusal as refusal:
            await context.abort(CODES[refusal.status], str(refusal))
        async for data in requests:
            begin, status = time.perf_counter(), 499
            request = MESSAGES["ModelInferRequest"]()
            try:
                request = _parse(MESSAGES["ModelInferRequest"], data)
                answer, status = response(infer_response=await self._infer(request, self._service.options.timeout)), 200
            except Exception as error:
                status, text = _told(error, "ModelStreamInfer")
                answer = response(error_message=text, infer_response=MESSAGES["ModelInferResponse"](id=request.id))
            finally:
                self._service.log("grpc", context.peer(), "ModelStreamInfer", status, time.perf_counter() - begin)
            yield answer

    async def repository_index(self, request: Any, context: Any) -> Any:
        return MESSAGES["RepositoryIndexResponse"](models=self._service.repository.index(ready=request.ready))

    async def repository_load(self, request: Any, context: Any) -> Any:
        await self._service.load(request.model_name, set(request.parameters))
        return MESSAGES["Nothing"]()

    async def repository_unload(self, request: Any, context: Any) -> Any:
        await self._service.unload(request.model_name)
        return MESSAGES["Nothing"]()

    async def _infer(self, request: Any, limit: float) -> Any:
        model = self._service.repository.get(request.model_name, request.model_version)
        decoded = grpc_codec.decode(request)
        outputs = await model.infer(decoded, limit)
        return grpc_codec.encode(outputs, model=model.name, version=str(model.version), id=decoded.id)


UNARY: dict[str, tuple[Callable[[_Calls, Any, Any], Awaitable[Any]], str, str]] = {
    "ServerLive": (_Calls.server_live, "Nothing", "ServerLiveResponse"),
    "ServerReady": (_Calls.server_ready, "Nothing", "ServerReadyResponse"),
    "ServerMetadata": (_Calls.server_metadata, "Nothing", "ServerMetadataResponse"),
    "ModelReady": (_Calls.model_ready, "ModelVersion", "ModelReadyResponse"),
    "ModelMetadata": (_Calls.model_metadata, "ModelVersion", "ModelMetadataResponse"),
    "ModelConfig": (_Calls.model_config, "ModelVersion", "ModelConfigResponse"),
    "ModelStatistics": (_Calls.model_statistics, "ModelVersion", "ModelStatisticsResponse"),
    "ModelInfer": (_Calls.model_infer, "ModelInferRequest", "ModelInferResponse"),
    "RepositoryIndex": (_Calls.repository_index, "RepositoryIndexRequest", "RepositoryIndexResponse"),
    "RepositoryModelLoad": (_Calls.repository_load, "RepositoryModelRequest", "Nothing"),
    "RepositoryModelUnload": (_Calls.repository_unload, "RepositoryModelRequest", "Nothing"),
}
"""Calls of one request and one response: what answers, and the messages' names."""
