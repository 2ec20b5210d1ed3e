"""The server as a process: how it starts, stops, reloads, and whom it lets in."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploydcn.errors import RuntimeFailure
from deploydcn.serving.batcher import BatchLimits
from deploydcn.serving.options import ModelOptions, Tls
from tests.serving.conftest import running, write_linear
from tests.serving.conftest import write_model as write_graph
from tests.serving.load import drive, make_request, write_model

pytestmark = [pytest.mark.slow, pytest.mark.backend("tritonclient")]
X = np.arange(4, dtype=np.float32)[None]


class Process:
    """`deploydcn serve` with what it printed."""

    def __init__(self, *arguments: str) -> None:
        command = [str(Path(sys.executable).with_name("deploydcn")), "serve", *arguments, "--http", "0", "--grpc", "0", "--threads", "1"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.http, self.grpc = self._port(r"HTTP https?://\S+:(\d+)"), self._port(r"gRPC \S+:(\d+)")

    def _port(self, pattern: str) -> int:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(pattern, line):
                return int(found[1])
        raise AssertionError(f"did not start: {self.process.communicate()[1]}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@contextmanager
def process(*arguments: str) -> Iterator[Process]:
    started = Process(*arguments)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.communicate()


def infer(protocol: str, port: int, *, host: str = "127.0.0.1", **arguments: Any) -> np.ndarray:
    import tritonclient.grpc
    import tritonclient.http

    module = getattr(tritonclient, protocol)
    with module.InferenceServerClient(f"{host}:{port}") as client:
        tensor = module.InferInput("x", [1, 4], "FP32")
        tensor.set_data_from_numpy(X)
        return client.infer("linear", [tensor], **arguments).as_numpy("y")  # type: ignore[no-any-return]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_requests_that_wait_are_answered_before_the_server_ends(number: int, linear: Path) -> None:
    """The delay keeps four requests of each protocol in the queue when the signal comes."""
    with process(str(linear), "--delay-ms", "1500", "--max-batch", "64") as server:
        answers: list[np.ndarray] = []
        work = [("http", server.http), ("grpc", server.grpc)] * 4
        threads = [threading.Thread(target=lambda pair=pair: answers.append(infer(*pair))) for pair in work]
        for thread in threads:
            thread.start()
        time.sleep(0.7)
        assert not answers
        assert server.stop(number) == 0
        for thread in threads:
            thread.join()
    assert len(answers) == 8


def test_a_stop_under_load_loses_no_request(tmp_path: Path) -> None:
    array = write_model(tmp_path / "model.onnx")
    with process(str(tmp_path / "model.onnx")) as server:
        threading.Timer(1.0, lambda: server.process.send_signal(signal.SIGTERM)).start()
        latencies, errors, seconds = asyncio.run(drive(server.http, make_request(array), 16, 60.0))
        assert server.process.wait(30) == 0
    assert len(latencies) > 50
    assert not errors
    assert seconds < 50, "the clients were not told"


def endless(path: Path) -> Path:
    """Counts to n: runs for as long as a client says."""
    kinds = {"i": (TensorProto.INT64, []), "go": (TensorProto.BOOL, []), "a": (TensorProto.INT64, [])}
    before = [helper.make_tensor_value_info(name, *kind) for name, kind in kinds.items()]
    after = [helper.make_tensor_value_info("go_on", TensorProto.BOOL, []), helper.make_tensor_value_info("b", TensorProto.INT64, [])]
    nodes = [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["a", "i"], ["b"])]
    body = helper.make_graph(nodes, "body", before, after)
    loop = [helper.make_node("Squeeze", ["n"], ["trips"]), helper.make_node("Loop", ["trips", "yes", "zero"], ["y"], body=body)]
    weights = [numpy_helper.from_array(np.array(True), "yes"), numpy_helper.from_array(np.array(0), "zero")]
    return write_graph(path, loop, {"n": (TensorProto.INT64, [1])}, {"y": (TensorProto.INT64, [])}, weights)


def test_a_run_without_end_does_not_keep_the_server(tmp_path: Path) -> None:
    with process(str(endless(tmp_path / "endless.onnx")), "--drain", "1") as server:
        body = b'{"inputs": [{"name": "n", "datatype": "INT64", "shape": [1], "data": [1000000000000]}]}'
        told: list[int] = []

        def ask() -> None:
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"http://127.0.0.1:{server.http}/v2/models/endless/infer", body)
            told.append(refused.value.code)

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 20
        while b'_waiting{model="endless",version="1"} 1.0' not in urllib.request.urlopen(f"http://127.0.0.1:{server.http}/metrics").read():
            assert time.monotonic() < end, "no request waits behind the one that runs"
            time.sleep(0.05)
        assert server.stop() == 1
        for thread in threads:
            thread.join()
        assert server.process.stderr is not None
        log = server.process.stderr.read()
    assert told == [503, 503]
    assert "a model still runs" in log
    assert "Traceback" not in log


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as tried:
            tried.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_an_address_of_version_6_serves_both_protocols(linear: Path) -> None:
    with process(str(linear), "--host", "::1") as server:
        assert infer("http", server.http, host="[::1]").shape == infer("grpc", server.grpc, host="[::1]").shape == (1, 3)
        assert server.stop() == 0


def test_loading_anew_under_load_fails_no_request(tmp_path: Path) -> None:
    import tritonclient.http

    array = write_model(tmp_path / "model.onnx")
    with process(str(tmp_path / "model.onnx")) as server:

        def reload() -> None:
            with tritonclient.http.InferenceServerClient(f"127.0.0.1:{server.http}") as client:
                for _ in range(10):
                    client.load_model("model")

        thread = threading.Thread(target=reload)
        thread.start()
        latencies, errors, _ = asyncio.run(drive(server.http, make_request(array), 8, 2.0))
        thread.join()
    assert len(latencies) > 50
    assert not errors


@pytest.mark.parametrize("how", ["watch", "SIGHUP"])
def test_changed_files_are_loaded(how: str, linear: Path) -> None:
    with process(str(linear), *(["--watch", "0.2"] if how == "watch" else [])) as server:
        before = infer("http", server.http)
        time.sleep(0.1)
        write_linear(linear, factor=2.0)
        if how == "SIGHUP":
            server.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 20
        while (infer("http", server.http) == before).all():
            assert time.monotonic() < end, "the new file is not served"
            time.sleep(0.05)
        assert infer("http", server.http).tobytes() == (2 * before).tobytes()
        assert server.stop() == 0


def test_a_full_queue_is_a_503_that_says_when_to_try_again(linear: Path) -> None:
    with running([linear], ModelOptions(BatchLimits(delay=1.0, queue=1), threads=1)) as server:
        thread = threading.Thread(target=lambda: infer("http", server.server.http_port))
        thread.start()
        time.sleep(0.4)
        body = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0, 1, 2, 3]}]}'
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(f"http://{server.http}/v2/models/linear/infer", data=body))
        assert refused.value.code == 503
        assert refused.value.headers["Retry-After"] == "1"
        thread.join()


def test_clients_that_leave_free_their_places(linear: Path, caplog: pytest.LogCaptureFixture) -> None:
    body = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0, 1, 2, 3]}]}'
    with running([linear], ModelOptions(BatchLimits(delay=20.0, queue=2), threads=1)) as server:
        model = server.server.service.repository.get("linear")

        def wait_for(queued: int) -> None:
            end = time.monotonic() + 10
            while model.queued != queued:
                assert time.monotonic() < end, f"{model.queued} requests wait"
                time.sleep(0.01)

        clients = [socket.create_connection(("127.0.0.1", server.server.http_port)) for _ in range(2)]
        for client in clients:
            head = f"POST /v2/models/linear/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + body)
        wait_for(2)
        for client in clients:
            client.close()
        wait_for(0)
        assert (model.statistics.success.count, model.statistics.fail.count, model.statistics.executions) == (0, 2, 0)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["missing.onnx"], "missing.onnx does not exist"),
        (["LINEAR", "--instances", "0"], "--instances is 0; wanted 1 or more"),
        (["LINEAR", "--no-http", "--no-grpc"], "neither HTTP nor gRPC"),
        (["LINEAR", "--tls-cert", "LINEAR"], "TLS needs --tls-cert and --tls-key"),
        (["LINEAR", "--token-file", "missing"], "cannot read the token"),
        (["LINEAR", "--http", "99999"], "--http is 99999"),
        (["LINEAR", "--watch", "-1"], "--watch is -1; wanted seconds above 0"),
        (["LINEAR", "--drain", "inf"], "--drain is inf"),
        (["LINEAR", "--max-body-mb", "inf"], "--max-body-mb is inf"),
        (["LINEAR", "--host", ""], "--host is empty"),
        (["LINEAR", "--tls-cert", "LINEAR", "--tls-key", "LINEAR"], "are no certificate and its key"),
        (["LINEAR", "--token-file", "LINEAR"], "cannot read the token"),
        (["LINEAR", "--host", "no.such.host.invalid"], "cannot listen on no.such.host.invalid"),
    ],
    ids=[
        "file",
        "instances",
        "no protocol",
        "half of TLS",
        "token",
        "port",
        "watch",
        "drain",
        "body",
        "no host",
        "TLS",
        "binary token",
        "host",
    ],
)
def test_mistakes_end_with_a_sentence(arguments: list[str], reason: str, linear: Path) -> None:
    command = [
        str(Path(sys.executable).with_name("deploydcn")),
        "serve",
        *(str(linear) if word == "LINEAR" else word for word in arguments),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_named(linear: Path) -> None:
    with running([linear]) as first:
        for taken in ({"http": first.server.http_port}, {"grpc": first.server.grpc_port}):
            with pytest.raises(RuntimeFailure, match="cannot listen on"), running([linear], **taken):
                pass


def test_the_access_log_has_a_line_per_request(linear: Path) -> None:
    with process(str(linear), "--access-log") as server:
        infer("http", server.http)
        infer("grpc", server.grpc)
        server.process.terminate()
        _, text = server.process.communicate(timeout=30)
    assert re.search(r"127\.0\.0\.1 http POST /v2/models/linear/infer 200 [\d.]+ ms", text)
    assert re.search(r"127\.0\.0\.1:\d+ grpc ModelInfer 200 [\d.]+ ms", text)


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and a server's and a client's certificate that it signed."""
    folder = tmp_path_factory.mktemp("certificates")
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(folder, "req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority", "-days", "2")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    for name in ("server", "client"):
        openssl(folder, "req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.pem")
    return folder


