"""Run a model anywhere through one interface: `load(model, backend=...)` gives a `Runner`."""

from __future__ import annotations

from typing import Any

from deploydcn.errors import InvalidArgument
from deploydcn.runners.base import Runner, TensorInfo

__all__ = ["BACKENDS", "Runner", "TensorInfo", "load"]

BACKENDS = ("torch", "ort", "tensorrt", "tensorrt-rtx")


def load(model: Any, backend: str = "ort", **options: Any) -> Runner:
    """Load a model for one backend.

    Args:
        model: "ort": a path, an onnx.ModelProto or its bytes. "torch": a torch.nn.Module, or `file.py:factory` /
            `package.module:factory`. "tensorrt", "tensorrt-rtx": the path of an engine.
        backend: one of BACKENDS.
        options: passed to the backend's runner: OrtRunner (threads, replace_standard, providers), TorchRunner (example_args,
            example_kwargs, device) or EngineRunner (device, contexts, cuda_graph, plugins, allow_code).

    Raises:
        InvalidArgument: an unknown backend.
        InvalidModel, RuntimeFailure, MissingDependency: the model cannot be loaded.
    """
    if backend not in BACKENDS:
        raise InvalidArgument(f"backend is {backend!r}; wanted one of {', '.join(BACKENDS)}")
    if backend == "ort":
        from deploydcn.runners.ort_runner import OrtRunner

        return OrtRunner(model, **options)
    if backend != "torch":
        from deploydcn.runners.engine_runner import EngineRunner

        return EngineRunner(model, backend=backend, **options)
    from deploydcn._lazy import lazy_import

    lazy_import("torch", extra="export")
    from deploydcn.runners.torch_runner import TorchRunner

    return TorchRunner.load(model, **options)
