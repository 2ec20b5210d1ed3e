"""Inference requests and answers as gRPC messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deploydcn.serving.datatypes import NAMES, dtype_of, from_bytes, from_list
from deploydcn.serving.messages import MESSAGES
from deploydcn.serving.refusal import Refusal
from deploydcn.serving.request import InferRequest, check_output_parameters

# The field of InferTensorContents that holds a datatype's values; FP16 travels as bytes only.
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


def decode(message: Any) -> InferRequest:
    """The request in a ModelInferRequest.

    Raises:
        Refusal: its tensors do not fit their descriptions.
    """
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise Refusal(f"raw_input_contents has {len(raw)} entries for {len(message.inputs)} inputs; wanted one for each, or none")
    inputs: dict[str, np.ndarray] = {}
    for index, tensor in enumerate(message.inputs):
        if tensor.name in inputs:
            raise Refusal(f"input {tensor.name!r} is given twice")
        inputs[tensor.name] = from_bytes(raw[index], tensor.datatype, tensor.shape, tensor.name) if raw else _from_contents(tensor)
    for output in message.outputs:
        check_output_parameters(output.name, output.parameters)
    outputs = tuple(output.name for output in message.outputs)
    return InferRequest(inputs, message.id, outputs, {name: _parameter(value) for name, value in message.parameters.items()})


def encode(outputs: Mapping[str, np.ndarray], *, model: str, version: str, id: str) -> Any:
    """A ModelInferResponse with raw contents."""
    answer = MESSAGES["ModelInferResponse"](model_name=model, model_version=version, id=id)
    for name, array in outputs.items():
        answer.outputs.add(name=name, datatype=NAMES[array.dtype.name], shape=array.shape)
        answer.raw_output_contents.append(array.tobytes())
    return answer


def _parameter(value: Any) -> Any:
    return getattr(value, value.WhichOneof("parameter_choice") or "string_param")


def _from_contents(tensor: Any) -> np.ndarray:
    dtype_of(tensor.datatype, tensor.name)
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        raise Refusal(f"input {tensor.name!r} is {tensor.datatype}, which travels in raw_input_contents only")
    return from_list(list(getattr(tensor.contents, field)), tensor.datatype, tensor.shape, tensor.name)
