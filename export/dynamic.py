"""Dynamic axes: from what the user writes to what torch.export takes, and second values to prove them with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import Dim

from deploydcn.errors import InvalidArgument

_AUTO = type(Dim.AUTO)


@dataclass(frozen=True)
class DynamicAxis:
    """One axis of one input tensor that may change.

    name: shared by axes that change together; empty when the user gave none. minimum, maximum: the range a
    torch.export.Dim declares, else None. slope, intercept: the size is slope * (size of the name) + intercept, for
    derived dimensions such as 2*h.
    """

    tensor: str
    axis: int
    name: str
    minimum: int | None = None
    maximum: int | None = None
    slope: int = 1
    intercept: int = 0

    @property
    def group(self) -> str:
        """What changes together with it."""
        return self.name or f"{self.tensor}[{self.axis}]"

    def root_size(self, tensors: Mapping[str, torch.Tensor]) -> int:
        """The size of the name, in an example."""
        return (tensors[self.tensor].shape[self.axis] - self.intercept) // self.slope

    def __str__(self) -> str:
        return f"{self.tensor}[{self.axis}]" + (f" ({self.name})" if self.name else "")


@dataclass(frozen=True)
class DynamicShapes:
    """for_torch: the dict torch.export takes, by argument name. axes: the same, flat, by input tensor name."""

    for_torch: dict[str, Any] | None
    axes: tuple[DynamicAxis, ...]


def parse_dynamic_shapes(spec: Any, arguments: Mapping[str, Any], names: Sequence[str]) -> DynamicShapes:
    """Read the user's dynamic_shapes.

    Args:
        spec: None; a sequence parallel to the arguments, or a dict by argument name. Per tensor: {axis: name or Dim}, a
            sequence with one entry per axis, or None. A name makes the axis dynamic under that name in the file.
        arguments: the example's arguments by name, in forward's order.
        names: the input names of all tensors in them, in the order they are met.

    Raises:
        InvalidArgument: the structure does not follow the arguments', an axis does not exist, or axes of one name differ.
    """
    if spec is None:
        return DynamicShapes(None, ())
    if isinstance(spec, Mapping):
        unknown = [name for name in spec if name not in arguments]
        if unknown:
            raise InvalidArgument(f"dynamic_shapes names {', '.join(map(repr, unknown))}; the example has arguments {', '.join(arguments)}")
        by_name = {name: spec.get(name) for name in arguments}
    elif isinstance(spec, list | tuple):
        if len(spec) != len(arguments):
            raise InvalidArgument(
                f"dynamic_shapes has {len(spec)} entries; wanted {len(arguments)}, one per argument: {', '.join(arguments)}"
            )
        by_name = dict(zip(arguments, spec, strict=True))
    else:
        raise InvalidArgument(f"dynamic_shapes is {spec!r}; wanted a tuple or a dict, as in ({{0: 'n', 2: 'h'}},)")
    axes: list[DynamicAxis] = []
    tensors: dict[str, torch.Tensor] = {}
    remaining = iter(names)
    for_torch = {name: _walk(name, value, by_name[name], axes, tensors, remaining) for name, value in arguments.items()}
    sizes: dict[str, int] = {}
    for axis in axes:
        size = axis.root_size(tensors)
        if axis.name and sizes.setdefault(axis.name, size) != size:
            raise InvalidArgument(
                f"dynamic axes named {axis.name!r} have sizes {sizes[axis.name]} and {size} in the example; wanted one size, or two names"
            )
    return DynamicShapes(for_torch, tuple(axes))


def _walk(path: str, value: Any, spec: Any, axes: list[DynamicAxis], tensors: dict[str, torch.Tensor], names: Iterator[str]) -> Any:
    """The spec in the structure of `value`, as torch.export takes it."""
    if isinstance(value, torch.Tensor):
        name = next(names)
        tensors[name] = value
        return _tensor_axes(name, value, spec, axes)
    if isinstance(value, Mapping):
        keys = {} if spec is None else spec
        if not isinstance(keys, Mapping) or set(keys) - set(value):
            raise InvalidArgument(f"dynamic_shapes of {path} is {spec!r}; wanted a dict with keys of {', '.join(map(str, value))}")
        return {key: _walk(f"{path}_{key}", item, keys.get(key), axes, tensors, names) for key, item in value.items()}
    if isinstance(value, list | tuple):
        if spec is not None and (not isinstance(spec, list | tuple) or len(spec) != len(value)):
            raise InvalidArgument(f"dynamic_shapes of {path} is {spec!r}; wanted {len(value)} entries")
        items = [None] * len(value) if spec is None else list(spec)
        walked = [_walk(f"{path}_{i}", item, items[i], axes, tensors, names) for i, item in enumerate(value)]
        return value._make(walked) if hasattr(value, "_make") else type(value)(walked)
    if spec is not None:
        raise InvalidArgument(f"dynamic_shapes of {path} is {spec!r}; {path} is a {type(value).__name__}, which has no sizes to change")
    return None


def _tensor_axes(name: str, tensor: torch.Tensor, spec: Any, axes: list[DynamicAxis]) -> dict[int, Any] | None:
    if spec is None:
        return None
    if not isinstance(spec, Mapping | list | tuple):
        raise InvalidArgument(f"dynamic_shapes of {name} is {spec!r}; wanted {{axis: name}}, as in {{0: 'n', 2: 'h'}}")
    entries = dict(spec) if isinstance(spec, Mapping) else {axis: entry for axis, entry in enumerate(spec) if entry is not None}
    result = {}
    for axis, entry in entries.items():
        if not isinstance(axis, int) or not -tensor.ndim <= axis < tensor.ndim:
            raise InvalidArgument(f"dynamic_shapes of {name} names axis {axis!r}; the example has shape {list(tensor.shape)}")
        parsed = _axis(name, axis % tensor.ndim, entry)
        if parsed is not None:
            axes.append(parsed)
            result[parsed.axis] = Dim.DYNAMIC if isinstance(entry, str) else entry
    return result


def _axis(name: str, axis: int, entry: Any) -> DynamicAxis | None:
    """One entry of a tensor's spec; None for a static axis."""
    if entry is None or entry is Dim.STATIC:
        return None
    if isinstance(entry, str):
        if not entry.isidentifier():
            raise InvalidArgument(f"dynamic axis {name}[{axis}] is named {entry!r}; wanted a name such as 'n' or 'height'")
        return DynamicAxis(name, axis, entry)
    if isinstance(entry, _AUTO):
        return DynamicAxis(name, axis, "")
    root = getattr(entry, "root", entry)
    if not isinstance(getattr(root, "__name__", None), str):
        raise InvalidArgument(f"dynamic axis {name}[{axis}] is {entry!r}; wanted a name, a torch.export.Dim, or None")
    intercept = entry.fn(0) if root is not entry else 0
    slope = entry.fn(1) - intercept if root is not entry else 1
    return DynamicAxis(name, axis, root.__name__, getattr(root, "min", None), getattr(root, "max", None), slope, intercept)


