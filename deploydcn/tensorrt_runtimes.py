"""TensorRT and TensorRT-RTX as Python packages: what they are called, and what can be told without importing them."""

from __future__ import annotations

import ctypes
import importlib.util
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Runtime:
    """One of the two.

    modules: Python modules that are it; the first one installed is used. distributions: packages that tell its version.
    libraries: packages that hold its shared libraries. extra: ours that installs it. tag: how its engine files begin.
    timing_cache: whether builds measure kernels, and so can be told to remember what they measured.
    compute_capabilities: whether an engine can be built for other GPUs than the one present.
    """

    name: str
    title: str
    modules: tuple[str, ...]
    distributions: tuple[str, ...]
    libraries: tuple[str, ...]
    extra: str
    tag: bytes
    timing_cache: bool
    compute_capabilities: bool


RUNTIMES = {
    "tensorrt": Runtime(
        "tensorrt",
        "TensorRT",
        modules=("tensorrt",),
        distributions=("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
        libraries=("tensorrt_libs",),
        extra="gpu",
        tag=b"ftrt",
        timing_cache=True,
        compute_capabilities=False,
    ),
    "tensorrt-rtx": Runtime(
        "tensorrt-rtx",
        "TensorRT-RTX",
        modules=("tensorrt_rtx", "tensorrt_rtx_bindings"),
        distributions=("tensorrt-rtx-cu13-bindings", "tensorrt-rtx"),
        libraries=("tensorrt_rtx_libs",),
        extra="rtx",
        tag=b"vtrt",
        timing_cache=False,
        compute_capabilities=True,
    ),
}

OLDEST_TENSORRT = 10
"""The first major version of TensorRT with IPluginV3, which our plugins are."""

DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
    "FP8": "float8_e4m3fn",
}
"""trt.DataType names and NumPy's. INT4 and FP4 have less than a byte per element: no array can hold them."""


def dtype_name(dtype: Any) -> str:
    """The NumPy name of a trt.DataType; its own, in small letters, where NumPy has none."""
    name = str(dtype).rpartition(".")[2]
    return DTYPES.get(name, name.lower())


def installed_module(runtime: Runtime) -> str | None:
    """The Python module to import for a runtime; None when none is installed. Imports nothing."""
    return next((module for module in runtime.modules if _spec(module) is not None), None)


def library_folders(runtime: Runtime) -> list[Path]:
    """Folders with the shared libraries that pip installed for a runtime."""
    specs = [_spec(package) for package in runtime.libraries]
    return [Path(folder) for spec in specs if spec is not None for folder in spec.submodule_search_locations or ()]


def load_error(library: str | Path) -> str:
    """Why a plugin library that TensorRT refused does not load; "" when it does, so that what is in it must be the reason."""
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    return ""


def _spec(module: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(module)
    except (ImportError, ValueError):  # ValueError: something put a module without a spec in its place
        return None
