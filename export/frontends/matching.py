"""Finding by name: loaded Function subclasses, loaded functions, and the classes of modules."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import torch
from torch import nn


def matches(pattern: str, qualified_name: str) -> bool:
    """'*.Name' or the whole name."""
    prefix, _, name = pattern.rpartition(".")
    return pattern == qualified_name or (prefix == "*" and qualified_name.rpartition(".")[2] == name)


def qualified_name(thing: Any) -> str:
    """Of a class or function."""
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', '')}"


def classes_of_forward(module: nn.Module) -> list[type]:
    """The module's class and its bases up to the one that defines forward: all of them mean that forward. Empty where the
    instance has a forward of its own."""
    kinds: list[type] = []
    for kind in type(module).__mro__ if "forward" not in vars(module) else ():
        kinds.append(kind)
        if "forward" in vars(kind):
            break
    return kinds


def function_classes() -> Iterator[Any]:
    """Every loaded subclass of torch.autograd.Function that defines forward."""
    remaining: list[Any] = [torch.autograd.Function]
    seen = set()
    while remaining:
        for kind in remaining.pop().__subclasses__():
            if kind not in seen:
                seen.add(kind)
                remaining.append(kind)
                if isinstance(vars(kind).get("forward"), staticmethod):
                    yield kind


def takes_context(kind: Any) -> bool:
    """Whether forward's first parameter is ctx: not where a Function has setup_context."""
    return bool(kind.setup_context is torch.autograd.Function.setup_context)


def places_of_functions(names: set[str], root: nn.Module) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
    """(namespace, attribute, function) wherever a Python function of one of these names can be called from: globals of loaded
    modules, under other names too, and attributes of the model's modules."""
    for namespace in [*sys.modules.values(), *root.modules()]:
        for attribute, value in [*getattr(namespace, "__dict__", {}).items()]:
            if type(value) is FunctionType and value.__name__ in names:  # isinstance would wake lazy objects
                yield namespace, attribute, value


def parameter_names(function: Callable[..., Any], *, skip_first: bool = False) -> list[str]:
    """Names of the parameters, decorators seen through."""
    return list(inspect.signature(function).parameters)[1 if skip_first else 0 :]


def same_parameters(theirs: list[str], ours: Callable[..., Any]) -> bool:
    """Whether `ours` takes these names in this order; what it takes beyond has defaults."""
    parameters = list(inspect.signature(ours).parameters.values())
    rest = parameters[len(theirs) :]
    return theirs == [parameter.name for parameter in parameters[: len(theirs)]] and all(item.default is not item.empty for item in rest)


def adapter(forward: Callable[..., Any], ours: Callable[..., Any], *, skip_first: bool) -> Callable[..., Any]:
    """`ours`, called as `forward` is, without its first parameter where that is ctx; defaults are those of `forward`."""
    signature = inspect.signature(forward)
    parameters = list(signature.parameters.values())[1 if skip_first else 0 :]
    signature = signature.replace(parameters=parameters)

    def replacement(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return ours(**bound.arguments)

    return replacement
