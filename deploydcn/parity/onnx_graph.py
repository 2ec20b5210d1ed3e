"""An ONNX graph as a network of values: who computes and who reads each, from which module it comes, and parts cut out of it."""

from __future__ import annotations

import ast
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import onnx
from onnx import TensorProto, helper

from deploydcn.onnx_schema import DOMAIN, NAME_SCOPES, OUTPUT_SCOPES, register_schemas, unchecked_inference

RECOMPUTED = "__recomputed"
"""Appended to a value that is computed anew although it is given."""

SMALL = 1024
"""Elements up to which a constant may be a shape, which shape inference reads."""

WEIGHTS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8, TensorProto.UINT8}
"""Types of weights, as opposed to those of sizes and axes."""

Path = tuple[str, ...]
"""Modules, outermost first: ("layer1", "layer1.0", "layer1.0.bn1")."""


class OnnxGraph:
    """Reads a ModelProto; never changes it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.producer = {name: index for index, node in enumerate(self.nodes) for name in node.output if name}
        constants = {tensor.name for tensor in model.graph.initializer} | {tensor.values.name for tensor in model.graph.sparse_initializer}
        self.weights = {tensor.name for tensor in model.graph.initializer if tensor.data_type in WEIGHTS}
        self.inputs = tuple(value.name for value in model.graph.input if value.name not in constants)
        self.outputs = tuple(value.name for value in model.graph.output)
        self.reads = [tuple(dict.fromkeys(_reads(node))) for node in self.nodes]
        self.readers: dict[str, list[int]] = {}
        for index, names in enumerate(self.reads):
            for name in names:
                self.readers.setdefault(name, []).append(index)
        self.dynamic = self._dynamic()

    def _dynamic(self) -> set[str]:
        """Names of all that depends on the inputs, or is drawn at random."""
        dynamic = set(self.inputs)
        for node, names in zip(self.nodes, self.reads, strict=True):
            if dynamic & set(names) or node.op_type.startswith("Random"):
                dynamic.update(name for name in node.output if name)
        return dynamic

    @cached_property
    def values(self) -> tuple[str, ...]:
        """What nodes compute from the inputs, in order."""
        return tuple(name for node in self.nodes for name in node.output if name in self.dynamic)

    def sources(self, name: str) -> tuple[str, ...]:
        """What the node of a value reads that depends on the inputs."""
        return tuple(source for source in self.reads[self.producer[name]] if source in self.dynamic)

    def kind(self, name: str) -> str:
        """The operator that computes a value: "Conv", "deploydcn::DeformConv2d"."""
        return operator_type(self.nodes[self.producer[name]])

    def steps(self, name: str, given: Collection[str]) -> list[int]:
        """Indices of the nodes that compute a value when others are given, constants' included."""
        found: set[int] = set()
        pending = [self.producer[name]]
        while pending:
            index = pending.pop()
            if index in found:
                continue
            found.add(index)
            pending += [self.producer[source] for source in self.reads[index] if source in self.producer and source not in given]
        return sorted(found)

    # ------------------------------------------------------------------------------------------------------ modules
    @cached_property
    def _scopes(self) -> list[tuple[Path, Path]]:
        """Of every node: the modules in which it begins, and those whose output it computes. Where an exporter left none, what the
        nodes around have in common."""
        scopes: list[tuple[Path, Path] | None] = []
        for node in self.nodes:
            metadata = {entry.key: entry.value for entry in node.metadata_props}
            start = _path(metadata[NAME_SCOPES]) if NAME_SCOPES in metadata else _path_in_name(node.name)
            end = _path(metadata[OUTPUT_SCOPES]) if OUTPUT_SCOPES in metadata else start
            scopes.append(None if start is None or end is None else (start, end))
        missing = [index for index, scope in enumerate(scopes) if scope is None]
        found = True
        while found:  # a chain of such nodes is filled in from its ends
            found = False
            for index in missing:
                paths = [scope[0] for other in self._around(index) if (scope := scopes[other]) is not None]
                if scopes[index] is None and paths:
                    found, common = True, _common(paths)
                    scopes[index] = common, common
        return [((), ()) if scope is None else scope for scope in scopes]

    def _around(self, index: int) -> Iterator[int]:
        yield from (self.producer[name] for name in self.reads[index] if name in self.producer)
        yield from (reader for name in self.nodes[index].output for reader in self.readers.get(name, ()))

    def path(self, name: str) -> str:
        """The module whose output a value may be, "" where none is known."""
        return (*("",), *self._scopes[self.producer[name]][1])[-1]

    def node_path(self, index: int) -> str:
        """The module in which a node begins, "" where none is known. A convolution that took in its norm is recorded under the norm: there
        its weight's name tells, "layer1.0.conv2.weight" beside "layer1.0.bn2"."""
        path = (*("",), *self._scopes[index][0])[-1]
        parent = path.rpartition(".")[0]
        owners = [name.rpartition(".")[0] for name in self.nodes[index].input if name in self.weights]
        return next((owner for owner in owners if owner and path and owner.rpartition(".")[0] == parent), path)

    @cached_property
    def module_outputs(self) -> dict[str, list[str]]:
        """Module path -> the values that leave it, in order: those of all its calls."""
        found: dict[str, list[str]] = {}
        outputs = set(self.outputs)
        for name in self.values:
            readers = [index for index in self.readers.get(name, ()) if self.nodes[index].op_type not in ("Shape", "Size")]
            for module in self._scopes[self.producer[name]][1]:
                if name in outputs or any(module not in self._scopes[reader][0] for reader in readers):
                    found.setdefault(module, []).append(name)
        return found

    # --------------------------------------------------------------------------------------------------------- parts
    def cut(self, names: Sequence[str], given: Mapping[str, np.ndarray]) -> onnx.ModelProto:
        """A model of the nodes that compute `names` from the given values and the graph's inputs, all of which are its inputs if they
        are read. A value that is both given and wanted is its own input and, renamed, an output."""
        steps = sorted({index for name in names for index in self.steps(name, given)})
        read = {name for index in steps for name in self.reads[index]}
        graph = onnx.GraphProto(name=self.model.graph.name or "part")
        for index in steps:
            node = graph.node.add()
            node.CopyFrom(self.nodes[index])
            node.output[:] = [name + RECOMPUTED if name in given else name for name in node.output]
        graph.initializer.extend(tensor for tensor in self.model.graph.initializer if tensor.name in read)
        graph.sparse_initializer.extend(tensor for tensor in self.model.graph.sparse_initializer if tensor.values.name in read)
        graph.input.extend(value for value in self.model.graph.input if value.name in read)
        graph.input.extend(tensor_value(name, array) for name, array in given.items() if name in read and name not in self.inputs)
        graph.output.extend(onnx.ValueInfoProto(name=recomputed_name(name, given)) for name in names)
        return self._with_graph(graph)

    def observed(self, names: Iterable[str]) -> onnx.ModelProto:
        """The whole model with more outputs."""
        model = self._with_graph(self.model.graph)
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in self.outputs)
        return model

    def _with_graph(self, graph: onnx.GraphProto) -> onnx.ModelProto:
        model = onnx.ModelProto(ir_version=self.model.ir_version, opset_import=self.model.opset_import, functions=self.model.functions)
        model.graph.CopyFrom(graph)
        return model

    @property
    def has_own_operators(self) -> bool:
        """Whether a runtime needs deploydcn's library."""
        return any(node.domain == DOMAIN for node in self.nodes)

    def types(self, feeds: Mapping[str, np.ndarray]) -> dict[str, onnx.TypeProto]:
        """Types and sizes of the values, as far as shape inference tells for inputs of these shapes."""
        register_schemas()
        graph = self.model.graph
        light = onnx.GraphProto(name="shapes", node=graph.node, output=[onnx.ValueInfoProto(name=name) for name in self.outputs])
        light.input.extend(tensor_value(name, feeds[name]) for name in self.inputs)
        for tensor in graph.initializer:
            if math.prod(tensor.dims) <= SMALL and tensor.data_location != TensorProto.EXTERNAL:
                light.initializer.append(tensor)
            else:
                light.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
        try:
            with unchecked_inference():
                inferred = onnx.shape_inference.infer_shapes(self._with_graph(light), data_prop=True)
        except Exception:  # several C++ classes: types only help to plan, and a model need not be valid ONNX to be run
            return {value.name: value.type for value in graph.value_info}
        return {value.name: value.type for value in (*inferred.graph.value_info, *inferred.graph.output)}


