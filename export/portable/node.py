"""One of our nodes, read through its spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from deploydcn.errors import InvalidModel
from deploydcn.export.graph import node_name
from deploydcn.spec import OpSpec


class SpecNode:
    """A node's inputs by the spec's names (those left out are absent) and its attributes, complete and checked."""

    def __init__(self, spec: OpSpec, node: ir.Node) -> None:
        self.spec, self.node = spec, node
        self.inputs: dict[str, ir.Value] = {
            tensor.name: value for tensor, value in zip(spec.inputs, node.inputs, strict=False) if value is not None
        }
        self.attributes: Mapping[str, Any] = spec.complete_attributes(attributes_of(node))

    @property
    def label(self) -> str:
        return f"node {node_name(self.node)!r} ({self.spec.name})"

    def attribute_axes(self) -> dict[str, int]:
        """The spec's axis names that attributes give: G, SH, PT ..."""
        return {
            axis: size
            for attr in self.spec.attributes
            if attr.axes and (value := self.attributes[attr.name]) is not None
            for axis, size in zip(attr.axes, value if isinstance(value, tuple) else (value,), strict=True)
        }

    def known_sizes(self, name: str) -> tuple[int, ...]:
        """The shape of an input that must be known when the graph is written.

        Raises:
            InvalidModel: it is not.
        """
        shape = self.inputs[name].shape
        if shape is None or not all(isinstance(size, int) for size in shape):
            raise InvalidModel(f"{self.label}: input {name} has shape {shape}; wanted fixed sizes; store it in the file, or fix its shape")
        return tuple(size for size in shape if isinstance(size, int))

    def known_size(self, name: str, axis: int) -> int:
        """One size of an input that must be known when the graph is written.

        Raises:
            InvalidModel: it is not.
        """
        shape = self.inputs[name].shape
        size = shape[axis] if shape is not None else None
        if not isinstance(size, int):
            raise InvalidModel(f"{self.label}: input {name} has shape {shape}; wanted a fixed size of axis {axis}; fix it in the model")
        return size


def attributes_of(node: ir.Node) -> dict[str, Any]:
    """A node's attributes as Python values; lists as tuples."""
    return {name: tuple(attr.value) if isinstance(attr.value, list | tuple) else attr.value for name, attr in node.attributes.items()}
