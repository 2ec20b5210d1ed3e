"""DLPack capsules, read and made with ctypes: arrays pass between libraries without a copy (dmlc.github.io/dlpack, version 0.8)."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploydcn.errors import InvalidArgument

CPU, CUDA, CUDA_MANAGED = 1, 2, 13
"""DLDeviceType."""

_NAME = b"dltensor"
_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
_BFLOAT, _FLOAT8_E4M3FN = 4, 10


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_python = ctypes.pythonapi
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _DELETER)(("PyCapsule_New", _python))
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", _python))
# Of a capsule that is being destroyed: an address, since a new reference would bring it back.
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _python))
_pointer_of_dying = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _python))


@dataclass(frozen=True)
class Unpacked:
    """What a capsule describes. strides: in elements; None for a contiguous array. device: (DLDeviceType, index)."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    dtype: str
    device: tuple[int, int]


def unpack(capsule: Any) -> Unpacked:
    """Read a capsule, which keeps its array alive and must outlive the use of it.

    Raises:
        InvalidArgument: an element type NumPy and ml_dtypes have no name for.
    """
    tensor = _Managed.from_address(_pointer(capsule, _NAME)).tensor
    strides = tuple(tensor.strides[: tensor.ndim]) if tensor.strides else None
    return Unpacked(
        (tensor.data or 0) + tensor.byte_offset,
        tuple(tensor.shape[: tensor.ndim]),
        strides,
        _dtype_name(tensor.code, tensor.bits, tensor.lanes),
        (tensor.device_type, tensor.device_id),
    )


def pack(address: int, shape: tuple[int, ...], dtype: np.dtype[Any], device: tuple[int, int], owner: Any) -> Any:
    """A capsule of a contiguous array. owner: kept alive until the consumer lets go of the array."""
    sizes = (ctypes.c_int64 * max(len(shape), 1))(*shape)
    code = {"bfloat16": _BFLOAT, "float8_e4m3fn": _FLOAT8_E4M3FN}.get(dtype.name, _CODES.get(dtype.kind, 0))
    pointer = ctypes.cast(sizes, ctypes.POINTER(ctypes.c_int64))
    tensor = _Tensor(address, *device, len(shape), code, dtype.itemsize * 8, 1, pointer, None, 0)
    managed = _Managed(tensor, None, ctypes.cast(_drop, ctypes.c_void_p).value)
    place = ctypes.addressof(managed)
    _handed_out[place] = (managed, sizes, owner)
    return _new(place, _NAME, _drop_unused)


_handed_out: dict[int, tuple[Any, ...]] = {}


def _drop_managed(managed: int) -> None:
    """The consumer is done."""
    _handed_out.pop(managed, None)


def _drop_capsule(capsule: int) -> None:
    """The capsule goes; a consumer would have renamed it."""
    if _is_valid(capsule, _NAME):
        _handed_out.pop(_pointer_of_dying(capsule, _NAME), None)


_drop, _drop_unused = _DELETER(_drop_managed), _DELETER(_drop_capsule)
# Consumers call these until the very end of the process: they are never freed.
for _function in (_drop, _drop_unused):
    _python.Py_IncRef(ctypes.py_object(_function))


def _dtype_name(code: int, bits: int, lanes: int) -> str:
    if lanes == 1 and (code, bits) == (_BFLOAT, 16):
        return "bfloat16"
    if lanes == 1 and (code, bits) == (_FLOAT8_E4M3FN, 8):
        return "float8_e4m3fn"
    kinds = {number: kind for kind, number in _CODES.items()}
    if lanes != 1 or code not in kinds or bits not in (8, 16, 32, 64):
        raise InvalidArgument(f"got a DLPack array of type code {code}, {bits} bits, {lanes} lanes; wanted plain numbers")
    return np.dtype(f"{kinds[code]}{bits // 8}").name
