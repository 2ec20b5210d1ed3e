"""Writing decompositions as if they were NumPy: `op.Add(a, 1)` records an ONNX node and returns its output.

Sizes are Python integers where they are known and int64 tensors of one element where they are not, so that one text
serves fixed and dynamic shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from deploydcn.onnx_schema import DOMAIN, VERSION

Size = int | ir.Value
"""A size: known, or an int64 tensor of shape (1,)."""


class OpBuilder:
    """Records nodes of the default domain; every operator is a method.

    Arguments that are no values become constants: Python integers (or lists of them) int64, floats of type `real`, NumPy's
    numbers and arrays what they are; None leaves an input out. Only operators that mean the same in opsets 16 to 25
    may be used.

    Args:
        real: the type that positions and sums are computed in, FLOAT or DOUBLE.
    """

    def __init__(self, real: ir.DataType) -> None:
        self.real = real
        self.nodes: list[ir.Node] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def __getattr__(self, op_type: str) -> Callable[..., ir.Value]:
        if not op_type[:1].isupper():
            raise AttributeError(op_type)

        def record(*inputs: Any, **attributes: Any) -> ir.Value:
            node = ir.node(op_type, [self.value(item) for item in inputs], attributes=attributes)
            self.nodes.append(node)
            return node.outputs[0]

        return record

    def own(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """A node of domain deploydcn; inputs left out at the end are not written."""
        given = list(inputs)
        while given[-1] is None:
            given.pop()
        node = ir.node(op_type, given, attributes=attributes, domain=DOMAIN, version=VERSION)
        self.nodes.append(node)
        return node.outputs[0]

    def value(self, item: Any) -> ir.Value | None:
        """A value as it is; anything else as a constant."""
        if item is None or isinstance(item, ir.Value):
            return item
        array = np.asarray(item)
        if not isinstance(item, np.ndarray | np.generic):
            array = array.astype(np.int64 if array.dtype.kind in "iu" else self.real.numpy())
        return self.constant(array)

    def constant(self, array: np.ndarray) -> ir.Value:
        """An array as a constant; equal ones are one."""
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.Constant(value=ir.tensor(array))
        return self._constants[key]

    # ------------------------------------------------------------------------------------------------------- sizes
    def sizes(self, value: ir.Value, rank: int) -> list[Size]:
        """The size of every axis."""
        known = list(value.shape) if value.shape is not None else [None] * rank
        shape = None if all(isinstance(size, int) for size in known) else self.Shape(value)
        return [size if isinstance(size, int) else self.Gather(shape, [axis]) for axis, size in enumerate(known)]

    def product(self, *sizes: Size) -> Size:
        known = math.prod(size for size in sizes if isinstance(size, int))
        unknown = [size for size in sizes if not isinstance(size, int)]
        if not unknown:
            return known
        result = unknown[0]
        for factor in [*unknown[1:], *([known] if known != 1 else [])]:
            result = self.Mul(result, factor)
        return result

    def quotient(self, size: Size, divisor: int) -> Size:
        return size // divisor if isinstance(size, int) else self.Div(size, divisor)

    def reshape(self, value: ir.Value, *sizes: Size) -> ir.Value:
        """Reshape to sizes that are all given: none has to be inferred, which tensors without elements do not allow."""
        return self.Reshape(value, self._vector(sizes))

    def expand(self, value: ir.Value, *sizes: Size) -> ir.Value:
        return self.Expand(value, self._vector(sizes))

    def indices(self, size: Size, *trailing_axes: int) -> ir.Value:
        """0 to size - 1 as int64, with `trailing_axes` axes of size 1 behind."""
        scalar = size if isinstance(size, int) else self.Squeeze(size, [0])
        counted = self.Range(0, scalar, 1)
        return self.reshape(counted, size, *trailing_axes) if trailing_axes else counted

    def _vector(self, sizes: Sequence[Size]) -> Any:
        if all(isinstance(size, int) for size in sizes):
            return list(sizes)
        return self.Concat(*[[size] if isinstance(size, int) else size for size in sizes], axis=0)

    # ------------------------------------------------------------------------------------------------------- types
    def to_real(self, value: ir.Value, dtype: ir.DataType | None = None) -> ir.Value:
        """The value in the type computed in; its own type is `dtype` where the value does not know it."""
        return value if (value.dtype or dtype) == self.real else self.Cast(value, to=self.real)
