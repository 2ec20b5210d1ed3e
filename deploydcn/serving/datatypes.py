"""The protocol's names for element types, and arrays as the bytes and lists it carries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from deploydcn.serving.refusal import Refusal

NAMES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
"""NumPy's name -> the Open Inference Protocol's. Strings (BYTES) and bfloat16, which NumPy lacks, are not served."""

# Little-endian, as the protocol says.
_DTYPES = {name: np.dtype(dtype).newbyteorder("<") for dtype, name in NAMES.items()}
_LARGEST = np.iinfo(np.int64).max


def dtype_of(datatype: str, tensor: str) -> np.dtype[Any]:
    """The NumPy type of a protocol name.

    Raises:
        Refusal: there is none.
    """
    dtype = _DTYPES.get(datatype)
    if dtype is None:
        raise Refusal(f"input {tensor!r} has datatype {datatype!r}; wanted one of {', '.join(_DTYPES)}")
    return dtype


def from_bytes(data: bytes | bytearray | memoryview, datatype: str, shape: Sequence[int], tensor: str) -> np.ndarray:
    """The array in `data`, which it shares; C order.

    Raises:
        Refusal: an unknown datatype, a size below zero, or another number of bytes than the shape needs.
    """
    dtype = dtype_of(datatype, tensor)
    needed = _count(shape, tensor) * dtype.itemsize
    if len(data) != needed:
        sizes = "x".join(map(str, shape)) or "scalar"
        raise Refusal(f"input {tensor!r} brings {len(data)} bytes; {datatype} of {sizes} needs {needed}")
    array = np.frombuffer(data, dtype)
    # Values other than 0 and 1 in a bool array are undefined behaviour for who reads it.
    return (array.view(np.uint8) != 0 if dtype.kind == "b" else array).reshape(shape)


def from_list(data: Any, datatype: str, shape: Sequence[int], tensor: str) -> np.ndarray:
    """The array of a list of numbers, nested like the shape or flat.

    Raises:
        Refusal: an unknown datatype, another number of values than the shape needs, or one that the type cannot hold.
    """
    dtype = dtype_of(datatype, tensor)
    needed = _count(shape, tensor)
    try:
        loose = np.asarray(data)
        if dtype.kind in "iu" and loose.dtype.kind not in "iu":
            loose = np.asarray(data, object)  # NumPy makes floats of integers that need 64 bits without a sign
        if loose.size:
            _check_values(loose, dtype, tensor, datatype)
        with np.errstate(over="raise"):
            array = loose.astype(dtype)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise Refusal(f"input {tensor!r} is no list of {datatype}: {error}") from error
    if array.size != needed:
        raise Refusal(f"input {tensor!r} brings {array.size} values; {list(shape)} needs {needed}")
    return array.reshape(shape)


def _check_values(loose: np.ndarray, dtype: np.dtype[Any], tensor: str, datatype: str) -> None:
    """Numbers that the type holds: no text, no fractions for integers, nothing out of range."""
    integers = loose.dtype.kind in "iu" or all(type(value) is int for value in loose.flat)
    fits = {"b": loose.dtype.kind == "b", "f": loose.dtype.kind in "iuf"}.get(dtype.kind, integers)
    if not fits:
        raise Refusal(f"input {tensor!r} holds other values than {datatype} can; wanted a list of {datatype}")
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        smallest, largest = int(loose.min()), int(loose.max())
        if smallest < limits.min or largest > limits.max:
            raise Refusal(f"input {tensor!r} holds {smallest} to {largest}; {datatype} holds {limits.min} to {limits.max}")


def _count(shape: Sequence[int], tensor: str) -> int:
    if any(size < 0 for size in shape):
        raise Refusal(f"input {tensor!r} has shape {list(shape)}; sizes are 0 or more")
    if len(shape) > 32 or math.prod(size or 1 for size in shape) > _LARGEST:
        raise Refusal(f"input {tensor!r} has {len(shape)} axes of sizes too large to multiply; wanted the shape of its data")
    return math.prod(shape)
