"""ultralytics YOLO: the network inside a YOLO object, with its head in export mode."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn

from deploydcn.export.frontends import Frontend

_FLAGS = {"export": True, "format": "onnx", "dynamic": True}


def _unwrap(model: Any) -> nn.Module | None:
    """YOLO("yolov8n.yaml") holds the network in `.model`."""
    inner = getattr(model, "model", None)
    bases = {f"{base.__module__}.{base.__qualname__}" for base in type(model).__mro__}
    return inner if "ultralytics.engine.model.Model" in bases and isinstance(inner, nn.Module) else None


def _heads(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if type(module).__module__.startswith("ultralytics.nn.modules.head")]


@contextlib.contextmanager
def _prepare(model: nn.Module) -> Iterator[None]:
    """Heads return one tensor of decoded boxes and recompute their anchors at every size (`dynamic`)."""
    saved: list[tuple[nn.Module, str, bool, Any]] = []
    for head in _heads(model):
        # `shape` caches the size the anchors were made for: forgetting it makes the traced graph compute them.
        for name, value in {**_FLAGS, "shape": None}.items():
            saved.append((head, name, name in vars(head), getattr(head, name, None)))
            setattr(head, name, value)
    try:
        yield
    finally:
        for head, name, own, value in reversed(saved):
            if own:
                setattr(head, name, value)
            else:
                delattr(head, name)


FRONTEND = Frontend("ultralytics", unwrap=_unwrap, prepare=_prepare)
