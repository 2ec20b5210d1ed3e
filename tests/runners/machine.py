"""A machine with a fake GPU and a fake TensorRT, and arrays of other libraries in its memory."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import deploydcn
from deploydcn.runners import dlpack
from deploydcn.runners.device_arrays import DeviceArray
from deploydcn.runners.engine_runner import EngineRunner
from tests.runners.fake_cuda import FakeCuda
from tests.runners.fake_tensorrt import FakeTensorRT, engine_file


@dataclass
class Machine:
    cuda: FakeCuda
    trt: FakeTensorRT
    folder: Path

    def engine(self, name: str = "m.engine", **content: Any) -> Path:
        path = self.folder / name
        path.write_bytes(engine_file(**content))
        return path

    def load(self, function: str = "double", *, content: Mapping[str, Any] | None = None, **options: Any) -> EngineRunner:
        runner = deploydcn.load(self.engine(function=function, **(content or {})), "tensorrt", **options)
        assert isinstance(runner, EngineRunner)
        return runner

    def contents(self, array: DeviceArray | InterfaceArray | DlpackArray) -> np.ndarray:
        """What is in device memory now, without waiting for anything."""
        size = math.prod(array.shape) * array.dtype.itemsize
        return np.frombuffer(self.cuda.read(array.address, size), np.uint8).view(array.dtype).reshape(array.shape)

    def check_clean(self) -> None:
        assert not self.cuda.violations, self.cuda.violations

    def check_released(self) -> None:
        assert set(self.cuda.alive().values()) == {0}, self.cuda.alive()


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, **cuda: Any) -> Machine:
    machine = FakeCuda(**cuda)
    trt = FakeTensorRT(machine)
    for name, module in (("tensorrt", trt), ("cuda", ModuleType("cuda")), ("cuda.bindings", ModuleType("cuda.bindings"))):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", machine)
    library = folder / "libdeploydcn_trt.so"
    library.write_text("plugins: DeformConv2d GroupedConv2d")
    monkeypatch.setattr("deploydcn.runners.tensorrt_api.plugin_library_path", lambda: library)
    return Machine(machine, trt, folder)


class InterfaceArray:
    """As CuPy's or Numba's. Written by work on `stream`, which has not run yet."""

    def __init__(self, machine: Machine, array: np.ndarray, *, stream: int | None = None, version: int = 3, offset: int = 0) -> None:
        self.shape, self.dtype, self._version = array.shape, array.dtype, version
        self.stream = stream
        self.address = machine.cuda.put(array, stream=stream, offset=offset)
        self.strides: tuple[int, ...] | None = None

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "version": self._version,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": self.strides,
            **({"stream": self.stream} if self._version >= 3 else {}),
        }


class DlpackArray:
    """As JAX's. Written on a stream of its own; a consumer's stream is made to wait."""

    def __init__(self, machine: Machine, array: np.ndarray, *, device: int = 0, strides: tuple[int, ...] | None = None) -> None:
        self._machine, self._device, self._strides = machine, device, strides
        self.shape, self.dtype = array.shape, array.dtype
        self.stream = int(machine.cuda.cudaStreamCreateWithFlags(1)[1])
        self.address = machine.cuda.put(array, stream=self.stream)
        self.consumers: list[int] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self._device

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        assert stream is not None
        assert stream != 0
        self.consumers.append(stream)
        event = self._machine.cuda.cudaEventCreateWithFlags(2)[1]
        self._machine.cuda.cudaEventRecord(event, self.stream)
        self._machine.cuda.cudaStreamWaitEvent(stream, event, 0)
        self._machine.cuda.cudaEventDestroy(event)
        capsule = dlpack.pack(self.address, self.shape, self.dtype, self.__dlpack_device__(), self)
        if self._strides is not None:
            self._kept = (ctypes.c_int64 * 4)(*self._strides)
            dlpack._Managed.from_address(dlpack._pointer(capsule, b"dltensor")).tensor.strides = self._kept
        return capsule


class _TorchTensor:
    """As torch's, on the GPU; the device of the first index."""

    is_cuda = True
    layout = "torch.strided"

    def __init__(self, machine: Machine, array: np.ndarray, stream: int) -> None:
        self.shape, self.dtype = array.shape, f"torch.{array.dtype.name}"
        self.address = machine.cuda.put(array, stream=stream)
        self.device = type("device", (), {"index": 0})()
        self.contiguous = True
        self.negated = False

    def data_ptr(self) -> int:
        return self.address

    def is_contiguous(self) -> bool:
        return self.contiguous

    def is_neg(self) -> bool:
        return self.negated

    def is_conj(self) -> bool:
        return False

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad.")


def torch_tensor(monkeypatch: pytest.MonkeyPatch, machine: Machine, array: np.ndarray) -> Any:
    """A tensor on the GPU whose contents are pending on torch's current stream."""
    import torch

    stream = int(machine.cuda.cudaStreamCreateWithFlags(1)[1])
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: type("Stream", (), {"cuda_stream": stream})())
    monkeypatch.setattr(_TorchTensor, "__module__", "torch")
    return _TorchTensor(machine, array, stream)


def images(*shapes: tuple[int, ...], seed: int = 0) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    for shape in shapes:
        yield rng.standard_normal(shape).astype(np.float32)


def doubled(x: np.ndarray) -> np.ndarray:
    """What the engine "double" computes."""
    return np.asarray(2 * x + math.prod(x.shape[2:]), x.dtype)
