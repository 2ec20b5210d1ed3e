"""The HTTP interface as an OpenAPI 3.1 document, its schemas made of the types that read the requests."""

from __future__ import annotations

from typing import Any

import msgspec

from deploydcn.serving.datatypes import NAMES
from deploydcn.serving.http_codec import RequestBody
from deploydcn.serving.service import VERSION, Service

_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}, "description": "Of a model."}
_VERSION = {"name": "version", "in": "path", "required": True, "schema": {"type": "string"}, "description": "Of the model."}


def describe(service: Service) -> dict[str, Any]:
    """The document."""
    (infer,), components = msgspec.json.schema_components([RequestBody], ref_template="#/components/schemas/{name}")
    components["RequestInput"]["properties"]["datatype"]["examples"] = list(NAMES.values())
    control: dict[str, Any] = {"body": None, "path": (_NAME,), "request": _object()}
    operations: dict[str, dict[str, Any]] = {
        "/v2": {"get": _operation("The server's name, version and extensions.")},
        "/v2/health/live": {"get": _operation("Whether the server runs.", body=None)},
        "/v2/health/ready": {"get": _operation("Whether the server takes requests.", body=None, errors=(400,))},
        "/v2/models/stats": {"get": _operation("What all models have done so far.")},
        "/v2/repository/index": {"post": _operation("All models and their states.", request=_object(ready={"type": "boolean"}))},
        "/v2/repository/models/{name}/load": {"post": _operation("Load a model, or load it anew.", **control)},
        "/v2/repository/models/{name}/unload": {"post": _operation("Let a model go.", **control)},
        "/metrics": {"get": _operation("Counters for Prometheus.", body="text/plain")},
        "/openapi.json": {"get": _operation("This document.")},
    }
    for suffix, path in (("", (_NAME,)), ("/versions/{version}", (_NAME, _VERSION))):
        model = f"/v2/models/{{name}}{suffix}"
        operations |= {
            model: {"get": _operation("The model's inputs and outputs.", path=path)},
            f"{model}/ready": {"get": _operation("Whether the model takes requests.", body=None, path=path)},
            f"{model}/config": {"get": _operation("How the model is run.", path=path)},
            f"{model}/stats": {"get": _operation("What the model has done so far.", path=path)},
            f"{model}/infer": {"post": _operation("Run the model.", path=path, request=infer, errors=(408, 413, 415, 503, 504))},
        }
    security: list[dict[str, list[str]]] = [{"token": []}] if service.options.token is not None else []
    return {
        "openapi": "3.1.0",
        "info": {"title": "deploydcn serve", "version": VERSION, "description": "Open Inference Protocol v2."},
        "paths": operations,
        "components": {"schemas": components, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": security,
    }


def _operation(
    summary: str,
    *,
    path: tuple[dict[str, Any], ...] = (),
    request: dict[str, Any] | None = None,
    body: str | None = "application/json",
    errors: tuple[int, ...] = (),
) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": "Done."}
    if body is not None:
        answer["content"] = {body: {"schema": {} if body == "application/json" else {"type": "string"}}}
    failure = {"description": "Why not.", "content": {"application/json": {"schema": _object(error={"type": "string"})}}}
    codes = {400, 401, *errors, *((403, 404) if path else ()), *((408, 413, 415) if request else ())}
    operation: dict[str, Any] = {
        "summary": summary,
        "parameters": list(path),
        "responses": {"200": answer, **{str(code): failure for code in sorted(codes)}},
    }
    if request is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": request}}}
    return operation


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties}
