"""Optimization profiles: the ranges of shapes an engine is built for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deploydcn.engine.report import Range
from deploydcn.errors import InvalidArgument, InvalidModel
from deploydcn.runners import TensorInfo

Profile = Mapping[str, Range]

AUTOMATIC_BATCH = (1, 4, 8)
"""Smallest, optimal and largest batch of the profile that is made when only the batch is dynamic."""

WORDS = ("smallest", "optimal", "largest")


def resolve_profiles(inputs: Sequence[TensorInfo], given: Any) -> tuple[tuple[Profile, ...], list[str]]:
    """Complete, checked profiles of a model's inputs, and notes. Without dynamic inputs there are none.

    Every profile names every dynamic input; inputs of fixed shape may be named with that shape. When none is given and
    only first axes are dynamic, one is made with batches AUTOMATIC_BATCH.

    Raises:
        InvalidArgument: an unknown or missing input, a wrong rank, min > opt > max, a fixed size contradicted.
        InvalidModel: an input without a known rank.
    """
    for info in inputs:
        if info.shape is None:
            raise InvalidModel(f"input {info.name!r} has no known rank; wanted a shape, dynamic sizes included; export the model with one")
    dynamic = [info for info in inputs if is_dynamic(info)]
    if given is None or (isinstance(given, Sequence) and not given):
        if not dynamic:
            return (), []
        if all(dynamic_axes(info) == [0] for info in dynamic):
            sizes = "x".join(map(str, AUTOMATIC_BATCH)).replace("x", ", ")
            return (_automatic(dynamic),), [
                f"only the batch is dynamic: built for {sizes} (smallest, optimal, largest); a profile changes it"
            ]
        raise InvalidArgument(_missing(dynamic[0], inputs))
    if isinstance(given, Mapping | str) or not isinstance(given, Sequence):
        raise InvalidArgument(f"profiles is {given!r}; wanted a list of {{input name: (min shape, opt shape, max shape)}}")
    profiles = [_checked(inputs, profile, index) for index, profile in enumerate(given)]
    return tuple(profile for profile in profiles if profile), []


def is_dynamic(info: TensorInfo) -> bool:
    """Whether a size of a tensor is not fixed."""
    return bool(dynamic_axes(info))


def dynamic_axes(info: TensorInfo) -> list[int]:
    """The axes whose size is not fixed."""
    return [axis for axis, size in enumerate(info.shape or ()) if not isinstance(size, int)]


def example_option(inputs: Sequence[TensorInfo]) -> str:
    """A --profile option that fits the dynamic inputs."""
    parts = []
    for info in inputs:
        if is_dynamic(info):
            shapes = ["x".join(str(_example_size(info, axis, step)) for axis in range(len(info.shape or ()))) for step in range(3)]
            parts.append(f"{info.name}:{','.join(shapes)}")
    return f'--profile "{";".join(parts)}"'


def _example_size(info: TensorInfo, axis: int, step: int) -> int:
    size = (info.shape or ())[axis]
    if isinstance(size, int):
        return size
    return AUTOMATIC_BATCH[step] if axis == 0 else (320, 640, 1280)[step]


def _automatic(dynamic: Sequence[TensorInfo]) -> Profile:
    rest = {info.name: [size for size in (info.shape or ())[1:] if isinstance(size, int)] for info in dynamic}
    return {name: _span([(batch, *sizes) for batch in AUTOMATIC_BATCH]) for name, sizes in rest.items()}


def _missing(info: TensorInfo, inputs: Sequence[TensorInfo]) -> str:
    return (
        f"input {info} has dynamic sizes and no profile; an engine is built for a range of shapes: give the smallest, the optimal and "
        f"the largest, as in {example_option(inputs)}"
    )


def _checked(inputs: Sequence[TensorInfo], profile: Any, index: int) -> Profile:
    """One profile, for the dynamic inputs only."""
    where = f"profile {index + 1}"
    if not isinstance(profile, Mapping):
        raise InvalidArgument(f"{where} is {profile!r}; wanted {{input name: (min shape, opt shape, max shape)}}")
    known = {info.name: info for info in inputs}
    for name in profile:
        if name not in known:
            raise InvalidArgument(f"{where} names {name!r}; the model takes {', '.join(map(str, inputs)) or 'no inputs'}")
    spans = {name: _checked_span(where, known[name], shapes) for name, shapes in profile.items()}
    for info in inputs:
        if is_dynamic(info) and info.name not in spans:
            raise InvalidArgument(f"{where} leaves out {_missing(info, inputs).replace(' and no profile', '')}")
    _check_shared_axes(where, known, spans)
    return {name: span for name, span in spans.items() if is_dynamic(known[name])}


def _checked_span(where: str, info: TensorInfo, shapes: Any) -> Range:
    about = f"{where}, input {info.name!r}"
    if isinstance(shapes, str) or not isinstance(shapes, Sequence) or len(shapes) != 3 or not all(map(_is_shape, shapes)):
        raise InvalidArgument(f"{about}: got {shapes!r}; wanted three shapes: (min, opt, max)")
    span = _span(shapes)
    wanted = info.shape or ()
    for word, shape in zip(WORDS, span, strict=True):
        if len(shape) != len(wanted):
            raise InvalidArgument(f"{about}: the {word} shape {_text(shape)} has {len(shape)} dimensions; wanted {len(wanted)}: {info}")
        for axis, (size, fixed) in enumerate(zip(shape, wanted, strict=True)):
            if isinstance(fixed, int) and size != fixed:
                raise InvalidArgument(
                    f"{about}: dimension {axis} of the {word} shape is {size}; the model has {fixed} fixed there: {info}; "
                    "write that, or export the model with this axis dynamic"
                )
            if not 1 <= size < 2**31:
                raise InvalidArgument(f"{about}: dimension {axis} of the {word} shape is {size}; wanted 1 to 2147483647")
    for axis, sizes in enumerate(zip(*span, strict=True)):
        if not sizes[0] <= sizes[1] <= sizes[2]:
            raise InvalidArgument(
                f"{about}: dimension {axis} is {sizes[0]}, {sizes[1]}, {sizes[2]}; wanted smallest <= optimal <= largest; "
                "order the three shapes so"
            )
    return span


def _check_shared_axes(where: str, known: Mapping[str, TensorInfo], spans: Mapping[str, Range]) -> None:
    """Axes of one name have one size: a profile in which they differ describes no input the model takes."""
    seen: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, axis, symbol in _named_axes(known, spans):
        sizes = tuple(shape[axis] for shape in spans[name])
        first, wanted = seen.setdefault(symbol, (f"{name}[{axis}]", sizes))
        if sizes != wanted:
            raise InvalidArgument(
                f"{where}: {first} and {name}[{axis}] are both {symbol!r} in the model and must be equal; "
                f"got {', '.join(map(str, wanted))} and {', '.join(map(str, sizes))}"
            )


def _named_axes(known: Mapping[str, TensorInfo], spans: Mapping[str, Range]) -> Iterator[tuple[str, int, str]]:
    for name in spans:
        for axis, size in enumerate(known[name].shape or ()):
            if isinstance(size, str) and size.isidentifier():
                yield name, axis, size


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(isinstance(size, int) and not isinstance(size, bool) for size in value)
    )


def _span(shapes: Sequence[Sequence[int]]) -> Range:
    smallest, optimal, largest = (tuple(shape) for shape in shapes)
    return smallest, optimal, largest


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "()"