def operator_type(node: onnx.NodeProto) -> str:
    """ "Conv", or "deploydcn::DeformConv2d"."""
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def recomputed_name(name: str, given: Collection[str]) -> str:
    """What `cut` calls an output."""
    return name + RECOMPUTED if name in given else name


def tensor_value(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
    """A graph input of an array's type and shape."""
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, those that its subgraphs take from outside included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else [])):
            own = {value.name for value in (*graph.input, *graph.initializer)} | {name for inner in graph.node for name in inner.output}
            wanted = [name for inner in graph.node for name in _reads(inner)] + [value.name for value in graph.output]
            yield from (name for name in wanted if name not in own)


def _path(text: str) -> Path | None:
    """The record of a node as modules; None where it cannot be read."""
    try:
        scopes = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
    return tuple(scope for scope in scopes[:-1] if scope and not scope.startswith("_empty_nn_module_stack"))


def _path_in_name(name: str) -> Path | None:
    """The modules in a node's name as torch.onnx's older exporter writes them: "/layer1/layer1.0/conv1/Conv"."""
    parts = name.split("/")
    if parts[0] or len(parts) < 3:
        return None
    path: list[str] = []
    for part in parts[1:-1]:
        path.append(part if not path or part.startswith(f"{path[-1]}.") else f"{path[-1]}.{part}")
    return tuple(path)


def _common(paths: Sequence[Path]) -> Path:
    common: list[str] = []
    for level in zip(*paths, strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    return tuple(common)
