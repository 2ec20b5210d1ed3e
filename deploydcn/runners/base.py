"""What every backend offers, and the input checks they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import getattr_static
from typing import Any, Protocol, runtime_checkable

import numpy as np

from deploydcn.errors import InvalidArgument

Inputs = Mapping[str, Any] | Sequence[Any]


@dataclass(frozen=True)
class TensorInfo:
    """A model input or output. shape: sizes, a name for a dynamic size, None for an unknown one; None when the rank is unknown."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        sizes = "?" if self.shape is None else "x".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name}: {self.dtype}[{sizes}]"


@runtime_checkable
class Runner(Protocol):
    """A loaded model. `run` may be called from several threads unless a runner says otherwise."""

    @property
    def name(self) -> str:
        """The backend and what it runs, for reports."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The input tensors, in order."""

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The output tensors, in order."""

    def run(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Run once. inputs: by name, or in order. Returns the outputs by name.

        Raises:
            InvalidArgument: inputs do not fit; the message names the tensor.
            RuntimeFailure: the backend failed.
        """


def has_members(value: Any, *names: str) -> bool:
    """Whether a value has these attributes. Unlike isinstance with a protocol before Python 3.12, nothing is evaluated to find out: a torch
    model's outputs are known once it has run."""
    return all(getattr_static(value, name, None) is not None for name in names)


def arrays_for(infos: Sequence[TensorInfo], inputs: Inputs) -> dict[str, np.ndarray]:
    """Inputs as arrays by name, checked against what the model declares.

    Raises:
        InvalidArgument: a missing or unknown name, a wrong count, dtype, rank or size.
    """
    return {name: _checked(info, as_array(value)) for (name, value), info in zip(named_inputs(infos, inputs).items(), infos, strict=True)}


def named_inputs(infos: Sequence[TensorInfo], inputs: Inputs) -> dict[str, Any]:
    """Inputs of any kind by name, in the model's order.

    Raises:
        InvalidArgument: a missing or unknown name, or a wrong count.
    """
    named = inputs if isinstance(inputs, Mapping) else _by_order(infos, inputs)
    known = {info.name: info for info in infos}
    unknown = [name for name in named if name not in known]
    if unknown:
        raise InvalidArgument(f"no input named {', '.join(map(repr, unknown))}; the model takes {_listing(infos)}")
    missing = [info.name for info in infos if info.name not in named]
    if missing:
        raise InvalidArgument(f"input {', '.join(map(repr, missing))} is missing; the model takes {_listing(infos)}")
    return {info.name: named[info.name] for info in infos}


def check_tensor(info: TensorInfo, dtype: str, shape: Sequence[int], *, kind: str = "input") -> None:
    """Compare an array with what the model declares.

    Raises:
        InvalidArgument: another dtype, rank or size.
    """
    if dtype != info.dtype:
        raise InvalidArgument(f"{kind} {info.name!r} is {dtype}; wanted {info.dtype}; convert it with .astype({info.dtype!r})")
    if info.shape is not None:
        fits = len(shape) == len(info.shape) and all(
            got == wanted for got, wanted in zip(shape, info.shape, strict=True) if isinstance(wanted, int)
        )
        if not fits:
            raise InvalidArgument(f"{kind} {info.name!r} has shape {list(shape)}; wanted {info}")


def contiguous(array: np.ndarray) -> np.ndarray:
    """The same values in C order and the machine's byte order; itself if it is so already."""
    return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")  # ascontiguousarray would make scalars arrays


def as_array(value: Any) -> np.ndarray:
    """A NumPy array of anything array-like, torch tensors included."""
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu().resolve_conj().resolve_neg()
            value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()  # NumPy has no bfloat16
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidArgument(f"got a {type(value).__name__} that is no dense array: {error}") from error
    if array.dtype == object:
        raise InvalidArgument(f"got {value!r}; wanted an array of numbers")
    return array


def _by_order(infos: Sequence[TensorInfo], inputs: Sequence[Any]) -> dict[str, Any]:
    if not hasattr(inputs, "__len__"):
        raise InvalidArgument(f"inputs is {inputs!r}; wanted a dict of arrays by name, or a list in the order of {_listing(infos)}")
    if hasattr(inputs, "shape"):
        raise InvalidArgument("inputs is one array; wanted a sequence or a dict of arrays; put it in a list")
    if len(inputs) != len(infos):
        raise InvalidArgument(f"got {len(inputs)} inputs; wanted {len(infos)}: {_listing(infos)}")
    return {info.name: value for info, value in zip(infos, inputs, strict=True)}


def _checked(info: TensorInfo, array: np.ndarray) -> np.ndarray:
    check_tensor(info, array.dtype.name, array.shape)
    return contiguous(array)


def _listing(infos: Sequence[TensorInfo]) -> str:
    return ", ".join(map(str, infos)) or "no inputs"
