"""How much of a processor the server leaves to the model: `python -m tests.serving.load`.

A server on one core, a load generator on another, a model of about half a millisecond. For each number of concurrent clients: requests
per second times the bare model's seconds (1 would be a server that costs nothing), and latencies. The bare model is timed on the server's
core, in this run, before and after.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

BARE = """
import sys, time, numpy, deploydcn
runner = deploydcn.load(sys.argv[1], threads=1)
inputs = [numpy.load(sys.argv[2])]
for _ in range(200): runner.run(inputs)
times = []
for _ in range(1500):
    begin = time.perf_counter(); runner.run(inputs); times.append(time.perf_counter() - begin)
print(sorted(times)[len(times) // 2])
"""


def write_model(path: Path, *, channels: int = 32, size: int = 32, layers: int = 2) -> np.ndarray:
    """A few convolutions with an open batch; gives an input of one row."""
    rng = np.random.default_rng(0)
    nodes, weights, previous = [], [], "x"
    for layer in range(layers):
        shape = (channels, 3 if layer == 0 else channels, 3, 3)
        weights.append(numpy_helper.from_array((0.1 * rng.standard_normal(shape)).astype(np.float32), f"w{layer}"))
        nodes += [
            helper.make_node("Conv", [previous, f"w{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]),
        ]
        previous = f"r{layer}"
    nodes += [helper.make_node("GlobalAveragePool", [previous], ["p"]), helper.make_node("Flatten", ["p"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "load",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", channels])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return rng.standard_normal((1, 3, size, size)).astype(np.float32)


def bare_seconds(model: Path, inputs: Path, core: int) -> float:
    """Median of the model alone on a core."""
    command = ["taskset", "-c", str(core), sys.executable, "-c", BARE, str(model), str(inputs)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@contextmanager
def server(model: Path, core: int, *options: str) -> Iterator[tuple[int, int]]:
    """`deploydcn serve` on one core; gives its HTTP port and process."""
    command = [
        "taskset",
        "-c",
        str(core),
        str(Path(sys.executable).with_name("deploydcn")),
        "serve",
        str(model),
        "--http",
        "0",
        "--no-grpc",
        "--threads",
        "1",
    ]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"HTTP http://\S+:(\d+)", line):
                yield int(found[1]), process.pid
                return
        raise SystemExit("the server did not start")
    finally:
        process.terminate()
        process.wait()


class Client(asyncio.Protocol):
    """One connection that sends the same request again when it is answered."""

    def __init__(self, request: bytes, until: float, latencies: list[float], errors: list[bytes]) -> None:
        self.request, self.until, self.latencies, self.errors = request, until, latencies, errors
        self.buffer = b""
        self.waiting = False
        self.finished = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.begin, self.waiting = time.perf_counter(), True
        self.transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end].lower()
        length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
        if len(self.buffer) < end + 4 + length:
            return
        now = time.perf_counter()
        if head.startswith(b"http/1.1 200"):
            self.latencies.append(now - self.begin)
        else:
            self.errors.append(self.buffer[:200])
        self.buffer, self.waiting = b"", False
        if now < self.until and b"connection: close" not in head:
            self.send()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.waiting:
            self.errors.append(f"not answered: {exc!r}".encode())
        if not self.finished.done():
            self.finished.set_result(None)


async def drive(port: int, request: bytes, concurrency: int, seconds: float) -> tuple[list[float], list[bytes], float]:
    """Latencies, errors, and the seconds it took."""
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    errors: list[bytes] = []
    begin = time.perf_counter()
    pairs = [
        await loop.create_connection(lambda: Client(request, begin + seconds, latencies, errors), "127.0.0.1", port)
        for _ in range(concurrency)
    ]
    await asyncio.gather(*(client.finished for _, client in pairs))
    return latencies, errors, time.perf_counter() - begin


def resident_megabytes(pid: int) -> float:
    """What a process holds of the machine's memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def make_request(inputs: np.ndarray, name: str = "model") -> bytes:
    """A request with a binary tensor, head included."""
    description = {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": list(inputs.shape), "parameters": {"binary_data_size": inputs.nbytes}},
        ],
        "parameters": {"binary_data_output": True},
    }
    header = json.dumps(description).encode()
    body = header + inputs.tobytes()
    lines = (
        f"POST /v2/models/{name}/infer HTTP/1.1",
        "Host: localhost",
        f"Content-Length: {len(body)}",
        f"Inference-Header-Content-Length: {len(header)}",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="per number of clients")
    parser.add_argument("--clients", default="1,4,8,16,32")
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--size", type=int, default=32)
    options, further = parser.parse_known_args()
    import uvloop

    server_core, client_core = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, {client_core})
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model, inputs = Path(folder) / "model.onnx", Path(folder) / "x.npy"
        array = write_model(model, layers=options.layers, size=options.size)
        np.save(inputs, array)
        before = bare_seconds(model, inputs, server_core)
        with server(model, server_core, *further) as (port, pid):
            loop = uvloop.new_event_loop()
            loop.run_until_complete(drive(port, make_request(array), 8, 1.0))
            idle = resident_megabytes(pid)
            for concurrency in map(int, options.clients.split(",")):
                latencies, errors, seconds = loop.run_until_complete(drive(port, make_request(array), concurrency, options.seconds))
                rows.append((concurrency, len(latencies) / seconds, latencies, errors, resident_megabytes(pid)))
        after = bare_seconds(model, inputs, server_core)
    bare = statistics.mean((before, after))
    table = Table("clients", "req/s", "x bare", "p50 ms", "p99 ms", "p99/p50", "errors", "server MB")
    for concurrency, rate, latencies, errors, megabytes in rows:
        p50, p99 = np.percentile(latencies, (50, 99))
        times = (f"{1e3 * p50:.2f}", f"{1e3 * p99:.2f}", f"{p99 / p50:.2f}")
        table.add_row(str(concurrency), f"{rate:.0f}", f"{rate * bare:.2f}", *times, str(len(errors)), f"{megabytes:.0f}")
    console = Console()
    console.print(table)
    console.print(f"bare model {1e3 * before:.3f} ms before, {1e3 * after:.3f} ms after; the server held {idle:.0f} MB at the start")
    for *_, errors, _ in rows:
        if errors:
            console.print(errors[0])


if __name__ == "__main__":
    main()
