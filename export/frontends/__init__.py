"""Frontends: what deploydcn knows about the frameworks models are written in.

Each module here describes one framework as a `Frontend`. None imports its framework: classes and functions are recognised by
name among those that are loaded. `substitution.py` compares replacements with originals and puts them in place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deploydcn.export.frontends.registry import register_frontend, registered

if TYPE_CHECKING:
    from torch import nn

    Converter = Callable[[nn.Module], nn.Module | Sequence[nn.Module] | None]

__all__ = ["Frontend", "frontends", "register_frontend"]


@dataclass(frozen=True)
class Frontend:
    """One framework.

    A pattern is a qualified name, "package.module.Name", or "*.Name" for what is copied from project to project.

    patch: a context in which framework functions that cannot be traced are replaced. Holds during tracing only.
    decompositions: torch operators written in terms of torch.ops.deploydcn.
    kernels: (pattern, function) for subclasses of torch.autograd.Function. The function takes the parameters of `forward` but ctx,
        by name: a Function whose forward has others is not meant. It replaces `forward` while a model is traced, and where
        the compiled kernel is missing.
    functions: (pattern, function) for Python functions, found as globals of loaded modules and as attributes of the model's
        modules; same rule for parameters.
    modules: pattern -> convert(module), for modules that must be replaced as a whole. Subclasses are meant too, unless they have
        a forward of their own: those are other classes. convert returns a module that computes the same with the
        same parameters; several, if only a comparison can tell which one is right; or None when the module is not what the
        name suggests. It raises ExportError when an option has no exact equivalent.
    final: nobody else is asked about what this one's patterns match: what the user registers has the last word.
    """

    name: str
    patch: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    decompositions: Callable[[], dict[Any, Callable[..., Any]]] = field(default=dict)
    kernels: Sequence[tuple[str, Callable[..., Any]]] = ()
    functions: Sequence[tuple[str, Callable[..., Any]]] = ()
    modules: Mapping[str, Converter] = field(default_factory=dict)
    final: bool = False


def frontends() -> tuple[Frontend, ...]:
    """All frontends, in the order they are asked: what the user registered comes first."""
    from deploydcn.export.frontends import (
        charlesshang,
        dcnv4,
        deformable_attention,
        deformable_convnets,
        edvr,
        internimage,
        kornia,
        mmcv,
        pure_pytorch,
        roi_pooling,
        torchvision,
        transformers,
    )

    mine = registered()
    own = Frontend("register_frontend", kernels=tuple(mine.items()), functions=tuple(mine.items()), modules=mine, final=True)
    builtin = (
        torchvision,
        mmcv,
        deformable_convnets,
        charlesshang,
        edvr,
        pure_pytorch,
        kornia,
        internimage,
        dcnv4,
        deformable_attention,
        roi_pooling,
        transformers,
    )
    return (own, *(module.FRONTEND for module in builtin))
