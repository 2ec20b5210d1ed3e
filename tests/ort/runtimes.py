"""Other versions of ONNX Runtime, each in a folder of its own under build/runtimes, used by subprocesses."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OLDEST, BEFORE_SHAPE_FIX, FIRST_FIXED = "1.20.1", "1.23.2", "1.24.4"


def runtime_environment(version: str) -> dict[str, str]:
    """Environment of a subprocess that imports this onnxruntime; downloads it on first use."""
    folder = ROOT / "build" / "runtimes" / version
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "onnxruntime").is_dir():
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), f"onnxruntime=={version}"]
            subprocess.run(command, check=True)
    paths = [str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
