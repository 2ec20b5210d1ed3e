"""How models of some frameworks behave when deployed, as opposed to while they are trained or inspected.

A framework is recognised by qualified class names, so that none is imported to look for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

_ULTRALYTICS_HEAD = {
    "export": True,  # one tensor of decoded boxes instead of boxes and feature maps
    "format": "onnx",
    "dynamic": True,  # anchors are recomputed for every size ...
    "shape": None,  # ... and the cache of the last size forgotten
}


def unwrap(model: Any) -> Any:
    """The torch module inside a framework's own model object (ultralytics.YOLO); anything else as it is."""
    bases = {f"{base.__module__}.{base.__qualname__}" for base in type(model).__mro__}
    inner = getattr(model, "model", None)
    if "ultralytics.engine.model.Model" in bases and isinstance(inner, torch.nn.Module):
        return inner
    return model


@contextlib.contextmanager
def deployed(model: torch.nn.Module) -> Iterator[None]:
    """The model in eval mode and in its deployed behaviour; every flag and buffer is restored on exit. What torch.compile made of it,
    or of parts of it, runs as the Python that it was made from: the reference is PyTorch, and no compiler is waited for."""
    training = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer._version, buffer.detach().clone()) for buffer in model.buffers()]
    attributes: list[tuple[torch.nn.Module, str, bool, Any]] = []
    try:
        model.eval()
        for module, _ in training:
            if type(module).__module__.startswith("ultralytics.nn.modules.head"):
                for name, value in _ULTRALYTICS_HEAD.items():
                    attributes.append((module, name, name in vars(module), getattr(module, name, None)))
                    setattr(module, name, value)
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module, name, own, value in reversed(attributes):
            if own:
                setattr(module, name, value)
            elif name in vars(module):
                delattr(module, name)
        for module, flag in training:
            module.training = flag
        with torch.no_grad():
            for buffer, version_before, value in buffers:
                if buffer._version != version_before:
                    buffer.copy_(value)
