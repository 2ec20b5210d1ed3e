"""Replicas on Ray Serve: the same answers as the embedded server's, and what only several replicas can do."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import deploydcn
from tests.serving.conftest import write_linear
from tests.serving.load import drive, make_request

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.backend("ray"), pytest.mark.backend("tritonclient")]
TOKEN = "s3cret"


def write_slow(path: Path) -> Path:
    """y = x + steps, by a loop that multiplies matrices `steps` times: clients say how long a request takes."""
    square = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["m", "square"], ["m_next"]),
            helper.make_node("Add", ["v", "one"], ["v_next"]),
            helper.make_node("Identity", ["go"], ["go_next"]),
        ],
        "body",
        [square("i", TensorProto.INT64, []), square("go", TensorProto.BOOL, []), square("m", 1, [256, 256]), square("v", 1, [1])],
        [square("go_next", TensorProto.BOOL, []), square("m_next", 1, [256, 256]), square("v_next", 1, [1])],
    )
    constants = {"square": np.zeros((256, 256), np.float32), "one": np.ones(1, np.float32), "true": np.array(True)}
    graph = helper.make_graph(
        [helper.make_node("Loop", ["steps", "true", "square", "x"], ["m_last", "y"], body=body)],
        "slow",
        [square("x", 1, [1]), square("steps", TensorProto.INT64, [])],
        [square("y", 1, [1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def processes() -> dict[int, tuple[int, str]]:
    """Every process: its parent and its name."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            name = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # gone meanwhile
            continue
        found[int(folder.name)] = (parent, name)
    return found


class RayServer:
    """`deploydcn serve --ray` with what it started."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        command = [str(Path(sys.executable).with_name("deploydcn")), "serve", "--ray", *arguments, "--http", "0", "--num-cpus", "0.5"]
        self.log = folder / "ray.log"
        with self.log.open("w") as log:
            environment = {**os.environ, "DEPLOYDCN_TOKEN": TOKEN}
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        eventually(lambda: "\nHTTP " in self.log.read_text() or self.process.poll() is not None, 90)
        text = self.log.read_text()
        assert self.process.poll() is None, text
        ports = {name: int(port) for name, port in re.findall(r"^(HTTP|gRPC) \S+:(\d+)$", text, re.M)}
        self.http, self.grpc = ports["HTTP"], ports.get("gRPC", 0)

    def descendants(self) -> dict[int, str]:
        """Processes that it started, and those that they started."""
        everything, ours = processes(), {self.process.pid}
        while further := {pid for pid, (parent, _) in everything.items() if parent in ours} - ours:
            ours |= further
        return {pid: everything[pid][1] for pid in ours if pid in everything}

    def replicas(self) -> list[int]:
        return sorted(pid for pid, name in self.descendants().items() if name.startswith("ray::ServeReplica"))

    def stop(self) -> None:
        """End it with SIGTERM; nothing that it started may stay."""
        started = self.descendants()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.log.read_text()
        eventually(lambda: not self.left(started), 20, lambda: f"still there: {self.left(started)}")

    @staticmethod
    def left(started: dict[int, str]) -> dict[int, str]:
        """Those of the processes that run still."""
        now = processes()
        return {pid: name for pid, name in started.items() if name and now.get(pid, (0, ""))[1] == name}  # the dead have no name


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[RayServer]:
    server = RayServer(folder, *arguments)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            started = server.descendants()
            server.process.kill()
            server.process.wait()
            for pid in server.left(started):
                os.kill(pid, signal.SIGKILL)


def authorized() -> dict[str, str]:
    """A new one for each call: tritonclient adds to what it is given."""
    return {"authorization": f"Bearer {TOKEN}"}


def eventually(condition: Callable[[], Any], seconds: float, what: Callable[[], str] = lambda: "did not happen") -> None:
    """Wait for what other processes do; the limit is for those that never do it."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, what()
        time.sleep(0.1)


def post(port: int, path: str, body: bytes = b"{}", headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, headers or authorized(), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def slow_body(steps: int) -> bytes:
    inputs = '{"name":"x","datatype":"FP32","shape":[1],"data":[1]},{"name":"steps","datatype":"INT64","shape":[],"data":[%d]}'
    return ('{"inputs":[%s]}' % (inputs % steps)).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray")
    write_linear(folder / "linear.onnx")
    write_slow(folder / "slow.onnx")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RayServer]:
    """Two replicas, both protocols. gRPC needs --host 0.0.0.0: Ray's proxy listens everywhere."""
    arguments = ("--replicas", "2", "--queue", "8", "--ongoing", "2", "--host", "0.0.0.0", "--grpc", "0")
    with serving(folder, str(folder / "linear.onnx"), str(folder / "slow.onnx"), *arguments) as running:
        yield running


