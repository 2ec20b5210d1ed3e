"""What Ray Serve costs: `python -m tests.serving.load_ray`.

Requests per second of the embedded server, of two replicas behind Ray's proxy, and of two behind HAProxy, on this machine, with one client
program. All three run in turn, several times; what is compared are medians, with the least and the most beside them.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from tests.serving.load import drive, make_request, write_model

SERVERS = {
    "embedded": ("--no-grpc",),
    "ray": ("--ray", "--replicas", "2"),
    "ray --high-throughput": ("--ray", "--replicas", "2", "--high-throughput"),
}


@contextmanager
def serving(model: Path, *options: str) -> Iterator[int]:
    """`deploydcn serve`, wherever the scheduler puts it; gives its HTTP port."""
    command = [str(Path(sys.executable).with_name("deploydcn")), "serve", str(model), "--http", "0", "--threads", "1", *options]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            port = next((int(found[1]) for line in process.stdout if (found := re.search(r"^HTTP \S+:(\d+)", line))), 0)
            if not port:
                log.seek(0)
                raise SystemExit(log.read().decode())
            yield port
        finally:
            process.terminate()
            process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="per server, round and number of clients")
    parser.add_argument("--clients", default="1,16")
    options = parser.parse_args()
    clients = [int(text) for text in options.clients.split(",")]
    rates: dict[tuple[str, int], list[float]] = {(name, count): [] for name in SERVERS for count in clients}
    middles: dict[tuple[str, int], list[float]] = {key: [] for key in rates}
    failed = 0
    loop = uvloop.new_event_loop()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        request = make_request(write_model(model, layers=6))
        for _ in range(options.rounds):
            for name, arguments in SERVERS.items():
                with serving(model, *arguments) as port:
                    loop.run_until_complete(drive(port, request, 8, 2.0))
                    for count in clients:
                        latencies, errors, seconds = loop.run_until_complete(drive(port, request, count, options.seconds))
                        rates[name, count].append(len(latencies) / seconds)
                        middles[name, count].append(1e3 * statistics.median(latencies))
                        failed += len(errors)
    table = Table("server", "clients", "requests/s", "least", "most", "of embedded", "p50 ms")
    for (name, count), values in rates.items():
        median = statistics.median(values)
        share = median / statistics.median(rates["embedded", count])
        numbers = (f"{value:.0f}" for value in (median, min(values), max(values)))
        table.add_row(name, str(count), *numbers, f"{share:.2f}", f"{statistics.median(middles[name, count]):.1f}")
    console = Console()
    console.print(table)
    console.print(f"{failed} requests failed")


if __name__ == "__main__":
    main()
