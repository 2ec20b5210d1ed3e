"""Requests and answers as bytes: what is carried comes back bit for bit, what does not fit is refused with its reason."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deploydcn.serving import grpc_codec, http_codec
from deploydcn.serving.datatypes import NAMES
from deploydcn.serving.messages import COMPILED, MESSAGES, compiled
from deploydcn.serving.refusal import Refusal
from deploydcn.serving.request import InferRequest

ARRAYS = st.sampled_from(sorted(NAMES)).flatmap(
    lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)


def same_bits(first: np.ndarray, second: np.ndarray) -> bool:
    return first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes()


def as_request(arrays: dict[str, np.ndarray], *, binary: bool) -> tuple[bytes, int | None]:
    inputs, tail = [], b""
    for name, array in arrays.items():
        entry: dict[str, Any] = {"name": name, "datatype": NAMES[array.dtype.name], "shape": list(array.shape)}
        if binary:
            entry["parameters"] = {"binary_data_size": array.nbytes}
            tail += array.tobytes()
        else:
            entry["data"] = array.tolist() if array.ndim else [array.item()]
        inputs.append(entry)
    header = json.dumps({"inputs": inputs, "id": "7"}).encode()
    return header + tail, len(header) if binary else None


@given(st.lists(ARRAYS, min_size=1, max_size=3))
def test_binary_tensors_arrive_bit_for_bit(arrays: list[np.ndarray]) -> None:
    named = {f"x{index}": array for index, array in enumerate(arrays)}
    request, _ = http_codec.decode(*as_request(named, binary=True))
    assert request.id == "7"
    assert all(same_bits(named[name], request.inputs[name]) for name in named)


@given(ARRAYS.filter(lambda array: array.dtype.kind != "f" or bool(np.isfinite(array).all())))
def test_json_tensors_arrive_bit_for_bit(array: np.ndarray) -> None:
    array = array + np.zeros((), array.dtype) if array.dtype.kind == "f" else array  # JSON's -0 is an integer
    request, _ = http_codec.decode(*as_request({"x": array}, binary=False))
    assert same_bits(array, request.inputs["x"])


@given(ARRAYS, st.booleans())
def test_answers_are_read_back_bit_for_bit(array: np.ndarray, binary: bool) -> None:
    asked = http_codec.RequestBody(inputs=[], parameters={"binary_data_output": binary})
    finite = array.dtype.kind != "f" or bool(np.isfinite(array).all())
    if not binary and not finite:
        with pytest.raises(Refusal, match="not finite"):
            http_codec.encode({"y": array}, asked, model="m", version="1")
        return
    parts, header_length = http_codec.encode({"y": array}, asked, model="m", version="1")
    body = b"".join(parts)
    assert (header_length is not None) == binary
    answer = json.loads(body[:header_length])["outputs"][0]
    data = np.frombuffer(body[header_length:], array.dtype) if binary else np.array(answer["data"], array.dtype)
    assert same_bits(array, data.reshape(answer["shape"]))


@given(st.lists(ARRAYS, min_size=1, max_size=3))
def test_grpc_carries_raw_tensors_bit_for_bit(arrays: list[np.ndarray]) -> None:
    message = MESSAGES["ModelInferRequest"](model_name="m", id="7")
    for index, array in enumerate(arrays):
        message.inputs.add(name=f"x{index}", datatype=NAMES[array.dtype.name], shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    request = grpc_codec.decode(MESSAGES["ModelInferRequest"].FromString(message.SerializeToString()))
    assert all(same_bits(array, request.inputs[f"x{index}"]) for index, array in enumerate(arrays))
    answer = grpc_codec.encode(request.inputs, model="m", version="1", id="7")
    assert [bytes(raw) for raw in answer.raw_output_contents] == [array.tobytes() for array in arrays]


@pytest.mark.parametrize(
    ("datatype", "field", "values"),
    [
        ("BOOL", "bool_contents", [True, False]),
        ("INT8", "int_contents", [-128, 127]),
        ("UINT16", "uint_contents", [0, 65535]),
        ("INT64", "int64_contents", [-(2**63), 2**63 - 1]),
        ("UINT64", "uint64_contents", [0, 2**64 - 1]),
        ("FP32", "fp32_contents", [0.1, -3.5]),
        ("FP64", "fp64_contents", [0.1, 1e300]),
    ],
)
def test_grpc_carries_typed_contents(datatype: str, field: str, values: list[Any]) -> None:
    message = MESSAGES["ModelInferRequest"](model_name="m")
    tensor = message.inputs.add(name="x", datatype=datatype, shape=[2])
    getattr(tensor.contents, field).extend(values)
    (array,) = grpc_codec.decode(message).inputs.values()
    assert NAMES[array.dtype.name] == datatype
    assert array.tolist() == np.array(values, array.dtype).tolist()


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2], **changes}


REFUSED = {
    "no JSON": (b"{", None, "cannot be read"),
    "no UTF-8": (b'{"id": "\xff", "inputs": []}', None, "cannot be read"),
    "a list": (b"[]", None, "Expected `object`"),
    "no inputs": (b"{}", None, "missing required field `inputs`"),
    "deep nesting": (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": ' + b"[" * 100_000, None, "cannot be read"),
    "name of a number": ([tensor(name=7)], None, "Expected `str`"),
    "unknown datatype": ([tensor(datatype="FP31")], None, "wanted one of BOOL"),
    "strings": ([tensor(datatype="BYTES", data=["a", "b"])], None, "wanted one of BOOL"),
    "negative size": ([tensor(shape=[-2])], None, "0 or more"),
    "product beyond 64 bits": ([tensor(shape=[2**62, 4])], None, "too large to multiply"),
    "zero times beyond 64 bits": ([tensor(shape=[0, 2**62, 4], data=[])], None, "too large to multiply"),
    "a size of 2**64": ([tensor(shape=[2**64])], None, "too large to multiply"),
    "many axes": ([tensor(shape=[1] * 65, data=[1])], None, "65 axes"),
    "too few values": ([tensor(data=[1])], None, "brings 1 values"),
    "text for numbers": ([tensor(data=["a", "b"])], None, "holds other values"),
    "null for a number": ([tensor(data=[None, 1])], None, "holds other values"),
    "ragged lists": ([tensor(data=[[1], [1, 2]])], None, "no list of FP32"),
    "an object for a number": ([tensor(data=[{}, 1])], None, "holds other values"),
    "too large for the type": ([tensor(datatype="UINT8", data=[1, 256])], None, "holds 0 to 255"),
    "far too large for the type": ([tensor(datatype="INT64", data=[1, 2**70])], None, "INT64 holds -9223372036854775808"),
    "too large for float32": ([tensor(data=[1, 1e300])], None, "overflow"),
    "fractions for integers": ([tensor(datatype="INT32", data=[1.5, 2])], None, "holds other values"),
    "no data": ([{"name": "x", "datatype": "FP32", "shape": [2]}], None, "neither data"),
    "twice": ([tensor(), tensor()], None, "given twice"),
    "binary beyond the body": ([tensor(parameters={"binary_data_size": 9})], None, "0 bytes are left"),
    "binary size of text": ([tensor(parameters={"binary_data_size": "8"})], None, "binary_data_size '8'"),
    "negative binary size": ([tensor(parameters={"binary_data_size": -8})], None, "binary_data_size -8"),
    "header beyond the body": (b"{}", 3, "at most 2"),
    "bytes behind the tensors": (b'{"inputs": []}abc', 14, "3 bytes follow"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case: str) -> None:
    body, header_length, reason = REFUSED[case]
    if isinstance(body, list):
        body = json.dumps({"inputs": body}).encode()
    with pytest.raises(Refusal, match=reason) as refused:
        http_codec.decode(body, header_length)
    assert refused.value.status == 400


@pytest.mark.parametrize("data", [b"\0" * 7, b"\0" * 9, b""])
def test_binary_tensors_of_other_sizes_are_refused(data: bytes) -> None:
    header = json.dumps(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": len(data)}}]}
    ).encode()
    with pytest.raises(Refusal, match="needs 8"):
        http_codec.decode(header + data, len(header))


def test_bytes_other_than_0_and_1_become_true() -> None:
    header = json.dumps({"inputs": [{"name": "x", "datatype": "BOOL", "shape": [3], "parameters": {"binary_data_size": 3}}]}).encode()
    request, _ = http_codec.decode(header + b"\x00\x01\xff", len(header))
    assert request.inputs["x"].view(np.uint8).tolist() == [0, 1, 1]


@given(st.binary(max_size=200), st.none() | st.integers(0, 300))
def test_any_bytes_are_read_or_refused(body: bytes, header_length: int | None) -> None:
    with pytest.raises(Refusal):
        http_codec.decode(body, header_length)


@pytest.mark.parametrize("parameters", [{"classification": 3}, {"shared_memory_region": "r"}])
def test_what_would_be_left_undone_is_refused(parameters: dict[str, Any]) -> None:
    body = {"inputs": [tensor()], "outputs": [{"name": "y", "parameters": parameters}]}
    with pytest.raises(Refusal, match="wanted none but binary_data"):
        http_codec.decode(json.dumps(body).encode(), None)


def test_sequences_are_refused() -> None:
    with pytest.raises(Refusal, match="sequences are not served"):
        http_codec.decode(json.dumps({"inputs": [tensor()], "parameters": {"sequence_id": 5}}).encode(), None)


@pytest.mark.backend("grpc_tools")
def test_the_compiled_messages_are_those_of_the_source() -> None:
    assert compiled() == COMPILED.read_bytes(), "run python -m deploydcn.serving.messages"


@pytest.mark.parametrize(("asked", "seconds"), [(None, 30), (0, 30), ("0", 30), (2_000_000, 2), ("2000000", 2), (2**64 - 1, 30)])
def test_a_request_may_ask_for_less_time(asked: Any, seconds: float) -> None:
    assert InferRequest({}, parameters={} if asked is None else {"timeout": asked}).timeout(30.0) == seconds


@pytest.mark.parametrize("asked", [-1, 2**64, 1e6, True, "", "-1", "1.5", "²", "9" * 400, "9" * 5000], ids=lambda asked: str(asked)[:10])
def test_times_that_are_none_are_refused(asked: Any) -> None:
    with pytest.raises(Refusal, match=r"parameter timeout is .{1,50}; wanted microseconds"):
        InferRequest({}, parameters={"timeout": asked}).timeout(30.0)
