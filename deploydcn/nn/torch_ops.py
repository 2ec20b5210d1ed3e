"""The operators as torch operators `torch.ops.deploydcn.<op>`, derived from their specs.

The spec gives the schema and the fake implementation (so that torch.export traces them with dynamic shapes);
`IMPLEMENTATIONS` gives the eager computation, and autograd differentiates that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
import torchvision
from torch import Tensor

from deploydcn.errors import InvalidArgument
from deploydcn.ops import OPS
from deploydcn.spec import Attr, OpSpec

NAMESPACE = "deploydcn"

FAR_OUTSIDE = 1e9
"""A coordinate outside every image: what NaN and infinite offsets become. torchvision reads out of bounds on NaN."""


# -------------------------------------------------------------------------------------------------- implementations
def _deform_conv2d(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    offset_groups: int,
    activation: str,
) -> Tensor:
    """torchvision's kernel, in float32 at least: in half precision it would round coordinates.

    torchvision takes one padding per axis. A sample beyond an image's edge is zero exactly where it is zero on the
    image padded with zeros, so the rest of a four-sided padding is added explicitly.
    """
    if input.shape[0] == 0:
        shape = _spec("DeformConv2d").output_shapes(
            {"X": input.shape, "W": weight.shape}, {"strides": stride, "pads": padding, "dilations": dilation}
        )
        return input.new_zeros(shape[0])
    dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
    top, left, bottom, right = padding
    rows, columns = min(top, bottom), min(left, right)
    padded = F.pad(input.to(dtype), (left - columns, right - columns, top - rows, bottom - rows))
    finite = torch.nan_to_num(offset.to(dtype), nan=FAR_OUTSIDE, posinf=FAR_OUTSIDE, neginf=-FAR_OUTSIDE)
    output = torchvision.ops.deform_conv2d(
        padded,
        finite,
        weight.to(dtype),
        None if bias is None else bias.to(dtype),
        tuple(stride),
        (rows, columns),
        tuple(dilation),
        None if mask is None else mask.to(dtype),
    )
    return _activate(output, activation).to(input.dtype)


def _grouped_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    activation: str,
) -> Tensor:
    top, left, bottom, right = padding
    padded = F.pad(input, (left, right, top, bottom))
    return _activate(F.conv2d(padded, weight, bias, tuple(stride), 0, tuple(dilation), groups), activation)


def _activate(y: Tensor, activation: str) -> Tensor:
    if activation == "relu":
        return F.relu(y)
    if activation == "relu6":
        return F.relu6(y)
    # One new tensor per call: an operator's output must not alias its input.
    return F.silu(y) if activation == "silu" else y


IMPLEMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "DeformConv2d": _deform_conv2d,
    "GroupedConv2d": _grouped_conv2d,
    # new-op: insert above
}


# -------------------------------------------------------------------------------------------------------- derivation
def python_attributes(spec: OpSpec) -> tuple[Attr, ...]:
    """The attributes that are arguments in Python; the others (kernel_shape) follow from the tensors."""
    return tuple(attr for attr in spec.attributes if attr.python_name)


def schema_text(spec: OpSpec) -> str:
    """The torch schema: tensors in the spec's order, then attributes with their defaults."""
    types = {"int": "int", "ints": "int[]", "float": "float", "string": "str"}
    tensors = [f"Tensor? {tensor.python_name}" if tensor.optional else f"Tensor {tensor.python_name}" for tensor in spec.inputs]
    attributes = [f"{types[attr.kind]} {attr.python_name}" for attr in python_attributes(spec)]
    return f"({', '.join(tensors + attributes)}) -> Tensor"


def split_arguments(spec: OpSpec, arguments: Sequence[Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Positional arguments of the torch operator as (inputs by ONNX name, ONNX attributes)."""
    count = len(spec.inputs)
    inputs = {tensor.name: value for tensor, value in zip(spec.inputs, arguments[:count], strict=True) if value is not None}
    values = zip(python_attributes(spec), arguments[count:], strict=True)
    return inputs, {attr.name: tuple(value) if isinstance(value, list | tuple) else value for attr, value in values}


def call_with_onnx_names(spec: OpSpec, inputs: Mapping[str, Tensor], attributes: Mapping[str, Any]) -> Tensor:
    """Call the torch operator with ONNX names; missing optional inputs and attributes take their defaults."""
    complete = spec.complete_attributes({k: v for k, v in attributes.items() if k != "kernel_shape"})
    tensors = [inputs.get(tensor.name) for tensor in spec.inputs]
    values = [complete[attr.name] for attr in python_attributes(spec)]
    arguments = [list(value) if isinstance(value, tuple) else value for value in values]
    result: Tensor = getattr(getattr(torch.ops, NAMESPACE), spec.snake_name)(*tensors, *arguments)
    return result


def _spec(name: str) -> OpSpec:
    return next(op.spec for op in OPS if op.spec.name == name)


def _check(spec: OpSpec, inputs: Mapping[str, Tensor], attributes: Mapping[str, Any]) -> None:
    spec.bind({name: tuple(value.shape) for name, value in inputs.items()}, attributes)
    types = {
        tensor.type_param: str(inputs[tensor.name].dtype).removeprefix("torch.")
        for tensor in reversed(spec.inputs)
        if tensor.name in inputs
    }
    if types not in [dict(row) for row in spec.type_rows]:
        allowed = "; ".join(", ".join(f"{k}={v}" for k, v in row.items()) for row in spec.type_rows)
        raise InvalidArgument(f"{spec.name} does not take element types {types}; wanted one of: {allowed}")
    for tensor in spec.inputs:
        dtype = str(inputs[tensor.name].dtype).removeprefix("torch.") if tensor.name in inputs else types[tensor.type_param]
        if dtype != types[tensor.type_param]:
            raise InvalidArgument(f"{spec.name} input {tensor.name} is {dtype}; wanted {types[tensor.type_param]}, as the other inputs")


def _define(spec: OpSpec, implementation: Callable[..., Tensor]) -> None:
    def eager(*arguments: Any) -> Tensor:
        inputs, attributes = split_arguments(spec, arguments)
        _check(spec, inputs, attributes)
        return implementation(*arguments)

    def fake(*arguments: Any) -> Tensor:
        inputs, attributes = split_arguments(spec, arguments)
        shape = spec.output_shapes({name: value.shape for name, value in inputs.items()}, attributes)[0]
        return inputs[spec.inputs[0].name].new_empty(shape)

    def save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.arguments = inputs

    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        needed = [isinstance(value, Tensor) and needs for value, needs in zip(ctx.arguments, ctx.needs_input_grad, strict=True)]
        with torch.enable_grad():
            leaves = [
                value.detach().requires_grad_(needs) if isinstance(value, Tensor) else value
                for value, needs in zip(ctx.arguments, needed, strict=True)
            ]
            output = implementation(*leaves)
        wanted = [leaf for leaf, needs in zip(leaves, needed, strict=True) if needs]
        gradients = iter(torch.autograd.grad(output, wanted, gradient, allow_unused=True))
        return tuple(next(gradients) if needs else None for needs in needed)

    op = torch.library.custom_op(f"{NAMESPACE}::{spec.snake_name}", eager, mutates_args=(), schema=schema_text(spec))
    op.register_fake(fake)
    op.register_autograd(backward, setup_context=save)


for _op in OPS:
    _define(_op.spec, IMPLEMENTATIONS[_op.spec.name])
