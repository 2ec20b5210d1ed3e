"""Builds the emulator with the small kernels, plain or with sanitizers, and runs them."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
EMULATION = ROOT / "plugins" / "emulation"
SANITIZERS = {"plain": "", "asan": "address,undefined", "tsan": "thread"}


@dataclass(frozen=True)
class Outcome:
    code: int
    output: str
    error: str

    @property
    def ok(self) -> bool:
        return self.code == 0 and not self.error


def run(*command: str | Path, environment: dict[str, str] | None = None) -> Outcome:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env={**os.environ, **(environment or {})})
    return Outcome(done.returncode, done.stdout, done.stderr)


@cache
def configured(variant: str) -> Path:
    """The build folder of a variant: plain, asan or tsan."""
    folder = ROOT / "build" / f"emulation-tests-{variant}"
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-DCMAKE_BUILD_TYPE=Release", f"-DDEPLOYDCN_SANITIZE={SANITIZERS[variant]}"]
    if SANITIZERS[variant]:  # lines for the reports, and only the PTX form that the tests run
        options += ["-DCMAKE_CXX_FLAGS_RELEASE=-O1 -g1", "-DDEPLOYDCN_PTX_ENGINES=80"]
    done = run("cmake", "-S", FOLDER, "-B", folder, *options)
    assert done.code == 0, done.output + done.error
    return folder


@cache
def build(target: str, variant: str = "plain") -> Path:
    """Builds a target of CMakeLists.txt and returns the build folder. Parallel test workers share it."""
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / f"emulation-tests-{variant}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = configured(variant)
        done = run("cmake", "--build", folder, "--target", target, "-j", "2")
    assert done.code == 0, done.output + done.error
    return folder


@cache
def bugs() -> list[str]:
    """The planted bugs, in the order of the C++ enumeration."""
    text = (FOLDER / "small_kernels.h").read_text()
    body = re.sub(r"//.*", "", re.search(r"enum class Bug \{(.*?)\}", text, re.S).group(1))  # type: ignore[union-attr]
    return [name.strip() for name in body.split(",") if name.strip() != "kCount"]


def run_kernel(kernel: str, bug: str = "kNone", *, variant: str = "plain", **options: object) -> Outcome:
    driver = build("emulation_driver", variant) / "emulation_driver"
    environment = {"ASAN_OPTIONS": "detect_leaks=1", "TSAN_OPTIONS": "halt_on_error=1"}
    settings = [f"{name}={value}" for name, value in options.items()]
    return run(driver, kernel, str(bugs().index(bug)), *settings, environment=environment)
