"""The emulated CUDA runtime and its controls, through ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import numpy as np
import pytest

from tests.emulation.build import run_kernel
from tests.emulation.test_ptx_instructions import library

pytestmark = [pytest.mark.backend("emulation"), pytest.mark.slow]

SUCCESS, INVALID_VALUE, INVALID_CONFIGURATION, ILLEGAL_ADDRESS = 0, 1, 9, 700
TO_DEVICE, TO_HOST = 1, 2
MULTIPROCESSORS, CAPABILITY_MAJOR, CAPABILITY_MINOR, SHARED_OPT_IN = 16, 75, 76, 97
MAX_DYNAMIC_SHARED = 8


@pytest.fixture
def native() -> Iterator[ctypes.CDLL]:
    """The runtime in its initial state, as after the test."""
    runtime = library().native
    runtime.cudaMalloc.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t]
    runtime.cudaFree.argtypes = [ctypes.c_void_p]
    runtime.cudaMemcpy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    runtime.cudaMemsetAsync.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p]
    runtime.cudaGetErrorString.restype = runtime.cudaGetErrorName.restype = ctypes.c_char_p
    runtime.deploydcn_emulation_reset()
    yield runtime
    for name, value in ((b"engine", b"source"), (b"deferred", b"0"), (b"inside_enqueue", b"0"), (b"multiprocessors", b"4")):
        assert runtime.deploydcn_emulation_set(name, value) == 0
    runtime.deploydcn_emulation_reset()


def attribute(native: ctypes.CDLL, number: int) -> int:
    value = ctypes.c_int(-1)
    assert native.cudaDeviceGetAttribute(ctypes.byref(value), number, 0) == SUCCESS
    return value.value


def option(native: ctypes.CDLL, name: str, value: str) -> bool:
    return native.deploydcn_emulation_set(name.encode(), value.encode()) == 0


@pytest.mark.parametrize(
    ("options", "capability", "shared"),
    [
        ({"engine": "source"}, (9, 0), 227),
        ({"engine": "ptx75"}, (7, 5), 64),
        ({"engine": "ptx80"}, (9, 0), 227),
        ({"engine": "ptx80", "compute_capability": "8.0"}, (8, 0), 163),
        ({"engine": "source", "compute_capability": "8.6"}, (8, 6), 99),
        ({"engine": "source", "compute_capability": "12.0"}, (12, 0), 99),
    ],
)
def test_device_attributes(native: ctypes.CDLL, options: dict[str, str], capability: tuple[int, int], shared: int) -> None:
    assert all(option(native, name, value) for name, value in {**options, "multiprocessors": "7"}.items())
    assert (attribute(native, CAPABILITY_MAJOR), attribute(native, CAPABILITY_MINOR)) == capability
    assert attribute(native, SHARED_OPT_IN) == shared * 1024
    assert attribute(native, MULTIPROCESSORS) == 7
    for size, error in ((shared * 1024, SUCCESS), (shared * 1024 + 1, INVALID_VALUE)):
        assert native.cudaFuncSetAttribute(ctypes.c_void_p(1), MAX_DYNAMIC_SHARED, size) == error


def test_unknown_attributes_and_options_are_named(native: ctypes.CDLL) -> None:
    assert native.cudaDeviceGetAttribute(ctypes.byref(ctypes.c_int()), 9999, 0) == INVALID_VALUE
    assert native.deploydcn_emulation_error() == b"the emulator knows no device attribute 9999"
    for name, value, why in (("speed", "1", "no such option"), ("schedule", "random", "no such value"), ("poison", "256", "no such value")):
        native.deploydcn_emulation_reset()
        assert not option(native, name, value)
        assert native.deploydcn_emulation_error().decode() == f"emulation option {name}={value}: {why}"


def test_error_texts(native: ctypes.CDLL) -> None:
    texts = {
        SUCCESS: b"no error",
        INVALID_VALUE: b"invalid argument",
        719: b"unspecified launch failure",
        12345: b"unrecognized error code",
    }
    assert {number: native.cudaGetErrorString(number) for number in texts} == texts
    assert native.cudaGetErrorName(ILLEGAL_ADDRESS) == b"cudaErrorIllegalAddress"


def test_last_error_is_reported_once_and_peeking_keeps_it(native: ctypes.CDLL) -> None:
    assert native.cudaFree(ctypes.c_void_p(4096)) == INVALID_VALUE
    assert native.cudaPeekAtLastError() == INVALID_VALUE
    assert native.cudaGetLastError() == INVALID_VALUE
    assert native.cudaGetLastError() == SUCCESS


def test_copies_check_direction_and_bounds(native: ctypes.CDLL) -> None:
    host = np.arange(100, dtype=np.uint8)
    device = ctypes.c_void_p()
    assert native.cudaMalloc(ctypes.byref(device), 100) == SUCCESS
    assert device.value is not None
    assert native.cudaMemcpy(device, host.ctypes.data, 100, TO_DEVICE) == SUCCESS
    assert native.cudaMemcpy(device, host.ctypes.data, 100, TO_HOST) == INVALID_VALUE
    assert native.cudaMemcpy(device.value + 1, host.ctypes.data, 100, TO_DEVICE) == INVALID_VALUE
    assert native.cudaMemsetAsync(device.value + 50, 0, 51, None) == INVALID_VALUE
    assert native.cudaMemsetAsync(device.value + 90, 255, 10, None) == SUCCESS
    back = np.zeros(100, np.uint8)
    assert native.cudaMemcpy(back.ctypes.data, device, 100, TO_HOST) == SUCCESS
    assert back.tolist() == [*range(90), *[255] * 10]
    assert native.cudaFree(device) == SUCCESS
    assert native.cudaFree(device) == INVALID_VALUE


def test_a_failed_kernel_makes_all_calls_fail_until_reset(native: ctypes.CDLL) -> None:
    option(native, "engine", "ptx80")
    device = ctypes.c_void_p()
    native.cudaMalloc(ctypes.byref(device), 64)
    arguments = (ctypes.c_void_p * 4)(device, None, None, None)
    index = library().indices["null_pointer"]
    native.run_kernel(index, 1, 1, arguments)
    first = native.deploydcn_emulation_error()
    assert native.cudaDeviceSynchronize() == ILLEGAL_ADDRESS
    assert native.run_kernel(index, 1, 1, arguments) == ILLEGAL_ADDRESS
    assert native.cudaMalloc(ctypes.byref(ctypes.c_void_p()), 64) == ILLEGAL_ADDRESS
    assert native.deploydcn_emulation_error() == first
    native.deploydcn_emulation_reset()
    assert native.deploydcn_emulation_error() == b""
    assert native.cudaDeviceSynchronize() == SUCCESS
    assert native.run_kernel(library().indices["scopes"], 1, 1, arguments) == SUCCESS
    assert native.cudaFree(device) == SUCCESS


def test_a_write_into_the_slack_of_an_allocation_is_reported(native: ctypes.CDLL) -> None:
    """The 16-byte alignment leaves up to 15 bytes before the guard page."""
    option(native, "engine", "ptx80")
    device = native.deploydcn_emulation_malloc(20)
    arguments = (ctypes.c_void_p * 4)(device, None, None, None)
    native.run_kernel(library().indices["scopes"], 1, 3, arguments)  # writes 24 bytes
    assert (
        native.deploydcn_emulation_error()
        == b"kernel ptx test wrote outside its memory: 0 bytes after the end of a device allocation of 20 bytes"
    )
    native.deploydcn_emulation_reset()
    native.deploydcn_emulation_free(device)


def test_deferred_work_runs_at_the_next_synchronisation(native: ctypes.CDLL) -> None:
    option(native, "engine", "ptx80")
    device = native.deploydcn_emulation_malloc(8)
    option(native, "deferred", "1")
    stats = (ctypes.c_uint64 * 8)()
    native.deploydcn_emulation_read_stats(stats, 1)
    native.run_kernel(library().indices["scopes"], 1, 1, (ctypes.c_void_p * 4)(device, None, None, None))
    native.deploydcn_emulation_read_stats(stats, 0)
    assert stats[0] == 0
    assert native.deploydcn_emulation_synchronize() == SUCCESS
    native.deploydcn_emulation_read_stats(stats, 0)
    assert list(stats)[:3] == [1, 1, 1]  # launches, blocks, threads
    native.deploydcn_emulation_free(device)


def test_grids_no_device_runs_are_refused(native: ctypes.CDLL) -> None:
    for blocks, threads in ((0, 32), (1, 0), (1, 1025)):
        native.deploydcn_emulation_reset()
        assert native.run_kernel(0, blocks, threads, (ctypes.c_void_p * 4)()) == INVALID_CONFIGURATION
        assert "no device runs a grid of" in native.deploydcn_emulation_error().decode()


def test_threads_may_leave_early_when_the_test_allows_it() -> None:
    """The last, partial warp leaves: barriers go on without it, as on a GPU. Its lanes are missing from no mask."""
    assert "threads exited" in run_kernel("exit").error
    assert run_kernel("exit", strict_exit=0).ok
