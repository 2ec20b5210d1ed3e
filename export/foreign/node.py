"""Reading nodes of other frameworks: strictly, because a guess would be a model that computes something else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from deploydcn.errors import InvalidModel, UserError
from deploydcn.export.graph import node_name, operator_name

UNUSED = frozenset({"im2col_step", "bias", "plugin_version", "plugin_namespace", "name", "info"})
"""Attributes that do not change what a node computes."""


class NoEquivalentError(UserError):
    """A deformable node that none of our operators computes exactly; the message is the reason."""


class ForeignNode:
    """A node's inputs by name and its attributes, in whatever spelling; what nobody reads is refused by `finish`."""

    def __init__(self, node: ir.Node, attributes: Mapping[str, Any] | None = None) -> None:
        self.node = node
        self.attributes = {name: attr.value for name, attr in node.attributes.items()} | dict(attributes or {})
        self._read: set[str] = set(UNUSED)

    @property
    def label(self) -> str:
        return f"node {node_name(self.node)!r} ({operator_name(self.node)})"

    def inputs(self, *names: str) -> list[ir.Value | None]:
        """The inputs, whose meaning is `names` in order; a name that ends in "?" may be left out.

        Raises:
            InvalidModel: one is missing, or there are more.
        """
        given = [*self.node.inputs, *[None] * len(names)]
        wanted = ", ".join(name.removesuffix("?") for name in names)
        if len(self.node.inputs) > len(names):
            raise InvalidModel(f"{self.label} has {len(self.node.inputs)} inputs; wanted {wanted}; export the model again")
        for name, value in zip(names, given, strict=False):
            if value is None and not name.endswith("?"):
                raise InvalidModel(f"{self.label}: input {name} is missing; wanted {wanted}; export the model again")
        return given[: len(names)]

    def rank(self, index: int) -> int | None:
        """The number of dimensions of an input, None where it is unknown or absent."""
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        return None if value is None or value.shape is None else len(value.shape)

    # -------------------------------------------------------------------------------------------------- attributes
    def integer(self, *spellings: str, default: int | None = None) -> int:
        """One integer, under the first of its spellings that is there."""
        (value,) = self._whole(spellings, (1,), None if default is None else (default,))
        return value

    def number(self, *spellings: str, default: float | None = None) -> float:
        (value,) = self._numbers(spellings, (1,), None if default is None else (default,))
        return float(value)

    def pair(self, *spellings: str, default: tuple[int, int] | None = None) -> tuple[int, int]:
        """(h, w): as a list, as one number for both, or as two attributes `<name>_h` and `<name>_w`."""
        split = [name for name in spellings if f"{name}_h" in self.attributes and f"{name}_w" in self.attributes]
        if split:
            return self.integer(f"{split[0]}_h"), self.integer(f"{split[0]}_w")
        values = self._whole(spellings, (1, 2), default)
        return values[0], values[-1]

    def pads(self, *spellings: str, default: tuple[int, int] | None = None) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) of a symmetric padding: (h, w), one number, or mmdeploy's (h, h, w, w)."""
        values = self._whole(spellings, (1, 2, 4), default) if any(name in self.attributes for name in spellings) else ()
        if len(values) != 4:
            height, width = self.pair(*spellings, default=default)
            return height, width, height, width
        if values[0] != values[1] or values[2] != values[3]:
            raise NoEquivalentError(
                f"{self.label}: padding {list(values)} has four different meanings in use; wanted (h, w) or (h, h, w, w)"
            )
        return values[0], values[2], values[0], values[2]

    def finish(self) -> None:
        """Refuse attributes that nobody read: they may change what the node computes."""
        unknown = sorted(set(self.attributes) - self._read)
        if unknown:
            raise NoEquivalentError(f"{self.label}: attribute {unknown[0]} is not known here, so what it changes is not either")

    def _whole(self, spellings: Sequence[str], lengths: Sequence[int], default: Sequence[float] | None) -> Sequence[int]:
        values = self._numbers(spellings, lengths, default)
        if not all(value.is_integer() for value in map(float, values)):
            name = next(name for name in spellings if name in self.attributes)
            raise InvalidModel(f"{self.label}: attribute {name} is {list(values)}; wanted whole numbers; export the model again")
        return [int(value) for value in values]

    def _numbers(self, spellings: Sequence[str], lengths: Sequence[int], default: Sequence[float] | None) -> Sequence[float]:
        self._read.update(spellings)
        for name in spellings:
            if name not in self.attributes:
                continue
            value = self.attributes[name]
            items = value if isinstance(value, list | tuple) else (value,)
            try:
                numbers = [float(item) for item in items]
            except (TypeError, ValueError):
                numbers = []
            if len(numbers) not in lengths:
                wanted = " or ".join(map(str, lengths))
                shown = list(value) if isinstance(value, tuple) else value
                raise InvalidModel(f"{self.label}: attribute {name} is {shown!r}; wanted {wanted} numbers; export the model again")
            return numbers
        if default is None:
            raise InvalidModel(f"{self.label}: attribute {spellings[0]} is missing; it is required; export the model again")
        return default
