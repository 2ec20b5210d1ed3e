"""Half precision as sources of noise: the weights of converted nodes, and every value that is new in half precision."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper

from deploydcn.errors import ExportError, InvalidArgument
from deploydcn.export.graph import constant, node_name, operator_name
from deploydcn.export.half import prepare
from deploydcn.export.half_rules import LARGEST, MAKERS, MOVEMENT, Rules
from deploydcn.export.precision import checked_model, convert_precision
from deploydcn.precision.emulation import in_float32
from deploydcn.precision.lowering import Layer, Source, sources_by_place
from deploydcn.runners import Runner, load

EXACT = (MOVEMENT - {"Concat"}) | {"Abs", "MaxPool", "Neg", "Relu"}
"""Of rounded values these compute rounded values: nothing new is rounded behind them."""


METHOD = "each value of the file rounded between operators in float32, as GPUs do; ONNX Runtime leaves such roundings out on processors"


class HalfLowering:
    """See Lowering. dtype: "float16" or "bfloat16"."""

    how_measured = METHOD

    def __init__(self, source: Path, dtype: str) -> None:
        self.path, self.dtype, self.half = source, dtype, ir.DataType[dtype.upper()]
        self.model = checked_model(source)
        if any(value.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16) for value in self.model.graph.initializers.values()):
            raise InvalidArgument(f"{source} holds half precision already; wanted a float32 file")
        prepare(self.model, dtype)
        self._plain = rules = self._rules(())
        self._nodes = {node.outputs[0].name or "": node for node in self.model.graph if node.outputs}
        found = self._places(rules)
        self.sources: list[Source] = sources_by_place(found, self._rounded)
        self._index = {place: index for index, place in enumerate(found)}
        self.layers = [self._layer(node, rules) for node in self.model.graph if node.op_type in MAKERS]
        if not any(not layer.kept for layer in self.layers):
            reasons = "; ".join(f"{layer.node}: {layer.kept}" for layer in self.layers[:5]) or "it has no convolutions or matrix products"
            raise ExportError(f"{source} has no layer that could compute in {dtype}: {reasons}")

    def active(self, exclude: Collection[str]) -> frozenset[int]:
        """See Lowering."""
        return frozenset(self._index[place] for place in self._places(self._rules(exclude)) if place in self._index)

    def rounding(self, value: str, exact: str, rounded: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """See Lowering."""
        low = f"{rounded}/{self.dtype}"
        there = helper.make_node("Cast", [exact], [low], to=int(self.half))
        return [there, helper.make_node("Cast", [low], [rounded], to=TensorProto.FLOAT)], []

    def write(self, path: Path, exclude: Sequence[str]) -> None:
        """See Lowering."""
        convert_precision(self.path, path, dtype=self.dtype, exclude=exclude)

    def load(self, path: Path) -> Runner:
        """See Lowering."""
        return load(in_float32(path), "ort")

    def _rules(self, exclude: Collection[str]) -> Rules:
        rules = Rules(self.model, self.half, tuple(exclude))
        rules.decide()
        return rules

    def _places(self, rules: Rules) -> dict[tuple[str, bool], set[str]]:
        """(value, whether constants of its node are meant) -> the nodes that make it half precision."""
        found: dict[tuple[str, bool], set[str]] = {}
        for node in self.model.graph:
            if not rules.converted_params(node):
                continue
            values = [value for value in node.outputs if rules.lowered(value)]
            for index, value in enumerate(node.inputs):
                if value is None or value.dtype != ir.DataType.FLOAT or rules.wanted(node, index) != self.half:
                    continue
                if value.const_value is None:
                    values.append(value)
                elif node.outputs:
                    found.setdefault((node.outputs[0].name or "", True), set()).add(node_name(node))
            for value in values:
                found.setdefault((_origin(value).name or "", False), set()).add(node_name(node))
        return found

    def _rounded(self, value: str) -> dict[int, np.ndarray]:
        node, limit = self._nodes[value], LARGEST.get(self.half, np.inf)
        rounded: dict[int, np.ndarray] = {}
        for index, item in enumerate(node.inputs):
            array = constant(item)
            if item is not None and array is not None and item.dtype == ir.DataType.FLOAT and self._plain.wanted(node, index) == self.half:
                clamped = np.where(np.isfinite(array), np.clip(array, -limit, limit), array)
                rounded[index] = clamped.astype(self.half.numpy()).astype(np.float32)
        return rounded

    def _layer(self, node: ir.Node, rules: Rules) -> Layer:
        kept = rules.kept.get(node, "" if rules.converted_params(node) else "not float32")
        output = node.outputs[0].name or ""
        places = [(output, True), *((_origin(value).name or "", False) for value in node.inputs if value is not None)]
        reads = tuple(dict.fromkeys(self._index[place] for place in places if place in self._index and not kept))
        return Layer(node_name(node), operator_name(node), output, reads, kept)


def _origin(value: ir.Value) -> ir.Value:
    """Where a value was rounded last."""
    node = value.producer()
    while node is not None and node.domain == "" and node.op_type in EXACT and node.inputs[0] is not None:
        if node.inputs[0].const_value is not None or node.inputs[0].dtype != ir.DataType.FLOAT:
            break
        value = node.inputs[0]
        node = value.producer()
    return value
