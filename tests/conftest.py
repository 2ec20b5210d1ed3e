"""Shared by all tests: `--require=ort` turns a skipped backend into a failure, and the summary names what was missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator

import pytest

from deploydcn.errors import UserError
from deploydcn.libraries import plugin_library_path
from deploydcn.testing.native import find_nvcc
from tests.browser import NAMES, find_chromium


def _package(name: str) -> Callable[[], str]:
    return lambda: "" if importlib.util.find_spec(name) else f"package {name} is not installed"


def _nvcc() -> str:
    return "" if find_nvcc() else "nvcc is not on PATH, in CUDA_HOME or among the PyPI packages"


def _rtx() -> str:
    try:
        plugin_library_path()
    except UserError as error:
        return str(error)
    return _package("tensorrt_rtx_bindings")()


# name -> why it is missing, "" when it is there
BACKENDS: dict[str, Callable[[], str]] = {
    "ort": _package("onnxruntime"),
    "torch": _package("torch"),
    "ultralytics": _package("ultralytics"),
    "mmcv": _package("mmcv"),
    "transformers": _package("transformers"),
    "kornia": _package("kornia"),
    "timm": _package("timm"),
    "basicsr": lambda: _package("basicsr")() or _package("distutils")(),
    "emulation": _nvcc,
    "rtx": _rtx,
    "matplotlib": _package("matplotlib"),
    "jinja2": _package("jinja2"),
    "chromium": lambda: "" if find_chromium() else f"none of {', '.join(NAMES)} is on PATH",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require", default="", help="comma-separated backends whose tests must not be skipped: " + ", ".join(BACKENDS))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "backend(name): needs an optional package; skipped without it, failed under --require=name")
    unknown = _required(config) - set(BACKENDS)
    if unknown:
        raise pytest.UsageError(f"--require names {', '.join(sorted(unknown))}; wanted some of {', '.join(BACKENDS)}")


def _required(config: pytest.Config) -> set[str]:
    return {name for name in config.getoption("--require").split(",") if name}


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("backend"):
        name = mark.args[0]
        if missing := BACKENDS[name]():
            message = f"backend {name}: {missing}"
            if name in _required(item.config):
                pytest.fail(message)
            pytest.skip(message)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A test that skips itself although all its backends are there, and required ones among them, fails too."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    backends = [mark.args[0] for mark in item.iter_markers("backend")]
    required = [name for name in backends if name in _required(item.config)]
    if report.skipped and required and not any(BACKENDS[name]() for name in backends):
        report.outcome = "failed"
        report.longrepr = f"skipped although --require={','.join(required)}: {report.longrepr}"
