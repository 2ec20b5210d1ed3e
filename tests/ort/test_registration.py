"""Registering with runtimes that are not as expected: a second one in the process, one that is too old."""

from __future__ import annotations

import subprocess
import sys

import pytest

from deploydcn.libraries import ort_library_path

FAKE = """
import ctypes, sys
from ctypes import CFUNCTYPE, c_char_p, c_int, c_uint32, c_void_p, cast
library = ctypes.CDLL(sys.argv[1])
library.RegisterCustomOps.restype, library.RegisterCustomOps.argtypes = c_void_p, [c_void_p, c_void_p]
messages, alive = [], []
succeed = CFUNCTYPE(c_void_p)(lambda: None)
create_status = CFUNCTYPE(c_void_p, c_int, c_char_p)(lambda code, text: messages.append(text.decode()) or 1)

def runtime(slots, newest=18):
    table = (c_void_p * slots)(*[cast(succeed, c_void_p).value] * slots)
    table[0] = cast(create_status, c_void_p).value
    get_api = CFUNCTYPE(c_void_p, c_uint32)(lambda version: ctypes.addressof(table) if version <= newest else None)
    get_version = CFUNCTYPE(c_char_p)(lambda: b"1.31.1")
    base = (c_void_p * 2)(cast(get_api, c_void_p).value, cast(get_version, c_void_p).value)
    alive.extend([table, get_api, get_version, base])
    return ctypes.addressof(base)
"""


def register(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", FAKE + program, str(ort_library_path())], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_second_runtime_is_refused() -> None:
    first, again, second, message = register(
        """
one, two = runtime(300), runtime(300)
for base in (one, one, two):
    print(library.RegisterCustomOps(None, base))
print(messages[-1])
"""
    )
    assert (first, again, second) == ("None", "None", "1")
    assert "already in use by another onnxruntime in this process" in message


@pytest.mark.parametrize("slots", [1, 101])
def test_an_old_runtime_is_told_so(slots: int) -> None:
    """Its table is short: nothing beyond CreateStatus may be read."""
    status, message = register(f"print(library.RegisterCustomOps(None, runtime({slots}, newest=1)))\nprint(messages[-1])")
    assert status == "1"
    assert "needs onnxruntime 1.18 or newer" in message


@pytest.mark.backend("ort")
def test_sessions_that_come_and_go_leave_nothing_behind() -> None:
    """The runtime unloads a library with its last session; loaded anew each time, ours would keep its list of operators each time."""
    program = """
import sys
import onnxruntime
for _ in range(2):
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(sys.argv[1])
    del options
    print("libdeploydcn_ort" in open("/proc/self/maps").read())
"""
    done = subprocess.run([sys.executable, "-c", program, str(ort_library_path())], capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True"], done.stderr
