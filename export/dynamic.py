"""Dynamic axes: from what the user writes to what torch.export takes, and second values to prove them with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import Dim

from deploydcn.errors import InvalidArgument

_AUTO = type(Dim.AUTO)


@dataclass(frozen=True)
class DynamicAxis:
    """One axis of one input tensor that may change. name: shared by axes that change together; empty when the user gave none.

    minimum, maximum: the range a torch.export.Dim declares, else None.
    """

    tensor: str
    axis: int
    name: str
    minimum: int | None = None
    maximum: int | None = None

    def __str__(self) -> str:
        return f"{self.tensor}[{self.axis}]" + (f" ({self.name})" if self.name else "")


@dataclass(frozen=True)
class DynamicShapes:
    """for_torch: the dict torch.export takes, by argument name. axes: the same, flat, by input tensor name."""

    for_torch: dict[str, Any] | None
    axes: tuple[DynamicAxis, ...]


def parse_dynamic_shapes(spec: Any, arguments: Mapping[str, Any]) -> DynamicShapes:
    """Read the user's dynamic_shapes.

    Args:
        spec: None; a sequence parallel to the arguments, or a dict by argument name. Per tensor: {axis: name or Dim}, a
            sequence with one entry per axis, or None. A name makes the axis dynamic under that name in the file.
        arguments: the example's arguments by name, in forward's order.

    Raises:
        InvalidArgument: the structure does not follow the arguments', or an axis does not exist.
    """
    if spec is None:
        return DynamicShapes(None, ())
    if isinstance(spec, Mapping):
        unknown = [name for name in spec if name not in arguments]
        if unknown:
            raise InvalidArgument(f"dynamic_shapes names {', '.join(map(repr, unknown))}; the example has arguments {', '.join(arguments)}")
        by_name = {name: spec.get(name) for name in arguments}
    else:
        if len(spec) != len(arguments):
            raise InvalidArgument(
                f"dynamic_shapes has {len(spec)} entries; wanted {len(arguments)}, one per argument: {', '.join(arguments)}"
            )
        by_name = dict(zip(arguments, spec, strict=True))
    axes: list[DynamicAxis] = []
    for_torch = {name: _walk(name, value, by_name[name], axes) for name, value in arguments.items()}
    return DynamicShapes(for_torch, tuple(axes))


def _walk(path: str, value: Any, spec: Any, axes: list[DynamicAxis]) -> Any:
    if isinstance(value, torch.Tensor):
        return _tensor_axes(path, value, spec, axes)
    if isinstance(value, Mapping):
        keys = spec or {}
        if not isinstance(keys, Mapping) or set(keys) - set(value):
            raise InvalidArgument(f"dynamic_shapes of {path} is {spec!r}; wanted a dict with keys of {', '.join(map(str, value))}")
        return {key: _walk(f"{path}_{key}", item, keys.get(key), axes) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [None] * len(value) if spec is None else list(spec)
        if len(items) != len(value):
            raise InvalidArgument(f"dynamic_shapes of {path} has {len(items)} entries; wanted {len(value)}")
        return type(value)(_walk(f"{path}_{i}", item, items[i], axes) for i, item in enumerate(value))
    return None


def _tensor_axes(path: str, tensor: torch.Tensor, spec: Any, axes: list[DynamicAxis]) -> dict[int, Any] | None:
    if spec is None:
        return None
    entries = dict(spec) if isinstance(spec, Mapping) else {axis: entry for axis, entry in enumerate(spec) if entry is not None}
    result = {}
    for axis, entry in entries.items():
        if not isinstance(axis, int) or not -tensor.ndim <= axis < tensor.ndim:
            raise InvalidArgument(f"dynamic_shapes of {path} names axis {axis!r}; the example has shape {list(tensor.shape)}")
        axis %= tensor.ndim
        if isinstance(entry, str):
            if not entry.isidentifier():
                raise InvalidArgument(f"dynamic axis {path}[{axis}] is named {entry!r}; wanted a name such as 'n' or 'height'")
            result[axis] = Dim.DYNAMIC
            axes.append(DynamicAxis(path, axis, entry))
        elif entry is None or entry is Dim.STATIC:
            continue
        elif isinstance(entry, _AUTO):
            result[axis] = entry
            axes.append(DynamicAxis(path, axis, ""))
        elif isinstance(entry, int):
            result[axis] = entry
        else:
            result[axis] = entry
            name = getattr(entry, "__name__", "")
            axes.append(
                DynamicAxis(path, axis, name if name.isidentifier() else "", getattr(entry, "min", None), getattr(entry, "max", None))
            )
    return result


def grown(tensors: Mapping[str, torch.Tensor], axes: Sequence[DynamicAxis]) -> dict[str, torch.Tensor]:
    """Example tensors with every dynamic axis at least 2 long: torch.export takes sizes 0 and 1 for constants."""
    result = dict(tensors)
    small = {_group(axis) for axis in axes if tensors[axis.tensor].shape[axis.axis] < 2}
    for axis in axes:
        if _group(axis) in small:
            if result[axis.tensor].shape[axis.axis] == 0:
                raise InvalidArgument(f"dynamic axis {axis} is 0 long in the example; wanted at least 1")
            result[axis.tensor] = result[axis.tensor].repeat_interleave(2, dim=axis.axis)
    return result


def second_sizes(tensors: Mapping[str, torch.Tensor], axes: Sequence[DynamicAxis]) -> Iterator[dict[DynamicAxis, int]]:
    """Proposals for other sizes of all `axes`, nearest first; those that share a name get one size.

    Which sizes a model accepts only the model knows (a detector may want multiples of 32): the caller tries them.
    """
    groups = list(dict.fromkeys(_group(axis) for axis in axes))
    for step in (32, 64, 1, 2, 4, 8, 16, 128):
        sizes = {}
        for axis in axes:
            size = tensors[axis.tensor].shape[axis.axis]
            # Distinct steps for distinct names, so that height and width differ; batches grow by one.
            wanted = size + (
                1 + groups.index(_group(axis)) % 2 if axis.axis == 0 or size < 8 else step * (1 + groups.index(_group(axis)) % 3)
            )
            if axis.maximum is not None and wanted > int(axis.maximum):
                wanted = size - step if size - step >= max(2, int(axis.minimum or 2)) else size
            sizes[axis] = wanted
        if all(size != tensors[axis.tensor].shape[axis.axis] for axis, size in sizes.items()):
            yield sizes


def resized(tensors: Mapping[str, torch.Tensor], sizes: Mapping[DynamicAxis, int], *, seed: int = 0) -> dict[str, torch.Tensor]:
    """The example's tensors at other sizes: their own values, repeated and cut, so that they stay plausible inputs.

    Floating-point tensors get a tenth of their spread as noise: equal images in a batch would hide that they are mixed up.
    """
    generator = torch.Generator().manual_seed(seed)
    result = dict(tensors)
    for axis, size in sizes.items():
        old = result[axis.tensor]
        index = torch.arange(size, device=old.device) % old.shape[axis.axis]
        result[axis.tensor] = old.index_select(axis.axis, index)
    for name in {axis.tensor for axis in sizes}:
        tensor = result[name]
        if tensor.is_floating_point() and tensor.numel() > 1:
            noise = torch.randn(tensor.shape, generator=generator).to(tensor)
            result[name] = tensor + 0.1 * tensor.float().std().to(tensor) * noise
    return result


def _group(axis: DynamicAxis) -> str:
    return axis.name or str(axis)
