"""ONNX operator schemas and shape inference, derived from the op specs and registered with the onnx package.

After `register_schemas()`, `onnx.checker.check_model(model, full_check=True)` and `onnx.shape_inference.infer_shapes`
know the operators of domain `deploydcn`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import onnx
from onnx.defs import OpSchema

from deploydcn.errors import InvalidArgument
from deploydcn.ops import OPS
from deploydcn.spec import Attr, Expression, OpSpec, Tensor

DOMAIN = "deploydcn"
VERSION = 1

NAME_SCOPES = "pkg.torch.onnx.name_scopes"
"""Metadata of a node: the paths of the modules it was traced in, outermost first, and a name of its own, as a Python list."""

OUTPUT_SCOPES = "deploydcn.output_scopes"
"""The same for a node that ends in another module than it begins: a convolution with its norm and activation."""

Dimension = int | str | None
"""A known size, a symbolic size, or an unknown one."""

ONNX_TYPES = {
    "float32": "tensor(float)",
    "float64": "tensor(double)",
    "float16": "tensor(float16)",
    "bfloat16": "tensor(bfloat16)",
    "int64": "tensor(int64)",
    "uint8": "tensor(uint8)",
    "int8": "tensor(int8)",
    "int32": "tensor(int32)",
}


_registration = threading.Lock()
_checked: ContextVar[bool] = ContextVar("checked", default=True)


@contextlib.contextmanager
def unchecked_inference() -> Iterator[None]:
    """Shape inference that does not stop at nodes of ours that break their spec; what follows from them stays unknown."""
    token = _checked.set(False)
    try:
        yield
    finally:
        _checked.reset(token)


def register_schemas() -> None:
    """Register every operator with the onnx package, once per process."""
    with _registration:
        for op in OPS:
            if not onnx.defs.has(op.spec.name, DOMAIN):
                onnx.defs.register_schema(schema_of(op.spec))


def schema_of(spec: OpSpec) -> OpSchema:
    """The onnx schema of a spec, with its shape inference function."""
    schema = OpSchema(
        spec.name,
        DOMAIN,
        spec.since_version,
        spec.doc,
        inputs=[_formal(tensor) for tensor in spec.inputs],
        outputs=[_formal(tensor) for tensor in spec.outputs],
        type_constraints=[(param, [ONNX_TYPES[value] for value in spec.type_values(param)], "") for param in spec.type_rows[0]],
        attributes=[_attribute(attr) for attr in spec.attributes],
    )
    schema.set_type_and_shape_inference_function(lambda context: _infer(spec, context))
    return schema


def infer_dimensions(spec: OpSpec, shapes: Mapping[str, Sequence[Dimension]], attributes: Mapping[str, Any]) -> list[tuple[Dimension, ...]]:
    """Output shapes as far as partly known input shapes tell.

    A computed size that does not follow from numbers is taken from an input that bears the same axis (an offset's OH
    gives the output's OH).

    Raises:
        InvalidArgument: the input shapes are all known and contradict the spec.
    """
    if _checked.get() and all(isinstance(size, int) for shape in shapes.values() for size in shape):
        spec.bind(shapes, attributes)
    axes: dict[str, Dimension] = {}
    for attr in spec.attributes:
        value = spec.complete_attributes(attributes)[attr.name]
        if attr.axes and value is not None:
            axes.update(zip(attr.axes, value if isinstance(value, tuple) else (value,), strict=True))  # type: ignore[arg-type]
    for tensor in spec.inputs:
        for axis, size in zip(tensor.expressions, shapes.get(tensor.name, ()), strict=False):
            if axis.is_name and (axes.get(axis.text) is None or isinstance(size, int)) and size is not None:
                axes[axis.text] = size
    for name, text in spec.sizes.items():
        value = _evaluate(Expression(text), axes)
        axes[name] = value if value is not None else axes.get(name)
    return [tuple(axes.get(axis.text) if axis.is_name else _evaluate(axis, axes) for axis in tensor.expressions) for tensor in spec.outputs]


def _evaluate(expression: Expression, axes: Mapping[str, Dimension]) -> int | None:
    if all(isinstance(axes.get(name), int) for name in expression.names):
        return int(expression.evaluate(axes))
    return None


def _infer(spec: OpSpec, context: Any) -> None:
    shapes: dict[str, list[Dimension]] = {}
    types: dict[str, int] = {}
    for index in range(min(context.get_num_inputs(), len(spec.inputs))):
        tensor = spec.inputs[index]
        proto = context.get_input_type(index)
        if proto is None or not proto.HasField("tensor_type"):
            continue
        types.setdefault(tensor.type_param, proto.tensor_type.elem_type)
        if proto.tensor_type.HasField("shape"):
            shapes[tensor.name] = [_dimension(dim) for dim in proto.tensor_type.shape.dim]
    attributes = {}
    for attr in spec.attributes:
        proto = context.get_attribute(attr.name)
        if proto is not None and proto.name:
            attributes[attr.name] = onnx.helper.get_attribute_value(proto)
    known = all(tensor.optional or tensor.name in shapes for tensor in spec.inputs)
    try:
        outputs = infer_dimensions(spec, shapes, attributes) if known else [()] * len(spec.outputs)
    except InvalidArgument as error:
        if _checked.get():
            raise onnx.shape_inference.InferenceError(str(error)) from error
        known, outputs = False, [()] * len(spec.outputs)
    for index, (tensor, dimensions) in enumerate(zip(spec.outputs, outputs, strict=True)):
        result = onnx.TypeProto()
        result.tensor_type.elem_type = types.get(tensor.type_param, onnx.TensorProto.UNDEFINED)
        for size in dimensions if known else ():
            dim = result.tensor_type.shape.dim.add()
            if isinstance(size, int):
                dim.dim_value = size
            elif size is not None:
                dim.dim_param = size
        context.set_output_type(index, result)


def _dimension(dim: onnx.TensorShapeProto.Dimension) -> Dimension:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return dim.dim_param or None


def _formal(tensor: Tensor) -> OpSchema.FormalParameter:
    options = OpSchema.FormalParameterOption
    option = options.Optional if tensor.optional else options.Single
    return OpSchema.FormalParameter(tensor.name, tensor.type_param, tensor.doc, param_option=option)


def _attribute(attr: Attr) -> OpSchema.Attribute:
    kinds = {
        "int": OpSchema.AttrType.INT,
        "ints": OpSchema.AttrType.INTS,
        "float": OpSchema.AttrType.FLOAT,
        "string": OpSchema.AttrType.STRING,
    }
    if attr.default is None:
        return OpSchema.Attribute(attr.name, kinds[attr.kind], attr.doc, required=False)
    default = list(attr.default) if isinstance(attr.default, tuple) else attr.default
    return OpSchema.Attribute(attr.name, onnx.helper.make_attribute(attr.name, default), attr.doc)
