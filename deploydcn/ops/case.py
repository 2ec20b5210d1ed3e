"""A conformance row: attributes, input shapes, and how to fill the inputs."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Fill = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal values, float64."""
    return rng.standard_normal(shape)


@dataclass(frozen=True)
class Case:
    """One row of an operator's conformance table.

    id: a readable name. shapes: by ONNX input name; inputs left out are absent. fills: how to draw an input that is
    not plain standard normal. why: what goes wrong where this row is missing.
    """

    id: str
    shapes: Mapping[str, tuple[int, ...]]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    fills: Mapping[str, Fill] = field(default_factory=dict)
    why: str = ""

    def inputs(self, dtype_of: Callable[[str], np.dtype[Any]]) -> dict[str, np.ndarray]:
        """The row's inputs, always the same ones, rounded to the dtype that `dtype_of(input name)` gives."""
        rng = np.random.default_rng(zlib.crc32(self.id.encode()))
        drawn = {name: self.fills.get(name, normal)(rng, shape) for name, shape in self.shapes.items()}
        return {name: value.astype(dtype_of(name)) for name, value in drawn.items()}
