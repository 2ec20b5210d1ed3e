"""The operators as torch operators `torch.ops.deploydcn.<op>`, derived from their specs.

The spec gives the schema and the fake implementation (so that torch.export traces them with dynamic shapes);
`deploydcn.nn.eager` gives the computation, and autograd differentiates that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from deploydcn.errors import InvalidArgument
from deploydcn.nn.eager import IMPLEMENTATIONS
from deploydcn.ops import OPS
from deploydcn.spec import Attr, OpSpec

NAMESPACE = "deploydcn"


def python_attributes(spec: OpSpec) -> tuple[Attr, ...]:
    """The attributes that are arguments in Python; the others (kernel_shape) follow from the tensors."""
    return tuple(attr for attr in spec.attributes if attr.python_name)


def is_differentiable(spec: OpSpec) -> bool:
    """Whether its outputs are real numbers: rounding to integers has no gradient."""
    return all("float" in value for tensor in spec.outputs for value in spec.type_values(tensor.type_param))


def schema_text(spec: OpSpec) -> str:
    """The torch schema: tensors in the spec's order, then attributes with their defaults."""
    types = {"int": "int", "ints": "int[]", "float": "float", "string": "str"}
    tensors = [f"Tensor? {tensor.python_name}" if tensor.optional else f"Tensor {tensor.python_name}" for tensor in spec.inputs]
    attributes = [f"{types[attr.kind]} {attr.python_name}" for attr in python_attributes(spec)]
    results = ", ".join(["Tensor"] * len(spec.outputs))
    return f"({', '.join(tensors + attributes)}) -> {results if len(spec.outputs) == 1 else f'({results})'}"


def split_arguments(spec: OpSpec, arguments: Sequence[Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Positional arguments of the torch operator as (inputs by ONNX name, ONNX attributes)."""
    count = len(spec.inputs)
    inputs = {tensor.name: value for tensor, value in zip(spec.inputs, arguments[:count], strict=True) if value is not None}
    values = zip(python_attributes(spec), arguments[count:], strict=True)
    return inputs, {attr.name: tuple(value) if isinstance(value, list | tuple) else value for attr, value in values}


def call_with_onnx_names(spec: OpSpec, inputs: Mapping[str, Tensor], attributes: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Call the torch operator with ONNX names; missing optional inputs and attributes take their defaults."""
    complete = spec.complete_attributes(attributes)
    tensors = [inputs.get(tensor.name) for tensor in spec.inputs]
    values = [complete[attr.name] for attr in python_attributes(spec)]
    arguments = [list(value) if isinstance(value, tuple) else value for value in values]
    return _as_tuple(getattr(getattr(torch.ops, NAMESPACE), spec.snake_name)(*tensors, *arguments))


def _as_tuple(result: Any) -> tuple[Tensor, ...]:
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def _check(spec: OpSpec, inputs: Mapping[str, Tensor], attributes: Mapping[str, Any]) -> None:
    spec.bind({name: tuple(value.shape) for name, value in inputs.items()}, attributes)
    types = {
        tensor.type_param: str(inputs[tensor.name].dtype).removeprefix("torch.")
        for tensor in reversed(spec.inputs)
        if tensor.name in inputs
    }
    if not any(types.items() <= row.items() for row in spec.type_rows):  # absent inputs leave their parameter open
        allowed = "; ".join(", ".join(f"{k}={v}" for k, v in row.items()) for row in spec.type_rows)
        raise InvalidArgument(f"{spec.name} does not take element types {types}; wanted one of: {allowed}")
    for tensor in spec.inputs:
        dtype = str(inputs[tensor.name].dtype).removeprefix("torch.") if tensor.name in inputs else ""
        if dtype and dtype != types[tensor.type_param]:
            raise InvalidArgument(f"{spec.name} input {tensor.name} is {dtype}; wanted {types[tensor.type_param]}, as the other inputs")


def _without_autocast(input: Tensor) -> torch.autocast:
    """Autocast reaches into custom operators, forward and backward: there it would round what they keep in float32."""
    return torch.autocast(input.device.type, enabled=False)


def _define(spec: OpSpec, implementation: Callable[..., Any]) -> None:
    def eager(*arguments: Any) -> Any:
        inputs, attributes = split_arguments(spec, arguments)
        _check(spec, inputs, attributes)
        with _without_autocast(arguments[0]):
            outputs = tuple(output.contiguous() for output in _as_tuple(implementation(*arguments)))  # as `fake` promises
        return outputs if len(outputs) > 1 else outputs[0]

    def fake(*arguments: Any) -> Any:
        inputs, attributes = split_arguments(spec, arguments)
        shapes = spec.output_shapes({name: value.shape for name, value in inputs.items()}, attributes)
        outputs = tuple(inputs[spec.inputs[0].name].new_empty(shape) for shape in shapes)
        return outputs if len(outputs) > 1 else outputs[0]

    def save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.arguments = inputs

    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        needed = [isinstance(value, Tensor) and needs for value, needs in zip(ctx.arguments, ctx.needs_input_grad, strict=True)]
        with _without_autocast(ctx.arguments[0]):
            with torch.enable_grad():
                leaves = [
                    value.detach().requires_grad_(needs) if isinstance(value, Tensor) else value
                    for value, needs in zip(ctx.arguments, needed, strict=True)
                ]
                outputs = _as_tuple(implementation(*leaves))
            wanted = [leaf for leaf, needs in zip(leaves, needed, strict=True) if needs]
            differentiable = [(y, dy) for y, dy in zip(outputs, gradients, strict=True) if y.requires_grad]
            results, seeds = [y for y, _ in differentiable], [dy for _, dy in differentiable]
            found = iter(torch.autograd.grad(results, wanted, seeds, materialize_grads=True))
        return tuple(next(found) if needs else None for needs in needed)

    op = torch.library.custom_op(f"{NAMESPACE}::{spec.snake_name}", eager, mutates_args=(), schema=schema_text(spec))
    op.register_fake(fake)
    if is_differentiable(spec):
        op.register_autograd(backward, setup_context=save)


for _op in OPS:
    _define(_op.spec, IMPLEMENTATIONS[_op.spec.name])
