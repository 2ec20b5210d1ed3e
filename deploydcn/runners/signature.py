"""Names for the tensors that go into and come out of a torch module, however they are nested."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from deploydcn.errors import InvalidArgument


@dataclass(frozen=True)
class CallSignature:
    """How a flat set of named tensors maps to a module's call.

    names: of the tensor arguments, in the order torch.export flattens them: `x`, or `batch_image` for batch["image"].
    """

    names: tuple[str, ...]
    leaves: tuple[Any, ...]  # all leaves of (args, kwargs); tensors are replaced on a call
    tensor_positions: tuple[int, ...]
    structure: pytree.TreeSpec

    @classmethod
    def of(cls, model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> CallSignature:
        """Read the signature off an example call."""
        ordered = in_signature_order(model, kwargs)
        paths, structure = pytree.tree_flatten_with_path((args, ordered))
        parameters = positional_names(model, len(args))
        positions = tuple(index for index, (_, leaf) in enumerate(paths) if isinstance(leaf, torch.Tensor))
        names = _unique([_input_name(paths[index][0], parameters) for index in positions])
        return cls(tuple(names), tuple(leaf for _, leaf in paths), positions, structure)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The example's tensors by name."""
        return {name: self.leaves[index] for name, index in zip(self.names, self.tensor_positions, strict=True)}

    def call_arguments(self, tensors: Mapping[str, torch.Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """(args, kwargs) of the example call with other tensors."""
        leaves = list(self.leaves)
        for name, index in zip(self.names, self.tensor_positions, strict=True):
            leaves[index] = tensors[name]
        args, kwargs = pytree.tree_unflatten(leaves, self.structure)
        return args, kwargs


def name_outputs(result: Any) -> dict[str, torch.Tensor]:
    """A module's result as named tensors: "output" for one tensor, "output_0" ... for a sequence, keys for a dict.

    Raises:
        InvalidArgument: there is no tensor in it.
    """
    paths, _ = pytree.tree_flatten_with_path(result)
    tensors = [(path, leaf) for path, leaf in paths if isinstance(leaf, torch.Tensor)]
    if not tensors:
        raise InvalidArgument(
            f"the model returned {type(result).__name__} without a tensor in it; wanted tensors, nested in tuples, lists, dicts, "
            "or dataclasses registered with torch.export.register_dataclass"
        )
    if len(tensors) == 1 and not any(isinstance(key, pytree.MappingKey | pytree.GetAttrKey) for key in tensors[0][0]):
        return {"output": tensors[0][1]}
    names = _unique([_output_name(path) for path, _ in tensors])
    return dict(zip(names, (leaf for _, leaf in tensors), strict=True))


def positional_names(model: torch.nn.Module, count: int) -> list[str]:
    """Names of the first `count` arguments of forward; *args become args_0, args_1 ..."""
    names: list[str] = []
    for parameter in _parameters(model):
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}_{index}" for index in range(count - len(names))]
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    if len(names) < count:
        raise InvalidArgument(f"{type(model).__name__}.forward takes {len(names)} arguments; got {count}")
    return names[:count]


def in_signature_order(model: torch.nn.Module, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments in the order of forward's parameters, which torch.export flattens them in."""
    order = [parameter.name for parameter in _parameters(model)]
    return dict(sorted(kwargs.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def _parameters(model: torch.nn.Module) -> list[inspect.Parameter]:
    """Of forward, without self."""
    try:
        return list(inspect.signature(model.forward).parameters.values())
    except ValueError:  # what torch.jit.trace made has a schema only
        schema = getattr(model.forward, "schema")  # noqa: B009
        return [inspect.Parameter(argument.name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for argument in schema.arguments[1:]]


def _input_name(path: tuple[Any, ...], parameters: list[str]) -> str:
    which, first, *rest = path
    in_args = which.idx == 0
    head = parameters[first.idx] if in_args else _key(first)
    return "_".join([head, *map(_key, rest)])


def _output_name(path: tuple[Any, ...]) -> str:
    name = "_".join(map(_key, path))
    return f"output_{name}" if name[:1].isdigit() else name


def _key(key: Any) -> str:
    if isinstance(key, pytree.SequenceKey):
        return str(key.idx)
    if isinstance(key, pytree.MappingKey):
        return str(key.key)
    return str(getattr(key, "name", key))


def _unique(names: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return result