def tls_answers(port: int, folder: Path, *, client: bool) -> bool:
    import ssl

    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    if client:
        context.load_cert_chain(folder / "client.pem", folder / "client.key")
    try:
        with urllib.request.urlopen(f"https://localhost:{port}/v2/models/linear", context=context) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, ssl.SSLError):
        return False


def grpc_tls_answers(port: int, folder: Path, *, client: bool) -> bool:
    import grpc

    own = ((folder / "client.key").read_bytes(), (folder / "client.pem").read_bytes()) if client else (None, None)
    credentials = grpc.ssl_channel_credentials((folder / "ca.pem").read_bytes(), *own)
    with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
        try:
            channel.unary_unary("/inference.GRPCInferenceService/ServerLive", lambda data: data, lambda data: data)(b"", timeout=5)
        except grpc.RpcError:
            return False
    return True


@pytest.mark.parametrize("mutual", [False, True], ids=["TLS", "mutual TLS"])
def test_tls(mutual: bool, linear: Path, certificates: Path) -> None:
    tls = Tls(certificates / "server.pem", certificates / "server.key", certificates / "ca.pem" if mutual else None)
    with running([linear], tls=tls) as server:
        assert server.server.http_port is not None
        assert server.server.grpc_port is not None
        for answers, port in ((tls_answers, server.server.http_port), (grpc_tls_answers, server.server.grpc_port)):
            assert answers(port, certificates, client=True)
            assert answers(port, certificates, client=False) != mutual
        assert server.server.options.controllable
