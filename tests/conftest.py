"""The optional parts that tests name in `@pytest.mark.backend(name)`; deploydcn's pytest plugin skips or, under `--require`, fails them."""

from __future__ import annotations

import gc
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from deploydcn.errors import UserError
from deploydcn.libraries import plugin_library_path
from deploydcn.testing.native import find_nvcc
from deploydcn.testing.pytest_plugin import installed
from tests.browser import NAMES, find_chromium
from tests.triton import server

# Thousands of test items live to the end: looking through them again and again takes a tenth of the fast tests' time.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def _nvcc() -> str:
    return "" if find_nvcc() else "nvcc is not on PATH, in CUDA_HOME or among the PyPI packages"


def _rtx() -> str:
    try:
        plugin_library_path()
    except UserError as error:
        return str(error)
    return installed("tensorrt_rtx_bindings")()


def pytest_deploydcn_backends() -> dict[str, Callable[[], str]]:
    """Name -> why it is missing, "" when it is there; "torch" and "ort" are the plugin's own."""
    return {
        **{
            name: installed(name)
            for name in (
                "ultralytics",
                "mmcv",
                "transformers",
                "kornia",
                "timm",
                "matplotlib",
                "jinja2",
                "tritonclient",
                "schemathesis",
                "grpc_tools",
                "opentelemetry",
                "ray",
            )
        },
        "basicsr": lambda: installed("basicsr")() or installed("distutils")(),
        "emulation": _nvcc,
        "rtx": _rtx,
        "tritonserver": server.missing,
        "chromium": lambda: "" if find_chromium() else f"none of {', '.join(NAMES)} is on PATH",
    }


def pytest_configure(config: pytest.Config) -> None:
    """yapf, which mmcv imports, writes a cache when it is first imported: two workers at once would read it half-written."""
    if not hasattr(config, "workerinput") and importlib.util.find_spec("yapf"):
        importlib.import_module("yapf")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`make check` does not import files that are slow as a whole: collecting their thousands of rows would take a sixth of its minute."""
    if config.getoption("markexpr") != "not slow" or collection_path.suffix != ".py":
        return None
    return bool(re.search(r"^pytestmark = .*\bpytest\.mark\.slow\b", collection_path.read_text(), re.M)) or None