X = np.arange(4, dtype=np.float32)[None]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_every_replica_computes_what_the_local_runner_does(protocol: str, server: RayServer, folder: Path) -> None:
    import tritonclient.grpc
    import tritonclient.http

    module = getattr(tritonclient, protocol)
    expected = deploydcn.load(folder / "linear.onnx", "ort", threads=1).run({"x": X})["y"]
    with module.InferenceServerClient(f"127.0.0.1:{getattr(server, protocol)}") as client:
        tensor = module.InferInput("x", [1, 4], "FP32")
        tensor.set_data_from_numpy(X)
        for _ in range(20):
            got = client.infer("linear", [tensor], headers=authorized()).as_numpy("y")
            assert got.tobytes() == expected.tobytes()

        def counted_apart() -> bool:
            """What a replica counts, it counts by itself: two counts, unless both happen to have answered as many."""
            client.infer("linear", [tensor], headers=authorized())
            how = {"as_json": True} if protocol == "grpc" else {}
            answers = [client.get_inference_statistics("linear", headers=authorized(), **how) for _ in range(20)]
            counts = {int(answer["model_stats"][0]["inference_count"]) for answer in answers}
            return len(counts) == 2 and min(counts) > 0

        eventually(counted_apart, 30)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_protocol_is_that_of_the_embedded_server(protocol: str, server: RayServer) -> None:
    import tritonclient.grpc
    import tritonclient.http
    from tritonclient.utils import InferenceServerException

    module = getattr(tritonclient, protocol)
    json: dict[str, Any] = {"as_json": True} if protocol == "grpc" else {}
    with module.InferenceServerClient(f"127.0.0.1:{getattr(server, protocol)}") as client:
        assert client.is_server_ready()
        assert client.is_model_ready("slow", headers=authorized())
        assert client.get_server_metadata(headers=authorized(), **json)["name"] == "deploydcn"
        assert client.get_model_metadata("linear", headers=authorized(), **json)["inputs"][0]["name"] == "x"
        config = client.get_model_config("linear", headers=authorized(), **json)
        assert config.get("config", config)["max_batch_size"] == 8
        index = client.get_model_repository_index(headers=authorized(), **json)
        assert [row["name"] for row in (index["models"] if json else index)] == ["linear", "slow"]
        with pytest.raises(InferenceServerException, match="Authorization: Bearer TOKEN"):
            client.get_server_metadata()
        with pytest.raises(InferenceServerException, match="no model is named 'other'"):
            client.get_model_metadata("other", headers=authorized())
        with pytest.raises(InferenceServerException, match=r"this replica is one of several.*deploy the application again"):
            client.unload_model("linear", headers=authorized())
        tensor = module.InferInput("x", [1, 5], "FP32")
        tensor.set_data_from_numpy(np.zeros((1, 5), np.float32))
        with pytest.raises(InferenceServerException, match=r"x.*5"):
            client.infer("linear", [tensor], headers=authorized())


def test_a_stream_is_answered_in_order(server: RayServer) -> None:
    import tritonclient.grpc

    answers: list[Any] = []
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        tensor = tritonclient.grpc.InferInput("x", [1, 4], "FP32")
        tensor.set_data_from_numpy(X)
        client.start_stream(lambda result, error: answers.append(error or result.get_response().id), headers=authorized())
        for number in range(4):
            client.async_stream_infer("linear", [tensor], request_id=str(number))
        eventually(lambda: len(answers) == 4, 30)
        client.stop_stream()
    assert answers == ["0", "1", "2", "3"]


def test_more_than_the_replicas_and_the_queue_hold_is_told_to_come_back(server: RayServer) -> None:
    """Two replicas with two requests each and a queue of eight: some of 40 are refused, as the embedded server refuses."""
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: post(server.http, "/v2/models/slow/infer", slow_body(1000)), range(40)))
    statuses = [status for status, *_ in answers]
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= 4
    for status, headers, body in answers:
        if status == 503:
            assert headers["retry-after"] == "1"
            assert headers["content-type"] == "application/json"
            assert b'{"error":' in body


def test_a_replica_killed_under_load_costs_one_request_at_most(server: RayServer) -> None:
    """Four clients, so that the replica has requests when it dies: the other one answers them."""
    before = server.replicas()
    assert len(before) == 2
    request = make_request(X, "linear").replace(b"Host: localhost", b"Host: localhost\r\nAuthorization: Bearer " + TOKEN.encode())
    threading.Timer(1.5, lambda: os.kill(before[0], signal.SIGKILL)).start()
    latencies, errors, _ = asyncio.run(drive(server.http, request, 4, 4.0))
    assert len(latencies) > 50
    assert len(errors) <= 1, errors
    eventually(lambda: len(server.replicas()) == 2 and before[0] not in server.replicas(), 150)


def test_a_stop_answers_what_was_accepted(server: RayServer, folder: Path) -> None:
    """Four requests of two seconds, two for each replica. The last test that uses this server."""
    slow = deploydcn.load(folder / "slow.onnx", "ort", threads=1)
    begin = time.perf_counter()
    slow.run({"x": np.ones(1, np.float32), "steps": np.array(500)})
    steps = round(2 * 500 / (time.perf_counter() - begin))
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(post, server.http, "/v2/models/slow/infer", slow_body(steps)) for _ in range(4)]
        time.sleep(0.5)
        assert not any(future.done() for future in futures)
        server.stop()
        answers = [future.result() for future in futures]
    assert [status for status, *_ in answers] == [200] * 4, answers


def test_the_high_throughput_proxy_and_replicas_that_follow_the_load(folder: Path) -> None:
    """One replica, then two under load that asks for them; one of them is killed; all behind HAProxy."""
    request = make_request(X, "linear").replace(b"Host: localhost", b"Host: localhost\r\nAuthorization: Bearer " + TOKEN.encode())
    scaling = ("--max-replicas", "2", "--target-ongoing", "1", "--upscale-delay", "1")
    with serving(folder, str(folder / "linear.onnx"), *scaling, "--high-throughput") as server:
        assert any("haproxy" in name for name in server.descendants().values())
        assert len(server.replicas()) == 1
        outcome: list[Any] = []
        load = threading.Thread(target=lambda: outcome.extend(asyncio.run(drive(server.http, request, 8, 14.0))))
        load.start()
        eventually(lambda: len(server.replicas()) == 2, 30)
        time.sleep(3)  # until HAProxy has it
        os.kill(server.replicas()[0], signal.SIGKILL)
        load.join()
        latencies, errors, _ = outcome
        assert len(latencies) > 100
        assert len(errors) <= 1, errors
        server.stop()
