"""DLPack capsules against real producers and consumers, NumPy and torch, in host memory: the layout is the same on a GPU."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from deploydcn.errors import InvalidArgument
from deploydcn.runners import dlpack

DTYPES = ("float32", "float64", "float16", "bfloat16", "int8", "uint8", "int32", "int64", "bool")


class Producer:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CPU, 0

    def __dlpack__(self, **_: Any) -> Any:
        return dlpack.pack(self.array.ctypes.data, self.array.shape, self.array.dtype, (dlpack.CPU, 0), self)


def array(dtype: str, *shape: int) -> np.ndarray:
    values = np.arange(np.prod(shape)).reshape(shape)
    return values.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


@pytest.mark.parametrize("shape", [(2, 3), (), (0, 4), (1, 2, 3, 4)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_reads_what_we_pack(dtype: str, shape: tuple[int, ...]) -> None:
    source = array(dtype, *shape)
    tensor = torch.from_dlpack(Producer(source))
    assert str(tensor.dtype) == f"torch.{dtype}"
    assert tuple(tensor.shape) == shape
    assert np.array_equal(tensor.double().numpy(), source.astype(np.float64))
    if tensor.numel():
        assert tensor.data_ptr() == source.ctypes.data


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != "bfloat16"])
def test_numpy_reads_what_we_pack(dtype: str) -> None:
    source = array(dtype, 2, 3)
    assert np.array_equal(np.from_dlpack(Producer(source)), source)


@pytest.mark.slow
def test_memory_lives_as_long_as_the_consumer() -> None:
    producer = Producer(array("float32", 3))
    alive = weakref.ref(producer)
    tensor = torch.from_dlpack(producer)
    del producer
    gc.collect()
    assert alive() is not None
    del tensor
    gc.collect()
    assert alive() is None


@pytest.mark.slow
def test_a_capsule_nobody_took_releases_its_memory() -> None:
    producer = Producer(array("float32", 3))
    alive, capsule = weakref.ref(producer), producer.__dlpack__()
    del producer
    gc.collect()
    assert alive() is not None
    del capsule
    gc.collect()
    assert alive() is None
    assert not dlpack._handed_out


@pytest.mark.parametrize("dtype", DTYPES)
def test_we_read_what_torch_packs(dtype: str) -> None:
    tensor = torch.zeros(4, 3, dtype=getattr(torch, dtype))
    got = dlpack.unpack(tensor[1:].__dlpack__())
    assert (got.address, got.shape, got.dtype, got.device) == (tensor[1:].data_ptr(), (3, 3), dtype, (dlpack.CPU, 0))
    assert got.strides == (3, 1)
    assert dlpack.unpack(tensor.t().__dlpack__()).strides == (1, 3)


def test_unusual_element_types_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="wanted plain numbers"):
        dlpack.unpack(torch.zeros(2, dtype=torch.complex64).__dlpack__())


@pytest.mark.slow
def test_a_tensor_that_outlives_the_interpreter() -> None:
    """Destroyed when modules are gone already: its deleter must still be there."""
    code = (
        "import numpy as np, torch; from tests.runners.test_dlpack import Producer, array; import builtins; "
        "builtins.kept = [torch.from_dlpack(Producer(array('float32', 3)))]; print('ok')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
