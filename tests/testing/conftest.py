"""A folder with two models of one network, of which one has a fault, and pytest to run in it."""

from __future__ import annotations

import importlib
from pathlib import Path

import onnx
import pytest

from tests.parity.graphs import change_weight, residual_network


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """good.onnx, same.onnx (its copy) and bad.onnx (conv3 has other weights) in an empty folder; not on GitHub."""
    for name in ("GITHUB_ACTIONS", "GITHUB_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    # pytester forgets the modules that a run imports, and native ones cannot be imported twice: they are here before.
    for module in ("onnxruntime", "deploydcn.runners.ort_runner", "deploydcn.parity.onnx_taps", "deploydcn.testing.parity_fixture"):
        importlib.import_module(module)
    # Looking through every installed package for plugins takes most of such a run's time: tests in processes of their own do it.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_PLUGINS", "deploydcn.testing.pytest_plugin")
    good = residual_network()
    for name, model in (("good", good), ("same", good), ("bad", change_weight(good, "w3", 1.01))):
        onnx.save(model, str(Path(pytester.path) / f"{name}.onnx"))
    return pytester
