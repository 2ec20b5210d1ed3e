"""The inside of a model: tensors that can be read off and replaced while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np
import onnx

from deploydcn.runners import Runner
from deploydcn.runners.base import has_members

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Operator:
    """A step of a model: an ONNX node or a torch module. type: "Conv", "deploydcn::DeformConv2d", or a class's name. path: of the
    module it was or belongs to. parameters: the names of its weights."""

    name: str
    type: str
    path: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    parameters: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} ({self.type})"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        attributes = {name: value if isinstance(value, int | float | str | list) else str(value) for name, value in self.attributes.items()}
        return {
            "name": self.name,
            "type": self.type,
            "path": self.path,
            "attributes": attributes,
            "parameters": list(self.parameters),
        }


@dataclass(frozen=True)
class Tap:
    """A tensor inside a model that can be observed.

    path: of the module it is an output of, "" when unknown. sources: the taps and model inputs that it is computed from, with no
    other tap in between. kind: the operator that computes it, or the module's class. shape, dtype: None when unknown before a run.
    """

    name: str
    path: str
    sources: tuple[str, ...]
    kind: str
    shape: tuple[int, ...] | None = None
    dtype: np.dtype[Any] | None = None

    @property
    def size(self) -> int | None:
        """Bytes, None when unknown."""
        return None if self.shape is None or self.dtype is None else math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class OnnxPart:
    """Nodes cut out of a graph. inputs: by the part's names. It has one output. replace_standard: see `register_ort_ops`."""

    model: onnx.ModelProto
    inputs: Arrays
    replace_standard: bool


@dataclass(frozen=True)
class TorchPart:
    """A torch.nn.Module and the arguments of one of its calls. complete: whether its result is the tensor in question, computed from the
    given tensors alone: not if there is code between that belongs to no module."""

    module: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    complete: bool


class Taps(Protocol):
    """A model opened for inspection on one set of inputs."""

    @property
    def taps(self) -> Mapping[str, Tap]:
        """By name, in the order in which they are computed."""

    @property
    def outputs(self) -> Mapping[str, str]:
        """The model's outputs in order, and the tap that each of them is; outputs that do not depend on the inputs are none."""

    def module_outputs(self) -> Mapping[str, list[str]]:
        """Path of a module -> the taps that are its outputs, in order: those of all its calls."""

    def observe(self, names: Iterable[str]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Run on the inputs: the model's outputs by name, and the named taps."""

    def recompute(self, given: Arrays, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Compute taps from others: wherever a tap is read that is in `given`, that array is used instead of what the model computed."""

    def operators(self, name: str, given: Iterable[str]) -> tuple[Operator, ...]:
        """The steps that `recompute` takes for one tap."""

    def part(self, name: str, given: Arrays) -> OnnxPart | TorchPart:
        """What `recompute` runs for one tap, to be kept."""

    def parameter(self, name: str) -> np.ndarray | None:
        """A weight by its name in `Operator.parameters`; None when it lies in another file."""


class OnnxRunner(Runner, Protocol):
    """A runner of an ONNX graph that can run an edited graph in the same way."""

    def onnx_model(self) -> onnx.ModelProto:
        """The graph."""

    def reopen(self, model: onnx.ModelProto) -> Runner:
        """A runner of another graph with the same options."""


def taps_of(runner: Runner, feeds: Arrays) -> Taps | None:
    """Open a model on the given inputs (by its own names). None where a runner shows outputs only, as an engine does."""
    if has_members(runner, "onnx_model", "reopen"):
        from deploydcn.parity.onnx_taps import OnnxTaps

        return OnnxTaps(cast(OnnxRunner, runner), feeds)
    if type(runner).__name__ == "TorchRunner":  # by name: torch need not be installed
        from deploydcn.parity.torch_taps import TorchTaps

        return TorchTaps(runner, feeds)  # type: ignore[arg-type]
    return None


def nearest(taps: Mapping[str, Tap], name: str, stop: Callable[[str], bool]) -> tuple[str, ...]:
    """The sources of a tap when only those that `stop` accepts count: others are looked through, model inputs always count."""
    found: dict[str, None] = {}
    seen: set[str] = set()
    pending = list(taps[name].sources)[::-1]
    while pending:
        source = pending.pop()
        if source in seen:
            continue
        seen.add(source)
        if source not in taps or stop(source):
            found[source] = None
        else:
            pending += taps[source].sources[::-1]
    return tuple(found)
