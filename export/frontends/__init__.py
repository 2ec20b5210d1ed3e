"""Frontends: what deploydcn knows about the frameworks models are written in.

Each module here describes one framework as a `Frontend`. None imports its framework unless a model of it is at hand.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Frontend:
    """One framework.

    patch: a context in which framework functions that cannot be traced are replaced. Holds during tracing only.
    decompositions: torch operators written in terms of torch.ops.deploydcn.
    """

    name: str
    patch: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    decompositions: Callable[[], dict[Any, Callable[..., Any]]] = field(default=dict)


def frontends() -> tuple[Frontend, ...]:
    """All frontends, in the order they are asked."""
    from deploydcn.export.frontends import torchvision

    return (torchvision.FRONTEND,)


@contextlib.contextmanager
def traceable() -> Iterator[None]:
    """Framework functions that cannot be traced, replaced."""
    with contextlib.ExitStack() as stack:
        for frontend in frontends():
            stack.enter_context(frontend.patch())
        yield
