"""One function per backend: inputs of a case -> all outputs, in the case's own types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from deploydcn.ops import Op
from deploydcn.runners import load
from tests.conformance.single_node import is_constant, single_node_model

Inputs = Mapping[str, np.ndarray]
Backend = Callable[[Op, Inputs, Mapping[str, Any], Mapping[str, str]], list[np.ndarray]]


def numpy_dtype(name: str) -> np.dtype[Any]:
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def _feed(inputs: Inputs) -> dict[str, np.ndarray]:
    return {name: value.astype(np.float32) if value.dtype == ml_dtypes.bfloat16 else value for name, value in inputs.items()}


def ort(op: Op, inputs: Inputs, attributes: Mapping[str, Any], types: Mapping[str, str]) -> list[np.ndarray]:
    """Weights constant, data sizes symbolic: as in an exported model."""
    constants = {name: value for name, value in inputs.items() if is_constant(name)}
    shapes = {name: value.shape if name in constants else tuple(f"{name}{i}" for i in range(value.ndim)) for name, value in inputs.items()}
    model = single_node_model(op.spec, shapes, attributes, types, constants=constants)
    result = load(model, "ort", threads=2).run(_feed({k: v for k, v in inputs.items() if k not in constants}))
    return [result[tensor.name] for tensor in op.spec.outputs]


def ort_variable_weight(op: Op, inputs: Inputs, attributes: Mapping[str, Any], types: Mapping[str, str]) -> list[np.ndarray]:
    """Every input fed, every size known at load time."""
    model = single_node_model(op.spec, {name: value.shape for name, value in inputs.items()}, attributes, types)
    result = load(model, "ort", threads=1).run(_feed(inputs))
    return [result[tensor.name] for tensor in op.spec.outputs]


def torch(op: Op, inputs: Inputs, attributes: Mapping[str, Any], types: Mapping[str, str]) -> list[np.ndarray]:
    import torch as pytorch

    from deploydcn.nn.torch_ops import call_with_onnx_names

    dtypes = {name: getattr(pytorch, types[tensor.type_param]) for tensor in op.spec.inputs if (name := tensor.name) in inputs}
    tensors = {name: pytorch.from_numpy(value.astype(np.float64)).to(dtypes[name]) for name, value in inputs.items()}
    outputs = call_with_onnx_names(op.spec, tensors, attributes)
    assert all(output.dtype == dtypes[op.spec.inputs[0].name] for output in outputs)
    return [np.asarray((output.to(pytorch.float64) if output.is_floating_point() else output).numpy()) for output in outputs]


BACKENDS: dict[str, Backend] = {"ort": ort, "ort_variable_weight": ort_variable_weight, "torch": torch}
