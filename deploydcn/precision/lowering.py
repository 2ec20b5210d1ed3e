"""What a lower precision rounds in a model: constants and activations, each a source of noise."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
import onnx_ir as ir

from deploydcn.runners import Runner


@dataclass(frozen=True)
class Source:
    """Something that is rounded, once however many read it.

    value: the name of an activation; where there are constants, that of the first output of the node that reads them. constants: rounded,
    by input of that node; empty for an activation. nodes: those of which none may be lowered if this is to stay as it is.
    """

    value: str
    nodes: frozenset[str]
    constants: Mapping[int, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Layer:
    """A convolution, deformable ones too, or matrix product. reads: indices of the sources that it computes with. kept: why it stays in
    float32 anyway."""

    node: str
    operator: str
    output: str
    reads: tuple[int, ...]
    kept: str = ""


class Lowering(Protocol):
    """A way to lower the precision of one model. exclude: names of nodes that stay in float32.

    how_measured: what a lowered file is run as.
    """

    how_measured: str

    @property
    def model(self) -> ir.Model:
        """In float32, in the form in which decisions are made; not to be changed."""

    @property
    def sources(self) -> Sequence[Source]:
        """All that is rounded when all is lowered that can be."""

    @property
    def layers(self) -> Sequence[Layer]:
        """All layers, in the order of the model."""

    def active(self, exclude: Collection[str]) -> frozenset[int]:
        """Indices of the sources that are rounded."""

    def rounding(self, value: str, exact: str, rounded: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """Nodes, and constants for them, that round what is called `exact`. value: its name in the model."""

    def write(self, path: Path, exclude: Sequence[str]) -> None:
        """The lowered model as a file."""

    def load(self, path: Path) -> Runner:
        """That file, in numbers of the lower precision."""


def sources_by_place(
    found: Mapping[tuple[str, bool], Collection[str]], rounded_constants: Callable[[str], Mapping[int, np.ndarray]]
) -> list[Source]:
    """Sources in the order in which they were found. found: (value, whether constants of its node are meant) -> nodes."""
    return [Source(value, frozenset(nodes), rounded_constants(value) if constants else {}) for (value, constants), nodes in found.items()]