GROWN = 11
"""Sizes of 1 become this: hardly ever a size of something else, as 2 images of 4 heads are 8 where a head has 8 channels. Where sizes are
equal by chance, torch may take them for the same."""


def grown(tensors: Mapping[str, torch.Tensor], axes: Sequence[DynamicAxis]) -> dict[str, torch.Tensor]:
    """Example tensors with every dynamic axis longer than 1: torch.export takes sizes 0 and 1 for constants."""
    result = dict(tensors)
    small = {axis.group for axis in axes if tensors[axis.tensor].shape[axis.axis] < 2}
    for axis in axes:
        if axis.group in small:
            if result[axis.tensor].shape[axis.axis] == 0:
                raise InvalidArgument(f"dynamic axis {axis} is 0 long in the example; wanted at least 1")
            times = min([GROWN, *(int(other.maximum) for other in axes if other.group == axis.group and other.maximum is not None)])
            result[axis.tensor] = result[axis.tensor].repeat_interleave(times, dim=axis.axis)
    return result


def _grow(step: int) -> Callable[[int, int], int]:
    return lambda size, i: size + step * (1 + i % 3)


PROBES: Mapping[str, Sequence[Callable[[int, int], int]]] = {
    # How a size changes, and by which step for the i-th name: distinct, so that height and width differ.
    "larger": tuple(map(_grow, (32, 64, 1, 2, 4, 8, 16, 128))),
    "odd": (lambda size, i: size + 1 + 2 * (i % 2), lambda size, i: size - 1 - 2 * (i % 2)),
    "smaller": (lambda size, i: size // 2 + 1, lambda size, i: size // 2, lambda size, i: size - 32 * (1 + i % 2)),
    "double": (lambda size, i: 2 * size + i, lambda size, i: 2 * size),
}
"""Kinds of other sizes a file is tried at. Only "larger" must find a size that PyTorch takes; the others catch graphs that
hold near the example only, because a branch or a rounding of the model was decided there."""

LARGEST_PROBE = 16_000_000
"""Elements of an input beyond which "double" is not tried."""


def other_sizes(tensors: Mapping[str, torch.Tensor], axes: Sequence[DynamicAxis], kind: str) -> Iterator[dict[DynamicAxis, int]]:
    """Proposals for other sizes of all `axes`; those that share a name change together.

    Which sizes a model accepts only the model knows (a detector may want multiples of 32): the caller tries them.
    """
    groups = list(dict.fromkeys(axis.group for axis in axes))
    for change in PROBES[kind]:
        sizes = {}
        for axis in axes:
            root = axis.root_size(tensors)
            batch = axis.axis == 0 or root < 8
            wanted = _small_change(root, kind) if batch else change(root, groups.index(axis.group))
            wanted = max(wanted, int(axis.minimum or 1), 1)
            sizes[axis] = axis.slope * (wanted if axis.maximum is None else min(wanted, int(axis.maximum))) + axis.intercept
        changed = [size != tensors[axis.tensor].shape[axis.axis] for axis, size in sizes.items()]
        if all(changed) or (kind != "larger" and any(changed)):
            yield sizes


def _small_change(size: int, kind: str) -> int:
    """Batches and other short axes."""
    return max(1, size // 2) if kind == "smaller" else size + {"larger": 1, "odd": 2, "double": 3}[kind]


def resized(tensors: Mapping[str, torch.Tensor], sizes: Mapping[DynamicAxis, int], *, seed: int = 0) -> dict[str, torch.Tensor]:
    """The example's tensors at other sizes: their own values, repeated and cut, so that they stay plausible inputs.

    Floating-point tensors get a tenth of their spread as noise: equal images in a batch would hide that they are mixed up.
    Columns of whole numbers in a table stay: they name something, as the first of a list of boxes does an image.
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
            if tensor.ndim == 2:
                noise = noise * (tensor != tensor.round()).any(0)
            result[name] = tensor + 0.1 * tensor.float().std().to(tensor) * noise
    return result
