"""Inference requests and answers over HTTP: JSON, with tensors in it or, by the binary extension, behind it.

Open Inference Protocol v2, "Inference Request JSON Object", and its extension "binary tensor data".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from deploydcn.serving.datatypes import NAMES, from_bytes, from_list
from deploydcn.serving.refusal import Refusal
from deploydcn.serving.request import InferRequest, check_output_parameters

Parameters = dict[str, bool | int | float | str]


class RequestInput(msgspec.Struct):
    """A tensor of a request: `data`, or "binary_data_size" among its parameters."""

    name: str
    datatype: str
    shape: list[int]
    parameters: Parameters = {}
    data: list[Any] | msgspec.UnsetType = msgspec.UNSET


class RequestOutput(msgspec.Struct):
    """An output that is asked for. parameters: "binary_data"."""

    name: str
    parameters: Parameters = {}


class RequestBody(msgspec.Struct):
    """The JSON of POST .../infer. parameters: "binary_data_output", and "timeout" in microseconds."""

    inputs: list[RequestInput]
    id: str = ""
    outputs: list[RequestOutput] = []
    parameters: Parameters = {}


_decoder = msgspec.json.Decoder(RequestBody)
_encoder = msgspec.json.Encoder()


def decode(body: bytes | bytearray, header_length: int | None) -> tuple[InferRequest, RequestBody]:
    """The request in a body. header_length: of the JSON, where tensors follow it.

    Raises:
        Refusal: it is not such a request; the message says where.
    """
    if header_length is not None and not 0 <= header_length <= len(body):
        raise Refusal(f"Inference-Header-Content-Length is {header_length}; wanted the length of the JSON, at most {len(body)} bytes")
    view = memoryview(body)
    end = len(body) if header_length is None else header_length
    try:
        parsed = _decoder.decode(view[:end])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(f"the request's JSON cannot be read: {error}") from error
    inputs: dict[str, np.ndarray] = {}
    for tensor in parsed.inputs:
        if tensor.name in inputs:
            raise Refusal(f"input {tensor.name!r} is given twice")
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            if tensor.data is msgspec.UNSET:
                raise Refusal(f"input {tensor.name!r} has neither data nor the parameter binary_data_size")
            inputs[tensor.name] = from_list(tensor.data, tensor.datatype, tensor.shape, tensor.name)
            continue
        if not isinstance(size, int) or not 0 <= size <= len(view) - end:
            raise Refusal(f"input {tensor.name!r} has binary_data_size {size!r}; {len(view) - end} bytes are left of the body")
        inputs[tensor.name] = from_bytes(view[end : end + size], tensor.datatype, tensor.shape, tensor.name)
        end += size
    if end != len(view):
        raise Refusal(f"{len(view) - end} bytes follow the last tensor; wanted none")
    for output in parsed.outputs:
        check_output_parameters(output.name, output.parameters)
    request = InferRequest(inputs, parsed.id, tuple(output.name for output in parsed.outputs), dict(parsed.parameters))
    return request, parsed


def encode(
    outputs: Mapping[str, np.ndarray], asked: RequestBody, *, model: str, version: str
) -> tuple[list[bytes | memoryview], int | None]:
    """The parts of an answer's body, and the length of its JSON where tensors follow it.

    Raises:
        Refusal: values that JSON cannot carry.
    """
    binary = bool(asked.parameters.get("binary_data_output", False))
    wishes = {output.name: bool(output.parameters.get("binary_data", binary)) for output in asked.outputs}
    described, tail = [], []
    for name, array in outputs.items():
        entry: dict[str, Any] = {"name": name, "datatype": NAMES[array.dtype.name], "shape": list(array.shape)}
        if wishes.get(name, binary):
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            entry["parameters"] = {"binary_data_size": data.nbytes}
            tail.append(data)
        else:
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise Refusal(f"output {name!r} has values that are not finite, which JSON cannot carry; ask for it with binary_data", 406)
            entry["data"] = array.reshape(-1).tolist()
        described.append(entry)
    answer: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": described}
    if asked.id:
        answer["id"] = asked.id
    header = _encoder.encode(answer)
    return [header, *tail], len(header) if tail else None
