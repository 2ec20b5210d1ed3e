"""What users register for layers of their own. Importing this needs no torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from deploydcn.errors import InvalidArgument

_REGISTERED: dict[str, Callable[..., Any]] = {}
_PATTERN = re.compile(r"(\*|[^\W\d]\w*(\.[^\W\d]\w*)*)\.[^\W\d]\w*")

F = TypeVar("F", bound=Callable[..., Any])


def register_frontend(name: str) -> Callable[[F], F]:
    """Tell `export_onnx` what to do with a layer of your own; a decorator.

    For a torch.nn.Module class, the decorated function takes a module of it and returns an equivalent one made of
    `deploydcn.nn`, with the same parameters (`deploydcn.nn.with_forward` is the shortest way); or None to leave that module as it is.
    Before an export, both are run on the inputs the module receives in the example, and on random inputs with random
    parameters; a difference is an ExportError.

        @deploydcn.register_frontend("my_package.layers.MyDeformConv")
        def convert(module):
            return with_forward(module, lambda self, x: deform_conv2d(x, self.weight, self.offsets(x), padding=1))

    For a torch.autograd.Function around a compiled kernel, the decorated function takes the parameters of its `forward` but
    ctx, under the same names, and computes the same with `deploydcn.nn.functional`; likewise for a plain Python function.

    Args:
        name: the qualified name, as in `my_package.layers.MyDeformConv`, or "*.MyDeformConv" wherever the class lives.

    Raises:
        InvalidArgument: the name is not of that form, or registered already.
    """
    if not isinstance(name, str) or not _PATTERN.fullmatch(name):
        raise InvalidArgument(
            f"register_frontend got {name!r}; wanted a qualified class name, as in 'my_package.layers.MyDeformConv', or '*.MyDeformConv'"
        )

    def decorate(function: F) -> F:
        if not callable(function):
            raise InvalidArgument(f"register_frontend({name!r}) decorates {function!r}; wanted a function")
        if name in _REGISTERED:
            earlier = _REGISTERED[name]
            where = f"{earlier.__module__}.{getattr(earlier, '__qualname__', earlier)}"
            raise InvalidArgument(f"a frontend for {name} is registered already: {where}; register each name once")
        _REGISTERED[name] = function
        return function

    return decorate


def registered() -> Mapping[str, Callable[..., Any]]:
    """Functions by pattern, in the order they were registered."""
    return dict(_REGISTERED)
