"""Op specifications: what an operator takes, returns and requires, declared once.

A spec names the axes of every tensor and writes sizes as integer arithmetic over those names:

    Tensor("offset", ("N", "2*OG*KH*KW", "OH", "OW"), type_param="T1")

Everything else that knows an op derives from it: ONNX schema and shape inference (`deploydcn.onnx_schema`), the torch
operator and its fake implementation (`deploydcn.nn.torch_ops`), the C++ attribute struct, checks and output shapes
(`deploydcn.codegen`), and the documentation table.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from deploydcn.errors import InternalError, InvalidArgument

INT64_MAX = 2**63 - 1

AttributeValue = int | float | str | tuple[int, ...]


# ---------------------------------------------------------------------------------------------------- expressions
@dataclass(frozen=True)
class Expression:
    """Integer arithmetic over axis names: names, integers and + - * // only, parsed with `ast`, never evaluated by it."""

    text: str

    @property
    def is_name(self) -> bool:
        return self.text.isidentifier()

    @property
    def names(self) -> tuple[str, ...]:
        """The axis names used, in order of first appearance."""
        found = [node.id for node in ast.walk(_parse(self.text)) if isinstance(node, ast.Name)]
        return tuple(sorted(set(found), key=lambda name: self.text.index(name)))

    def fold(self, leaf: Callable[[int | str], Any], combine: Callable[[str, Any, Any], Any]) -> Any:
        """Walk the expression bottom-up: `leaf(int or name)`, then `combine(operator, left, right)`."""

        def visit(node: ast.expr) -> Any:
            if isinstance(node, ast.BinOp):
                return combine(_OPERATORS[type(node.op)], visit(node.left), visit(node.right))
            if isinstance(node, ast.Name):
                return leaf(node.id)
            if not (isinstance(node, ast.Constant) and isinstance(node.value, int)):
                raise InternalError(f"{self.text!r} was not checked")
            return leaf(node.value)

        return visit(_parse(self.text))

    def evaluate(self, axes: Mapping[str, Any]) -> Any:
        """The value for given axis sizes. Works on int and on anything with the four operators (torch.SymInt)."""
        return self.fold(lambda item: item if isinstance(item, int) else axes[item], _apply)


_OPERATORS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//"}


def _apply(operator: str, left: Any, right: Any) -> Any:
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    return left * right if operator == "*" else left // right


@cache
def _parse(text: str) -> ast.expr:
    tree = ast.parse(text, mode="eval").body
    for node in ast.walk(tree):
        number = isinstance(node, ast.Constant) and type(node.value) is int
        operation = isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS
        if not (number or operation or isinstance(node, ast.Name | ast.operator | ast.expr_context)):
            raise InternalError(f"spec expression {text!r}: only names, integers and + - * // are allowed")
    return tree


# ----------------------------------------------------------------------------------------------------- declarations
@dataclass(frozen=True)
class Tensor:
    """One input or output: its ONNX name, one axis expression per dimension, its type parameter, and its PyTorch name."""

    name: str
    axes: tuple[str, ...]
    type_param: str = "T"
    optional: bool = False
    python_name: str = ""
    doc: str = ""

    @property
    def expressions(self) -> tuple[Expression, ...]:
        return tuple(Expression(axis) for axis in self.axes)


@dataclass(frozen=True)
class Attr:
    """One attribute. `kind` is ONNX's: "int", "ints", "float" or "string".

    axes: the names its elements bear in axis expressions (("SH", "SW") for strides; h before w).
    default: used when the node does not carry the attribute; `None` means "read the named axes from the inputs".
    minimum, maximum: smallest and largest allowed element. choices: allowed strings.
    """

    name: str
    kind: str
    default: AttributeValue | None
    axes: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()
    python_name: str = ""
    doc: str = ""


