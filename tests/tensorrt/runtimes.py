"""The genuine TensorRT runtimes that install without a GPU: TensorRT's lean ones each in a folder of its own under build/runtimes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Runtime:
    module: str
    packages: tuple[str, ...]


RUNTIMES = {
    "tensorrt-10.16": Runtime("tensorrt_lean_bindings", ("tensorrt-lean-cu12-libs==10.16.1.11", "tensorrt-lean-cu12-bindings==10.16.1.11")),
    "tensorrt-11.4": Runtime("tensorrt_lean_bindings", ("tensorrt-lean-cu13-libs==11.4.0.106", "tensorrt-lean-cu13-bindings==11.4.0.106")),
    "tensorrt-rtx-1.7": Runtime("tensorrt_rtx_bindings", ()),  # this environment's own, of the extra rtx
}


def runtime_environment(name: str) -> dict[str, str]:
    """Environment of a subprocess that imports this runtime; downloads it on first use."""
    if not RUNTIMES[name].packages:
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))}
    folder = ROOT / "build" / "runtimes" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / RUNTIMES[name].module).is_dir():
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *RUNTIMES[name].packages]
            subprocess.run(command, check=True)
    paths = [str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
