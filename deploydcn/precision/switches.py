"""One model that rounds what it is told to: every source of noise behind a switch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from deploydcn.errors import InvalidArgument
from deploydcn.onnx_schema import DOMAIN
from deploydcn.precision.lowering import Lowering
from deploydcn.runners import Runner, load

SWITCHES = "deploydcn/switches"
PACKING = ("Conv", "ConvTranspose", "Gemm", "MatMul", "GRU", "LSTM", "RNN")
"""Operators, beside our own, whose weights ONNX Runtime brings into another order when they are constants."""

LARGEST_WEIGHTS = 600_000_000
"""Bytes of weights that a model may have: with their rounded copies they must fit one protobuf message, of 2 GiB."""


@dataclass(frozen=True)
class SwitchedModel:
    """runner: the model, with the outputs of its layers beside its own. outputs: its own, by name. local: of every layer, what its output
    is called before anything rounds it."""

    runner: Runner
    outputs: tuple[str, ...]
    local: Mapping[str, str]
    sources: int

    def run(self, feeds: Mapping[str, np.ndarray], on: Collection[int]) -> dict[str, np.ndarray]:
        """All outputs when the sources `on` are rounded."""
        switches = np.zeros(self.sources, np.bool_)
        switches[list(on)] = True
        return self.runner.run({**feeds, SWITCHES: switches})


def switched(lowering: Lowering) -> SwitchedModel:
    """Build it.

    Raises:
        InvalidArgument: the model is too large to exist twice in memory.
        RuntimeFailure: ONNX Runtime refuses the model.
    """
    weights = sum(value.const_value.nbytes for value in lowering.model.graph.initializers.values() if value.const_value is not None)
    if weights > LARGEST_WEIGHTS:
        raise InvalidArgument(f"the model has {weights / 1e6:.0f} MB of weights; wanted at most {LARGEST_WEIGHTS / 1e6:.0f}")
    ir.external_data.load_to_model(lowering.model)
    proto = ir.to_proto(lowering.model)
    editor = _Editor(proto, lowering)
    editor.edit()
    outputs = tuple(value.name for value in proto.graph.output)
    local = {layer.node: editor.exact.get(layer.output, layer.output) for layer in lowering.layers if not layer.kept}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(local.values()) if name not in outputs)
    return SwitchedModel(load(proto, "ort"), outputs, local, len(lowering.sources))


class _Editor:
    """exact: what an activation is called before it is rounded; readers see its old name."""

    def __init__(self, proto: onnx.ModelProto, lowering: Lowering) -> None:
        self.graph, self.lowering = proto.graph, lowering
        self.exact: dict[str, str] = {}
        self._activations = {source.value: index for index, source in enumerate(lowering.sources) if not source.constants}
        self._constants = {source.value: index for index, source in enumerate(lowering.sources) if source.constants}
        self._renamed: dict[str, str] = {}
        self._nodes: list[onnx.NodeProto] = []

    def edit(self) -> None:
        """Rewrite the graph."""
        nodes = list(self.graph.node)
        for value in list(self.graph.input):
            if value.name in self._activations:  # an input keeps its name: its readers learn another
                self._renamed[value.name] = f"{value.name}/switched"
                self._switch(self._activations[value.name], value.name, value.name, self._renamed[value.name])
        self.graph.input.append(helper.make_tensor_value_info(SWITCHES, TensorProto.BOOL, [len(self.lowering.sources)]))
        for node in nodes:
            node.input[:] = [self._renamed.get(name, name) for name in node.input]
            place = node.output[0] if node.output else ""
            rounded = [(at, name) for at, name in enumerate(node.output) if name in self._activations]
            for at, name in rounded:
                node.output[at] = self.exact[name] = f"{name}/exact"
            if place in self._constants:
                self._switch_constants(node, self._constants[place])
            else:
                self._nodes.append(node)
            for _, name in rounded:
                self._switch(self._activations[name], name, self.exact[name], name)
        del self.graph.node[:]
        self.graph.node.extend(self._nodes)

    def _switch(self, index: int, value: str, exact: str, result: str) -> None:
        rounded = f"{value}/rounded"
        nodes, constants = self.lowering.rounding(value, exact, rounded)
        self._nodes += nodes
        self.graph.initializer.extend(constants)
        self._choose(index, rounded, exact, result)

    def _switch_constants(self, node: onnx.NodeProto, index: int) -> None:
        """A choice of constants; where runtimes pack them, which they do with true constants only, the node twice and a choice of what it
        returns."""
        constants = {at: f"{node.output[0]}/constant_{at}" for at in self.lowering.sources[index].constants}
        for at, array in self.lowering.sources[index].constants.items():
            self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), constants[at]))
        if node.op_type not in PACKING and node.domain != DOMAIN:
            for at, rounded in constants.items():
                self._choose(index, rounded, node.input[at], f"{node.output[0]}/chosen_{at}")
                node.input[at] = f"{node.output[0]}/chosen_{at}"
            self._nodes.append(node)
            return
        other = onnx.NodeProto()
        other.CopyFrom(node)
        other.name = f"{node.name}/rounded"
        for at, rounded in constants.items():
            other.input[at] = rounded
        results = list(node.output)
        for at, name in enumerate(results):
            if name:
                node.output[at], other.output[at] = f"{name}/plain", f"{name}/of_rounded"
        self._nodes += [node, other]
        for at, name in enumerate(results):
            if name:
                self._choose(index, other.output[at], node.output[at], name)

    def _choose(self, index: int, rounded: str, exact: str, result: str) -> None:
        """result = rounded where the switch is on, else exact."""
        self.graph.initializer.append(numpy_helper.from_array(np.array(index, np.int64), f"{result}/index"))
        self._nodes.append(helper.make_node("Gather", [SWITCHES, f"{result}/index"], [f"{result}/on"]))
        self._nodes.append(helper.make_node("Where", [f"{result}/on", rounded, exact], [result]))
