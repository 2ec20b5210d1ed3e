"""Frontends: what deploydcn knows about the frameworks models are written in.

Each module here describes one framework as a `Frontend`. None imports its framework unless a model of it is at hand.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Frontend:
    """One framework.

    unwrap: the torch module inside a framework's own model object, or None when it is not one of its.
    prepare: a context in which the model behaves as it will when deployed (export flags); both the reference and the
        export run inside it. It must restore everything.
    patch: a context in which framework functions that cannot be traced are replaced. Holds during tracing only.
    decompositions: torch operators written in terms of torch.ops.deploydcn.
    """

    name: str
    unwrap: Callable[[Any], nn.Module | None] = lambda model: None
    prepare: Callable[[nn.Module], contextlib.AbstractContextManager[Any]] = lambda model: contextlib.nullcontext()
    patch: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    decompositions: Callable[[], dict[Any, Callable[..., Any]]] = field(default=dict)


def frontends() -> tuple[Frontend, ...]:
    """All frontends, in the order they are asked."""
    from deploydcn.export.frontends import torchvision, ultralytics

    return (torchvision.FRONTEND, ultralytics.FRONTEND)


def unwrap(model: Any) -> Any:
    """The torch module to export."""
    for frontend in frontends():
        inner = frontend.unwrap(model)
        if inner is not None:
            return inner
    return model


@contextlib.contextmanager
def prepared(model: nn.Module) -> Iterator[None]:
    """The model in its deployed behaviour."""
    with contextlib.ExitStack() as stack:
        for frontend in frontends():
            stack.enter_context(frontend.prepare(model))
        yield


@contextlib.contextmanager
def traceable() -> Iterator[None]:
    """Framework functions that cannot be traced, replaced."""
    with contextlib.ExitStack() as stack:
        for frontend in frontends():
            stack.enter_context(frontend.patch())
        yield