@dataclass(frozen=True)
class OpSpec:
    """An operator of ONNX domain `deploydcn`.

    type_rows: allowed element types, one row per combination, keyed by type parameter; the backends build exactly these.
    sizes: axes that are computed rather than given, in order; at_least: smallest allowed size of an axis.
    divisible: pairs (axis, divisor axis). gpu: whether there is a GPU kernel beside the CPU's.
    """

    name: str
    snake_name: str  # its folder, C++ namespace and torch operator
    doc: str
    attributes: tuple[Attr, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    type_rows: tuple[Mapping[str, str], ...]
    sizes: Mapping[str, str] = field(default_factory=dict)
    divisible: tuple[tuple[str, str], ...] = ()
    at_least: Mapping[str, int] = field(default_factory=dict)
    since_version: int = 1
    gpu: bool = True
    standard_op: str = ""  # the ONNX operator of the default domain with this very signature, if there is one

    def attribute(self, name: str) -> Attr:
        for attribute in self.attributes:
            if attribute.name == name:
                return attribute
        known = ", ".join(attribute.name for attribute in self.attributes)
        raise InvalidArgument(f"{self.name} has no attribute {name!r}; it has {known}")

    def type_values(self, type_param: str) -> tuple[str, ...]:
        """The element types a type parameter may take, in declaration order, without repeats."""
        return tuple(dict.fromkeys(row[type_param] for row in self.type_rows))

    # ------------------------------------------------------------------------------------------------------ checks
    def complete_attributes(self, given: Mapping[str, Any]) -> dict[str, AttributeValue | None]:
        """Defaults filled in, lists made tuples, every value checked.

        Raises:
            InvalidArgument: an unknown attribute, a wrong length or type, a value below the minimum or not a choice.
        """
        for name in given:
            self.attribute(name)
        return {attr.name: self._check_attribute(attr, given.get(attr.name)) for attr in self.attributes}

    def _check_attribute(self, attr: Attr, value: Any) -> AttributeValue | None:
        where = f"{self.name} attribute {attr.name}"
        if value is None:
            return attr.default
        if attr.kind == "string":
            text = value.decode() if isinstance(value, bytes) else value
            if text not in attr.choices:
                raise InvalidArgument(f"{where} is {text!r}; wanted one of {', '.join(map(repr, attr.choices))}")
            return str(text)
        if attr.kind == "float":
            return float(value)
        if attr.kind == "ints" and not isinstance(value, list | tuple):
            raise InvalidArgument(f"{where} is {value!r}; wanted {len(attr.axes)} integers: {', '.join(attr.axes)}")
        items = (value,) if attr.kind == "int" else tuple(value)
        if attr.kind == "ints" and len(items) != len(attr.axes):
            raise InvalidArgument(f"{where} has {len(items)} elements; wanted {len(attr.axes)}: {', '.join(attr.axes)}")
        for item in items:
            if isinstance(item, bool) or not isinstance(item, int):
                raise InvalidArgument(f"{where} has {item!r} of type {type(item).__name__}; wanted an integer")
            if attr.minimum is not None and item < attr.minimum:
                raise InvalidArgument(f"{where} is {_plain(value)}; wanted every element at least {attr.minimum}")
            if attr.maximum is not None and item > attr.maximum:
                raise InvalidArgument(f"{where} is {_plain(value)}; wanted every element at most {attr.maximum}")
            if abs(item) > INT64_MAX:
                raise InvalidArgument(f"{where} is {_plain(value)}; wanted 64-bit integers")
        return items[0] if attr.kind == "int" else tuple(items)

    def bind(self, shapes: Mapping[str, Sequence[Any]], attributes: Mapping[str, Any]) -> dict[str, int]:
        """Sizes of all named axes, for given input shapes (by ONNX input name; absent optional inputs left out).

        Raises:
            InvalidArgument: a rank, size, divisibility or overflow error, in the what/got/wanted/fix form.
        """
        known = {tensor.name for tensor in self.inputs}
        for name in shapes:
            if name not in known:
                raise InvalidArgument(f"{self.name} has no input {name!r}; it has {', '.join(sorted(known))}")
        axes = self._attribute_axes(self.complete_attributes(attributes))
        present = [tensor for tensor in self.inputs if tensor.name in shapes]
        for tensor in self.inputs:
            if not tensor.optional and tensor.name not in shapes:
                raise InvalidArgument(f"{self.name} input {tensor.name} is missing; it is required")
        self._check_ranks(shapes)
        computed = set(self.sizes)
        for tensor in present:
            for index, axis in enumerate(tensor.expressions):
                if axis.is_name and axis.text not in computed:
                    size = shapes[tensor.name][index]
                    if axes.setdefault(axis.text, size) != size:
                        raise self._axis_error(tensor, index, size, axes[axis.text], axis, axes)
        self._check_divisible(axes)
        for name, text in self.sizes.items():
            axes[name] = self._checked_size(Expression(text).evaluate(axes))
        for name, least in self.at_least.items():
            if axes[name] < least:
                raise InvalidArgument(self._too_small(name, axes[name], least, axes))
        for tensor in present:
            for index, axis in enumerate(tensor.expressions):
                if not axis.is_name or axis.text in computed:
                    wanted_size = axis.evaluate(axes)
                    if shapes[tensor.name][index] != wanted_size:
                        raise self._axis_error(tensor, index, shapes[tensor.name][index], wanted_size, axis, axes)
        return axes

    def check_known(self, shapes: Mapping[str, Sequence[Any]], attributes: Mapping[str, Any]) -> None:
        """What `bind` checks, as far as partly known shapes allow: a size that is no int is unknown; inputs may be left out.

        Raises:
            InvalidArgument: what is known contradicts the spec.
        """
        axes: dict[str, int] = self._attribute_axes(self.complete_attributes(attributes))
        self._check_ranks(shapes)
        known = [
            (tensor, index, axis, shapes[tensor.name][index])
            for tensor in self.inputs
            for index, axis in enumerate(tensor.expressions if tensor.name in shapes else ())
            if isinstance(shapes[tensor.name][index], int)
        ]
        for tensor, index, axis, size in known:
            if axis.is_name and axis.text not in self.sizes and axes.setdefault(axis.text, size) != size:
                raise self._axis_error(tensor, index, size, axes[axis.text], axis, axes)
        self._check_divisible(axes)
        for name, text in self.sizes.items():
            if all(used in axes for used in Expression(text).names):
                axes[name] = self._checked_size(Expression(text).evaluate(axes))
        for name, least in self.at_least.items():
            if axes.get(name, least) < least:
                raise InvalidArgument(self._too_small(name, axes[name], least, axes))
        for tensor, index, axis, size in known:
            if all(used in axes for used in axis.names) and size != axis.evaluate(axes):
                raise self._axis_error(tensor, index, size, axis.evaluate(axes), axis, axes)
            if axis.text in self.sizes:
                axes.setdefault(axis.text, size)  # computed from an unknown size: inputs that bear it must still agree

    def _checked_size(self, size: int) -> int:
        if abs(size) > INT64_MAX:
            raise InvalidArgument("a size overflows 64-bit integers; wanted sizes below 2^63; check shapes and attributes")
        return size

    def _check_ranks(self, shapes: Mapping[str, Sequence[Any]]) -> None:
        for tensor in self.inputs:
            if tensor.name in shapes and len(shapes[tensor.name]) != len(tensor.axes):
                got, wanted = list(shapes[tensor.name]), ", ".join(tensor.axes)
                raise InvalidArgument(f"{self.name} input {tensor.name} has shape {got}; wanted {len(tensor.axes)} dimensions ({wanted})")

    def output_shapes(self, shapes: Mapping[str, Sequence[Any]], attributes: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Output shapes for input shapes of int or torch.SymInt, without checking sizes against each other."""
        axes: dict[str, Any] = dict(self._attribute_axes(self.complete_attributes(attributes)))
        for tensor in self.inputs:
            for axis, size in zip(tensor.expressions, shapes.get(tensor.name, ()), strict=False):
                if axis.is_name and axis.text not in self.sizes:
                    axes.setdefault(axis.text, size)
        for name, text in self.sizes.items():
            axes[name] = Expression(text).evaluate(axes)
        return [tuple(axis.evaluate(axes) for axis in tensor.expressions) for tensor in self.outputs]

    def _attribute_axes(self, attributes: Mapping[str, Any]) -> dict[str, int]:
        axes: dict[str, int] = {}
        for attr in self.attributes:
            value = attributes[attr.name]
            if attr.axes and value is not None:
                axes.update(zip(attr.axes, value if isinstance(value, tuple) else (value,), strict=True))
        return axes

    def _check_divisible(self, axes: Mapping[str, int]) -> None:
        for axis, divisor in self.divisible:
            # A divisor of 0 is an empty input's, which is too small: refused afterwards, by its own name.
            if axis in axes and axes.get(divisor) and axes[axis] % axes[divisor]:
                raise InvalidArgument(
                    f"{self.name}: {axis} is {axes[axis]}; wanted a multiple of {divisor} = {axes[divisor]}; {self._fix((divisor,))}"
                )

    def _too_small(self, name: str, got: int, least: int, axes: Mapping[str, int]) -> str:
        expression = Expression(self.sizes.get(name, name))
        return f"{self.name}: {name} is {got}; wanted at least {least}{_derivation(expression, axes)}; {self._fix(expression.names)}"

    def _axis_error(self, tensor: Tensor, index: int, got: int, wanted: int, axis: Expression, axes: Mapping[str, int]) -> InvalidArgument:
        expression = Expression(self.sizes.get(axis.text, axis.text))
        detail = _derivation(expression, axes)
        return InvalidArgument(
            f"{self.name} input {tensor.name}: dimension {index} is {got}; wanted {wanted}{detail}; {self._fix(expression.names)}"
        )

    def _fix(self, names: Sequence[str]) -> str:
        attributes = [attr.name for attr in self.attributes if set(attr.axes) & set(names)]
        return f"check {', '.join(attributes)}" if attributes else "check the input shapes"


def _derivation(expression: Expression, axes: Mapping[str, int]) -> str:
    if expression.is_name:
        return f" = {expression.text}"
    if not expression.names:
        return ""
    values = ", ".join(f"{name}={axes.get(name, '?')}" for name in expression.names)
    return f" = {expression.text} ({values})"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
