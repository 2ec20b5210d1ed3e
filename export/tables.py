"""Tables of sizes: integer tensors whose numbers stay known while a model is traced.

Deformable-DETR and what descends from it put the sizes of its feature maps into a tensor and take them out again:
`for h, w in spatial_shapes: torch.linspace(0.5, h - 0.5, h)`, `memory.split([h * w for h, w in spatial_shapes])`. A traced tensor has
no values to take out. Where only numbers and symbols went in, whole-number arithmetic is done on them beside the tensor's own, and whoever
wants a number gets that one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakTensorKeyDictionary

WHOLE = (torch.int64, torch.int32)


@dataclass(frozen=True)
class _Entry:
    """numbers: the tensor's, as an array of int and SymInt. storage: shared by the tensors that may share memory."""

    numbers: Any
    storage: object


class Tables:
    """What is known of tensors."""

    def __init__(self) -> None:
        self._known: MutableMapping[Tensor, _Entry] = WeakTensorKeyDictionary()

    def forget(self) -> None:
        """Know nothing."""
        self._known.clear()

    def numbers(self, tensor: Tensor) -> Any:
        """An array of int and SymInt, or None."""
        entry = self._known.get(tensor)
        return None if entry is None else entry.numbers

    def number(self, value: Any) -> Any:
        """The number in a tensor without dimensions; None where it is not known."""
        if not isinstance(value, Tensor) or value.ndim:
            return None
        numbers = self.numbers(value)
        return None if numbers is None else numbers[()]

    def taken_out(self, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """(what the call of a function of that name returns,) where that is a known number or a list of them, else ()."""
        if name not in TAKE_OUT or len(args) != 1 or (numbers := self.numbers(args[0])) is None:
            return ()
        return (TAKE_OUT[name](numbers),) if numbers.ndim == 0 or name == "tolist" else ()

    def with_numbers(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a function that takes sizes, with numbers for the known tensors without dimensions among these."""
        if not self._known or name not in TAKE_SIZES:
            return args, dict(kwargs)
        own = args[:1] if name not in FACTORIES else ()

        def leaf(value: Any) -> Any:
            number = self.number(value)
            return value if number is None else number

        rest, named = pytree.tree_map(leaf, (args[len(own) :], dict(kwargs)))
        return (*own, *rest), named

    def note(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        """Remember the numbers in what a call returned, if they are known."""
        if name == "_shape_as_tensor":
            name, args = "tensor", (list(args[0].shape),)
        in_place = name in IN_PLACE or (name.endswith("_") and not name.endswith("__"))
        rule = RULES.get(IN_PLACE.get(name, name.removesuffix("_") if in_place else name))
        results = list(result) if isinstance(result, list | tuple) else [result]
        whole = all(isinstance(tensor, Tensor) and tensor.dtype in (*WHOLE, torch.bool) for tensor in results)
        found = self._found(rule, args, kwargs) if rule is not None and whole else None
        storage = object()
        if in_place or name in VIEWS:
            entry = self._known.get(args[0]) if isinstance(args[0], Tensor) else None
            storage = storage if entry is None else entry.storage
        if in_place and isinstance(args[0], Tensor) and args[0].dtype in WHOLE:
            self._forget(storage if args[0] in self._known else None)
        if found is None:
            return
        for tensor, values in zip(results, found if isinstance(result, list | tuple) else [found], strict=True):
            array = np.asarray(values, dtype=object)
            if array.shape == tuple(tensor.shape):
                self._known[tensor] = _Entry(array, storage)

    def _forget(self, storage: object) -> None:
        """What is known of tensors in that storage; of all, where it is None: a tensor of which nothing is known may share any."""
        for tensor in [tensor for tensor, entry in self._known.items() if storage is None or entry.storage is storage]:
            del self._known[tensor]

    def _found(self, rule: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What a rule makes of the numbers, None where they are not known or not whole."""
        try:
            given = [self._argument(value) for value in args]
            return rule(*given, **{key: self._argument(value) for key, value in kwargs.items() if key not in ("dtype", "device")})
        except (_Unknown, TypeError, ValueError, IndexError):
            return None

    def _argument(self, value: Any) -> Any:
        """An argument with arrays for known tensors.

        Raises:
            _Unknown: it has a tensor that is not known, or a number that is not whole.
        """
        if isinstance(value, list | tuple):
            return [self._argument(item) for item in value]
        if isinstance(value, Tensor):
            if (numbers := self.numbers(value)) is None:
                raise _Unknown
            return numbers
        if isinstance(value, float):
            raise _Unknown
        return value


class _Unknown(Exception):
    """Some number is not known."""


def _array(values: Any) -> Any:
    return np.asarray(values, dtype=object)


def _indexed(numbers: Any, index: Any) -> Any:
    items = index if isinstance(index, list) else [index]
    if not all(item is None or item is Ellipsis or type(item) in (int, slice) for item in items):
        raise _Unknown
    return numbers[tuple(items)]


def _unbound(numbers: Any, dim: int = 0) -> Any:
    return list(np.moveaxis(numbers, dim, 0))


def _divided(first: Any, second: Any, rounding_mode: str | None = None) -> Any:
    if rounding_mode != "floor":
        raise _Unknown
    return first // second


def _reshaped(numbers: Any, *shape: Any) -> Any:
    sizes = shape[0] if isinstance(shape[0], list) else shape
    if not all(type(size) is int for size in sizes):
        raise _Unknown
    return numbers.reshape(tuple(sizes))


def _reduced(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda numbers, dim=None: _array(function(numbers, axis=tuple(dim) if isinstance(dim, list) else dim))


def _same(numbers: Any, *_: Any, **__: Any) -> Any:
    return numbers


def _joined(arrays: Any, dim: int = 0) -> Any:
    return np.concatenate(arrays, axis=dim)


RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("tensor", "as_tensor"), lambda data: _array(data)),
    "new_tensor": lambda _, data: _array(data),
    "new_zeros": lambda _, size: np.zeros(tuple(size) if isinstance(size, list) else size, dtype=int).astype(object),
    "__getitem__": _indexed,
    "unbind": _unbound,
    **dict.fromkeys(("cat", "concat"), _joined),
    "stack": lambda arrays, dim=0: np.stack(arrays, axis=dim),
    **dict.fromkeys(("reshape", "view"), _reshaped),
    "flatten": lambda numbers: numbers.reshape(-1),
    "flip": lambda numbers, *dims: np.flip(numbers, tuple(dims[0]) if isinstance(dims[0], list) else dims),
    "prod": _reduced(np.prod),
    "sum": _reduced(np.sum),
    "cumsum": lambda numbers, dim: np.cumsum(numbers, axis=dim),
    **dict.fromkeys(("add", "__add__", "__radd__"), lambda first, second: first + second),
    **dict.fromkeys(("sub", "__sub__"), lambda first, second: first - second),
    **dict.fromkeys(("rsub", "__rsub__"), lambda first, second: second - first),
    **dict.fromkeys(("mul", "__mul__", "__rmul__"), lambda first, second: first * second),
    **dict.fromkeys(("floor_divide", "__floordiv__"), lambda first, second: first // second),
    "div": _divided,
    **dict.fromkeys(("eq", "__eq__"), lambda first, second: np.equal(first, second, dtype=object)),
    **dict.fromkeys(("to", "long", "int", "cpu", "clone", "contiguous", "detach"), _same),
}
"""Names of torch's functions -> the same on arrays. Numbers that are not whole have none."""

VIEWS = {"__getitem__", "unbind", "reshape", "view", "flatten", "to", "long", "int", "cpu", "contiguous", "detach", "as_tensor"}
"""Names of functions whose result may share its first argument's memory."""

IN_PLACE = {"__iadd__": "add", "__isub__": "sub", "__imul__": "mul", "__ifloordiv__": "floor_divide", "__setitem__": ""}
"""Names of functions that change their first argument, beside those that end in "_" -> those whose rules they follow."""

TAKE_OUT: dict[str, Callable[[Any], Any]] = {
    "item": lambda numbers: numbers[()],
    "tolist": lambda numbers: numbers.tolist(),
    "__bool__": lambda numbers: bool(numbers[()]),
    "__int__": lambda numbers: int(numbers[()]),
    "__index__": lambda numbers: int(numbers[()]),
}
"""Names of functions of one tensor that return numbers. `int(...)` of a symbol is a number of the example, which an export refuses."""

FACTORIES = {"linspace", "arange", "zeros", "ones", "full", "empty"}

TAKE_SIZES = {
    *FACTORIES,
    *("view", "reshape", "unflatten", "expand", "repeat", "split", "split_with_sizes", "narrow", "interpolate", "pad"),
    *("new_zeros", "new_ones", "new_full", "new_empty"),
}
"""Names of functions that take sizes: anywhere if they make a tensor, else behind their first argument."""
