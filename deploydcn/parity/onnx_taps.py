"""Intermediate values of ONNX graphs: read off as further outputs, replaced by cutting the graph there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from deploydcn.parity.onnx_graph import OnnxGraph, operator_type, recomputed_name
from deploydcn.parity.taps import Arrays, OnnxPart, OnnxRunner, Operator, Tap, nearest

LONGEST_ATTRIBUTE = 64
"""Elements beyond which an attribute is told by its size only."""


class OnnxTaps:
    """See Taps. feeds: by the graph's own names."""

    def __init__(self, runner: OnnxRunner, feeds: Arrays) -> None:
        self.runner, self.feeds = runner, feeds
        self.graph = OnnxGraph(runner.onnx_model())

    @property
    def outputs(self) -> Mapping[str, str]:
        return {name: name for name in self.graph.outputs if name in self.taps}

    def module_outputs(self) -> Mapping[str, list[str]]:
        found = {path: [name for name in names if name in self.taps] for path, names in self.graph.module_outputs.items()}
        return {path: names for path, names in found.items() if names}

    @cached_property
    def taps(self) -> Mapping[str, Tap]:
        types, graph = self.graph.types(self.feeds), self.graph
        every = {
            name: Tap(name, graph.path(name), graph.sources(name), graph.kind(name), *_described(types.get(name))) for name in graph.values
        }
        seen = {name: tap for name, tap in every.items() if _is_observable(types.get(name))}
        return {name: replace(tap, sources=nearest(every, name, seen.__contains__)) for name, tap in seen.items()}

    def observe(self, names: Iterable[str]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """See Taps.observe."""
        wanted = list(names)
        results = self.runner.reopen(self.graph.observed(wanted)).run(self.feeds)
        return {name: results[name] for name in self.graph.outputs}, {name: results[name] for name in wanted}

    def recompute(self, given: Arrays, names: Sequence[str]) -> dict[str, np.ndarray]:
        """See Taps.recompute. One session computes all, each from what is given next before it."""
        part = self.graph.cut(names, given)
        results = self.runner.reopen(part).run(self._inputs(part, given))
        return {name: results[recomputed_name(name, given)] for name in names}

    def part(self, name: str, given: Arrays) -> OnnxPart:
        """See Taps.part. Weights that lie in other files are taken along."""
        part = self.graph.cut([name], given)
        folder = getattr(self.runner, "weights_folder", None)
        if folder is not None:
            onnx.load_external_data_for_model(part, str(folder))
        return OnnxPart(part, self._inputs(part, given), getattr(self.runner, "replace_standard", False))

    def _inputs(self, part: onnx.ModelProto, given: Arrays) -> dict[str, np.ndarray]:
        return {value.name: given[value.name] if value.name in given else self.feeds[value.name] for value in part.graph.input}

    def operators(self, name: str, given: Iterable[str]) -> tuple[Operator, ...]:
        """See Taps.operators. Nodes that compute constants are left out."""
        steps = self.graph.steps(name, set(given))
        return tuple(self._operator(index) for index in steps if self.graph.dynamic & set(self.graph.nodes[index].output))

    def parameter(self, name: str) -> np.ndarray | None:
        """See Taps.parameter."""
        tensor = next((tensor for tensor in self.graph.model.graph.initializer if tensor.name == name), None)
        if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
            return None
        return onnx.numpy_helper.to_array(tensor)

    def _operator(self, index: int) -> Operator:
        node = self.graph.nodes[index]
        attributes = {attribute.name: _attribute(attribute) for attribute in node.attribute}
        parameters = tuple(name for name in node.input if name in self.graph.weights)
        return Operator(node.name or node.output[0], operator_type(node), self.graph.node_path(index), attributes, parameters)


def _is_observable(kind: onnx.TypeProto | None) -> bool:
    """Whether ONNX Runtime hands values of this type to NumPy: tensors of its own types, so neither bfloat16 nor sequences."""
    if kind is None or kind.WhichOneof("value") is None:
        return True
    if kind.WhichOneof("value") != "tensor_type":
        return False
    dtype = _dtype(kind)
    return dtype is None or dtype.kind in "fiubc"


def _described(kind: onnx.TypeProto | None) -> tuple[tuple[int, ...] | None, np.dtype[Any] | None]:
    """Shape and type, as far as they are known."""
    if kind is None or kind.WhichOneof("value") != "tensor_type":
        return None, None
    tensor = kind.tensor_type
    known = tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim)
    return tuple(dim.dim_value for dim in tensor.shape.dim) if known else None, _dtype(kind)


def _dtype(kind: onnx.TypeProto) -> np.dtype[Any] | None:
    code = kind.tensor_type.elem_type
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(code)) if code else None


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, onnx.TensorProto):
        return f"tensor {list(value.dims)}"
    if isinstance(value, onnx.GraphProto):
        return f"graph of {len(value.node)} nodes"
    if not isinstance(value, int | float):
        return list(value) if len(value) <= LONGEST_ATTRIBUTE else f"{len(value)} values"
    return value
