"""The NVIDIA driver and its GPUs, asked through the driver's own library: needs no package, and answers where there is none."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path

OLDEST_CAPABILITY = (7, 5)
"""Turing: the first our GPU kernels run on."""

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
_REASONS = {
    34: "libcuda.so.1 is the stub that CUDA's toolkit brings for linking; the driver's own is not found",
    100: "the driver sees no GPU",
    101: "the driver refuses the GPU",
    802: "the driver is still starting",
    803: "the driver and its libraries have different versions; reboot",
    999: "the driver reports an unknown error; reboot, or reload its kernel module",
}


@dataclass(frozen=True)
class Gpu:
    """capability: (8, 6) for compute capability 8.6. memory: bytes."""

    name: str
    capability: tuple[int, int]
    memory: int

    def __str__(self) -> str:
        return f"{self.name}, compute capability {self.capability[0]}.{self.capability[1]}, {self.memory / 2**30:.0f} GiB"


@dataclass(frozen=True)
class Driver:
    """release: as "580.65.06", or "" where the system does not tell. cuda: the newest CUDA it runs, as (13, 0)."""

    release: str
    cuda: tuple[int, int]


def driver() -> Driver | None:
    """The driver; None where there is none."""
    library = _library()
    if library is None:
        return None
    version = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    return Driver(_release(), (version.value // 1000, version.value % 1000 // 10))


def gpus() -> tuple[list[Gpu], str]:
    """The GPUs this process may use; and, when there are none, why."""
    library = _library()
    if library is None:
        return [], "no NVIDIA driver: libcuda.so.1 is not found"
    status = library.cuInit(0)
    if status != 0:
        return [], _REASONS.get(status, f"the driver does not start: CUresult {status}")
    count = ctypes.c_int()
    library.cuDeviceGetCount(ctypes.byref(count))
    found = [_describe(library, index) for index in range(count.value)]
    return found, "" if found else "the driver sees no GPU; is CUDA_VISIBLE_DEVICES set?"


def _library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


def _describe(library: ctypes.CDLL, index: int) -> Gpu:
    device, number, memory, name = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(128)
    library.cuDeviceGet(ctypes.byref(device), index)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    capability = []
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
        library.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        capability.append(number.value)
    return Gpu(name.value.decode(errors="replace"), (capability[0], capability[1]), memory.value)


def _release() -> str:
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return ""
    match = re.search(r"\b(\d{3}\.\d+(\.\d+)?)\b", text)
    return match[1] if match else ""
