"""Frameworks as far as they import here: mmcv-lite has mmcv's Python without its compiled extension."""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")


class _Uncompiled(types.ModuleType):
    """An extension whose functions exist, as mmcv asserts when it is imported, and raise when they are called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: Any, **kwargs: Any) -> Any:
            raise RuntimeError(f"{self.__name__} is not compiled")

        return missing


if importlib.util.find_spec("mmcv") and not importlib.util.find_spec("mmcv._ext"):
    sys.modules["mmcv._ext"] = _Uncompiled("mmcv._ext")

if importlib.util.find_spec("basicsr") and "torchvision.transforms.functional_tensor" not in sys.modules:
    import torchvision.transforms.functional as functional

    sys.modules["torchvision.transforms.functional_tensor"] = functional  # where torchvision 0.16 and older had it
