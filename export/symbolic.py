"""Sizes that stay dynamic: functions whose tracing would write the example's height and width into the file.

torch.export follows a size as a symbol until something wants a plain number: torch.linspace(0, 1, width), torch.tensor([height, width]),
int(height / 2), len(batch), max(height, width). While a model is traced, these are computed by functions that take symbols. What is put
into a tensor can be taken out again: tables.py.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import SymBool, SymFloat, SymInt, Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from deploydcn.export.tables import Tables

Symbol = (SymInt, SymFloat, SymBool)


@contextlib.contextmanager
def symbolic_sizes(model: nn.Module) -> Iterator[None]:
    """A context for tracing `model`. What is called without symbols computes as ever."""
    missing = object()
    modules = _modules_of(model)
    changed = [(module, name, vars(module).get(name, missing)) for module in modules for name in BUILTINS]
    try:
        for module, name, before in changed:
            if before is missing:  # else the model's own
                setattr(module, name, BUILTINS[name])
        with _TorchFunctions():
            yield
    finally:
        _tables.forget()
        for module, name, before in changed:
            if before is missing:
                delattr(module, name)


# ---------------------------------------------------------------------------------------------------- torch's functions
_tables = Tables()


class _TorchFunctions(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        name = getattr(func, "__name__", "")
        if taken := _tables.taken_out(name, args):
            return taken[0]
        args, kwargs = _tables.with_numbers(name, args, kwargs or {})
        replacement = REPLACEMENTS.get(func)
        if replacement is not None and any(map(_is_symbolic, pytree.tree_leaves((args, kwargs)))):
            result = replacement(*args, **kwargs)
        else:
            result = func(*args, **kwargs)
        _tables.note(name, args, kwargs, result)
        return result


def _is_symbolic(leaf: Any) -> bool:
    """A symbol, or a tensor with one among its sizes."""
    return isinstance(leaf, Symbol) or (isinstance(leaf, Tensor) and any(isinstance(size, SymInt) for size in leaf.shape))


def _shape_as_tensor(x: Tensor) -> Tensor:
    return _stacked(list(x.shape), torch.int64, None)


def _tensor(data: Any, dtype: torch.dtype | None = None, device: Any = None, **_: Any) -> Tensor:
    """torch.tensor, torch.as_tensor: nested sequences of numbers, symbols and scalar tensors."""
    leaves = pytree.tree_leaves(data)
    if dtype is None:
        dtype = _common_type(leaves)
    return _stacked(data, dtype, device)


def _common_type(leaves: list[Any]) -> torch.dtype:
    dtypes = [leaf.dtype if isinstance(leaf, Tensor) else torch.tensor(_example(leaf)).dtype for leaf in leaves]
    result = dtypes[0]
    for dtype in dtypes[1:]:
        result = torch.promote_types(result, dtype)
    return result


def _example(leaf: Any) -> Any:
    """A plain value of a leaf's kind."""
    for symbol, kind in ((SymInt, int), (SymFloat, float), (SymBool, bool)):
        if isinstance(leaf, symbol):
            return kind()
    return leaf


def _stacked(data: Any, dtype: torch.dtype, device: Any) -> Tensor:
    if isinstance(data, list | tuple):
        return torch.stack([_stacked(item, dtype, device) for item in data])
    if isinstance(data, Tensor):
        return data.to(device=device, dtype=dtype)
    return torch.scalar_tensor(data, dtype=dtype, device=device)


def _new_tensor(self: Tensor, data: Any, dtype: torch.dtype | None = None, device: Any = None, **_: Any) -> Tensor:
    return _stacked(data, dtype or self.dtype, device or self.device)


def _linspace(start: Any, end: Any, steps: Any = None, *, dtype: torch.dtype | None = None, device: Any = None, **_: Any) -> Tensor:
    """torch.linspace, as its kernel computes: from the start in the first half, from the end in the second."""
    dtype = dtype or torch.get_default_dtype()
    index = torch.arange(steps, dtype=dtype, device=device)
    step = (end - start) / torch.sym_max(steps - 1, 1)
    halfway = torch.sym_max(steps // 2, 1)  # a single step is the start
    return torch.where(index < halfway, start + step * index, end - step * (steps - 1 - index))


REPLACEMENTS: dict[Any, Callable[..., Tensor]] = {
    torch.tensor: _tensor,
    torch.as_tensor: _tensor,
    torch.Tensor.new_tensor: _new_tensor,
    torch.linspace: _linspace,
    torch._shape_as_tensor: _shape_as_tensor,
}


# --------------------------------------------------------------------------------------------------- Python's functions
class _Kind(type):
    """Of the stand-ins for int and float: isinstance, == and hash as theirs; symbols are instances too."""

    plain: type
    symbol: type

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, (cls.plain, cls.symbol))

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, cls.plain)

    def __eq__(cls, other: object) -> bool:
        return other is cls.plain or other is cls

    def __hash__(cls) -> int:
        return hash(cls.plain)


class _Int(int, metaclass=_Kind):
    plain, symbol = int, SymInt

    def __new__(cls, *args: Any) -> Any:
        if len(args) == 1 and (number := _tables.number(args[0])) is not None:
            return number
        return torch.sym_int(args[0]) if len(args) == 1 and isinstance(args[0], Symbol) else int(*args)


class _Float(float, metaclass=_Kind):
    plain, symbol = float, SymFloat

    def __new__(cls, *args: Any) -> Any:
        return torch.sym_float(args[0]) if len(args) == 1 and isinstance(args[0], Symbol) else float(*args)


def _len(items: Any) -> Any:
    return items.shape[0] if isinstance(items, Tensor) and items.ndim else len(items)


def _extreme(plain: Callable[..., Any], symbolic: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def extreme(*args: Any, **kwargs: Any) -> Any:
        items = args if len(args) > 1 else args[0] if args and isinstance(args[0], list | tuple) else ()
        if not kwargs and any(isinstance(item, Symbol) for item in items):
            return functools.reduce(symbolic, items)
        return plain(*args, **kwargs)

    return extreme


BUILTINS: dict[str, Any] = {
    "int": _Int,
    "float": _Float,
    "len": _len,
    "max": _extreme(builtins.max, torch.sym_max),
    "min": _extreme(builtins.min, torch.sym_min),
}

_NOT_MODELS = {"torch", "numpy", "deploydcn", *sys.stdlib_module_names} - {"__main__"}


def _modules_of(model: nn.Module) -> list[ModuleType]:
    """The Python modules with the code of `model`: those of its parts' classes, and those of the functions that these import."""
    classes = _loaded({base.__module__ for part in model.modules() for base in type(part).__mro__})
    helpers = {value.__module__ for module in classes for value in vars(module).values() if isinstance(value, FunctionType)}
    return list({module.__name__: module for module in (*classes, *_loaded(helpers))}.values())


def _loaded(names: set[str]) -> list[ModuleType]:
    return [sys.modules[name] for name in sorted(names) if name in sys.modules and name.partition(".")[0] not in _NOT_MODELS]
