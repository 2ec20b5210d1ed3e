"""Clients that are broken or mean: they get a 4xx or a closed connection, the others their answers."""

from __future__ import annotations

import json
import random
import socket
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.serving.conftest import Running, running, write_linear

X = np.arange(4, dtype=np.float32)[None]
JSON_BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0, 1, 2, 3]}]}).encode()


def binary_body() -> tuple[bytes, int]:
    header = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}]}).encode()
    return header + X.tobytes(), len(header)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("hostile")
    with running([write_linear(folder / "linear.onnx")], max_body=1 << 20, header_timeout=0.5, timeout=2.0, max_connections=64) as started:
        yield started


def connect(server: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server.http_port), timeout=10)  # type: ignore[arg-type]


def send(server: Running, data: bytes) -> bytes:
    """All that comes back until the server closes."""
    with connect(server) as opened:
        received = b""
        try:
            opened.sendall(data)
            while chunk := opened.recv(65536):
                received += chunk
        except OSError:
            pass
        return received


def infer(body: bytes, *headers: str, path: str = "/v2/models/linear/infer", length: int | None = None) -> bytes:
    lines = [
        "POST " + path + " HTTP/1.1",
        "Host: x",
        f"Content-Length: {len(body) if length is None else length}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def status(answer: bytes) -> int:
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0


def still_answers(server: Running) -> bool:
    return status(send(server, infer(JSON_BODY))) == 200


BODY, HEADER = binary_body()
BOMB = zlib.compress(b"\0" * (64 << 20))

MALFORMED = {
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00", {0, 400}),
    "no path": (b"GET\r\n\r\n", {400}),
    "long path": (b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n", {0, 400, 404, 414, 431}),
    "bad escapes in a path": (infer(JSON_BODY, path="/v2/models/%ff%fe/infer"), {404}),
    "zero byte in a path": (infer(JSON_BODY, path="/v2/models/%00/infer"), {404}),
    "path upwards": (infer(b"", path="/v2/repository/models/..%2f..%2fetc/load"), {404}),
    "many headers": (infer(JSON_BODY, *(f"X-{index}: {'a' * 100}" for index in range(2000))), {0, 200, 400, 431}),
    "negative length": (infer(JSON_BODY, length=-1), {400}),
    "length of text": (b"POST /v2/models/linear/infer HTTP/1.1\r\nContent-Length: abc\r\n\r\n", {400}),
    "length beyond the limit": (infer(b"", length=1 << 40), {413}),
    "body beyond the limit, in chunks": (
        b"POST /v2/models/linear/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"100000\r\n"
        + b"a" * (1 << 20)
        + b"\r\n1\r\na\r\n0\r\n\r\n",
        {413},
    ),
    "bad chunk": (b"POST /v2/models/linear/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", {400}),
    "length and chunks": (
        b"POST /v2/models/linear/infer HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        {400},
    ),
    "bad header length": (infer(BODY, "Inference-Header-Content-Length: -1"), {400}),
    "header length of text": (infer(BODY, "Inference-Header-Content-Length: ten"), {400}),
    "huge header length": (infer(BODY, f"Inference-Header-Content-Length: {'9' * 100}"), {400}),
    "header length beyond the body": (infer(BODY, f"Inference-Header-Content-Length: {len(BODY) + 1}"), {400}),
    "truncated binary": (infer(BODY[:-1], f"Inference-Header-Content-Length: {HEADER}"), {400}),
    "bytes behind the binary": (infer(BODY + b"\0", f"Inference-Header-Content-Length: {HEADER}"), {400}),
    "binary without header length": (infer(BODY), {400}),
    "bad UTF-8": (infer(b'{"id": "\xff"}'), {400}),
    "lone surrogate": (infer(b'{"id": "\\ud800", "inputs": []}'), {400}),
    "deep JSON": (infer(b'{"inputs":' + b"[" * 500_000), {400}),
    "huge shape": (infer(JSON_BODY.replace(b"[1, 4]", b"[1000000000, 4000000000]")), {400}),
    "huge number": (infer(JSON_BODY.replace(b"[0,", b"[1" + b"0" * 5000 + b",")), {400}),
    "parameters of other kinds": (infer(JSON_BODY[:-1] + b', "parameters": {"timeout": [1]}}'), {400}),
    "bad timeout": (infer(JSON_BODY[:-1] + b', "parameters": {"timeout": -5}}'), {400}),
    "time of 400 digits": (infer(JSON_BODY[:-1] + b', "parameters": {"timeout": "%s"}}' % (b"9" * 400)), {400}),
    "encoding in capitals": (infer(zlib.compress(JSON_BODY), "Content-Encoding: DEFLATE"), {200}),
    "gzip that is none": (infer(JSON_BODY, "Content-Encoding: gzip"), {400}),
    "cut gzip": (infer(zlib.compress(JSON_BODY)[:-3], "Content-Encoding: deflate"), {400}),
    "gzip bomb": (infer(BOMB, "Content-Encoding: deflate"), {413}),
    "unknown encoding": (infer(JSON_BODY, "Content-Encoding: br"), {415}),
    "upgrade": (b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n\r\n", {200, 400}),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_requests_are_refused_and_the_server_goes_on(case: str, server: Running) -> None:
    data, allowed = MALFORMED[case]
    answer = send(server, data)
    assert status(answer) in allowed, answer[:300]
    if status(answer) >= 400 and b"application/json" in answer:
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert still_answers(server)


@pytest.mark.slow
def test_mutated_requests_never_fail_the_server(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    """Bytes changed, cut, doubled at random in good requests: an answer, a 4xx or a closed connection, and nothing in the log of bugs."""
    rng = random.Random(0)
    goods = [
        infer(JSON_BODY),
        infer(BODY, f"Inference-Header-Content-Length: {HEADER}"),
        infer(b'{"ready": true}', path="/v2/repository/index"),
    ]
    mutants = []
    for _ in range(200):
        data = bytearray(rng.choice(goods))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            change = rng.randrange(4)
            if change == 0:
                data[at] = rng.randrange(256)
            elif change == 1:
                del data[at : at + rng.randint(1, 8)]
            elif change == 2:
                data[at:at] = data[at : at + rng.randint(1, 16)]
            else:
                data[at:at] = rng.randbytes(rng.randint(1, 4))
        mutants.append(bytes(data))
    with ThreadPoolExecutor(25) as threads:  # most of the time goes by in waiting for what never comes
        seen = set(threads.map(lambda data: status(send(server, data)), mutants))
    assert seen <= {0, *range(200, 500)}
    assert {200, 400} <= seen
    assert not [record for record in caplog.records if record.name == "deploydcn.serving" and record.levelname == "ERROR"]
    assert still_answers(server)


@pytest.mark.slow
def test_slow_headers_are_cut_off(server: Running) -> None:
    """Slow loris: connections that send a header now and then, while others are answered."""
    with connect(server) as slow:
        slow.sendall(b"GET /v2 HTTP/1.1\r\n")
        begin = time.monotonic()
        slow.settimeout(10)
        assert still_answers(server)
        try:
            while time.monotonic() - begin < 9:
                slow.sendall(b"X-Another: header\r\n")
                time.sleep(0.1)
        except OSError:
            pass
        assert time.monotonic() - begin < 8, "the connection stayed open"
    # the same on a connection that was used before
    with connect(server) as used:
        used.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += used.recv(65536)
        assert status(answer) == 200
        used.sendall(b"GET /v2 HT")
        used.settimeout(10)
        assert used.recv(100) == b""


@pytest.mark.slow
def test_slow_bodies_are_cut_off(server: Running) -> None:
    with connect(server) as slow:
        slow.sendall(infer(b"", length=100))
        answer = slow.recv(65536)
    assert status(answer) == 408
    assert still_answers(server)


def test_more_connections_than_allowed_are_refused(server: Running) -> None:
    kept = [connect(server) for _ in range(64)]
    try:
        time.sleep(0.2)
        answer = send(server, b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert status(answer) in (0, 503)
    finally:
        for one in kept:
            one.close()
    time.sleep(0.2)
    assert still_answers(server)


@pytest.mark.backend("tritonclient")
def test_grpc_garbage_is_refused(server: Running) -> None:
    import grpc

    rng = random.Random(0)
    codes = set()
    with grpc.insecure_channel(server.grpc) as channel:
        for name in ("ModelInfer", "RepositoryIndex", "ModelMetadata", "RepositoryModelLoad"):
            call = channel.unary_unary(f"/inference.GRPCInferenceService/{name}", lambda data: data, lambda data: data)
            for _ in range(50):
                future = call.future(rng.randbytes(rng.randint(1, 60)), timeout=10)
                codes.add(future.code())
        too_large = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer", lambda data: data, lambda data: data)
        with pytest.raises(grpc.RpcError) as refused:
            too_large(b"\0" * (2 << 20), timeout=10)
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
    assert grpc.StatusCode.INVALID_ARGUMENT in codes
    assert still_answers(server)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.slow
def test_hostile_requests_leave_no_memory_behind(server: Running) -> None:
    requests = [data for data, _ in MALFORMED.values()]
    for data in requests * 2:
        send(server, data)
    before = resident_bytes()
    for data in requests * 8:
        send(server, data)
    assert resident_bytes() - before < 16 << 20, "more than a few of the limits' megabytes stay"


@pytest.mark.slow
@pytest.mark.backend("schemathesis")
def test_schemathesis_finds_nothing(server: Running) -> None:
    """Requests generated from /openapi.json: no 5xx, and only what the document announces."""
    import schemathesis
    from hypothesis import HealthCheck, given, settings

    schema = schemathesis.openapi.from_url(f"http://{server.http}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) == 18
    for operation in operations:
        if operation.path.endswith("/unload"):
            continue  # it would leave the others nothing to talk to

        @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy())
        def check(case: schemathesis.Case) -> None:
            case.call_and_validate()

        check()
