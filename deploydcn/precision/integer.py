"""8 bits as sources of noise: the weights of quantized layers, and every activation with a scale of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from deploydcn.errors import ExportError
from deploydcn.export.graph import constant, node_name, operator_name
from deploydcn.precision.lowering import Layer, Source, sources_by_place
from deploydcn.quantization.api import ACTIVATIONS, quantize
from deploydcn.quantization.data import ImageOptions, samples_of
from deploydcn.quantization.insertion import Scheme, along, whole_weights
from deploydcn.quantization.run import calibrate, observable, prepared
from deploydcn.quantization.selection import Selection, select
from deploydcn.runners import Runner, load


class IntegerLowering:
    """See Lowering. Everything but the source: as `deploydcn.quantize` takes it."""

    how_measured = "the file in ONNX Runtime"

    def __init__(
        self, source: Path, calibration: Any, *, target: str, method: str, images: ImageOptions, limit: int | None, progress: bool
    ):
        self.path, self.calibration = source, calibration
        self.options: dict[str, Any] = {"target": target, "method": method, "limit": limit, "size": images.size, "fit": images.fit}
        self.options |= {"mean": images.mean, "std": images.std}
        self.scheme = Scheme(ACTIVATIONS[target], 127)
        self.model, _ = prepared(source)
        selection = select(self.model, ())
        if not selection.layers:
            reasons = "; ".join(f"{node_name(node)}: {why}" for node, why in list(selection.kept.items())[:5])
            raise ExportError(
                f"{source} has no layer that could compute with 8 bits: {reasons or 'it has no convolutions or matrix products'}"
            )
        with tempfile.TemporaryDirectory() as folder:
            reference = observable(self.model, selection, Path(folder) / "float.onnx")
            samples = samples_of(calibration, reference.inputs, images, limit)
            ranges = calibrate(reference, self.model, selection, samples, method, progress=progress)
        self._parameters = {value.name or "": self.scheme.parameters(low, high) for value, (low, high) in ranges.items()}
        self._weights = {node.outputs[0].name or "": (node, where) for node, where in selection.layers.items()}
        found = _places(selection)
        self.sources: list[Source] = sources_by_place(found, self._rounded)
        self._index = {place: index for index, place in enumerate(found)}
        self.layers = [
            self._layer(node, selection) for node in self.model.graph.all_nodes() if node in selection.layers or node in selection.kept
        ]

    def active(self, exclude: Collection[str]) -> frozenset[int]:
        """See Lowering."""
        return frozenset(self._index[place] for place in _places(select(self.model, tuple(exclude))) if place in self._index)

    def rounding(self, value: str, exact: str, rounded: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """See Lowering."""
        scale, zero_point = (f"{rounded}/scale", f"{rounded}/zero_point")
        arrays = zip((scale, zero_point), self._parameters[value], strict=True)
        there = helper.make_node("QuantizeLinear", [exact, scale, zero_point], [f"{rounded}/8bit"])
        back = helper.make_node("DequantizeLinear", [f"{rounded}/8bit", scale, zero_point], [rounded])
        return [there, back], [numpy_helper.from_array(array, name) for name, array in arrays]

    def write(self, path: Path, exclude: Sequence[str]) -> None:
        """See Lowering."""
        quantize(self.path, path, self.calibration, exclude=exclude, **self.options)

    def load(self, path: Path) -> Runner:
        """See Lowering."""
        return load(path, "ort")

    def _rounded(self, value: str) -> Mapping[int, np.ndarray]:
        node, where = self._weights[value]
        array = constant(node.inputs[where.weight])
        assert array is not None
        whole, scale = whole_weights(array, where.axis, self.scheme.weight_limit)
        return {where.weight: whole.astype(np.float32) * along(scale, where.axis, array.ndim)}

    def _layer(self, node: ir.Node, selection: Selection) -> Layer:
        output, kept = node.outputs[0].name or "", selection.kept.get(node, "")
        x = node.inputs[0]
        places = [(output, True)] + ([] if x is None else [(_root(selection, x).name or "", False)])
        reads = tuple(self._index[place] for place in places if place in self._index and not kept)
        return Layer(node_name(node), operator_name(node), output, reads, kept)


def _places(selection: Selection) -> dict[tuple[str, bool], set[str]]:
    """(value, whether a layer's weights are meant) -> the nodes for whose sake it is rounded. Constants that are rounded as activations
    are left out: they have ranges of their own, and are few."""
    found: dict[tuple[str, bool], set[str]] = {(node.outputs[0].name or "", True): {node_name(node)} for node in selection.layers}
    for value in selection.activations:
        root = _root(selection, value)
        if root.const_value is None:
            around = [value.producer(), *(use.node for use in value.uses())]
            nodes = {node_name(node) for node in around if node is not None and _lowered(selection, node)}
            found.setdefault((root.name or "", False), set()).update(nodes | _clamped(selection, value))
    return found


def _lowered(selection: Selection, node: ir.Node) -> bool:
    """Whether a node is a quantized layer, or computes in 8 bits what flows between some."""
    return node in selection.layers or (node not in selection.kept and any(output in selection.activations for output in node.outputs))


def _clamped(selection: Selection, value: ir.Value) -> set[str]:
    """The layer behind a clamp whose output is rounded."""
    clamp = value.producer()
    source = clamp.inputs[0] if clamp is not None and clamp.op_type in ("Clip", "Relu") else None
    maker = source.producer() if source is not None else None
    return {node_name(maker)} if maker in selection.layers and maker is not None else set()


def _root(selection: Selection, value: ir.Value) -> ir.Value:
    """The activation whose scale one has."""
    while (other := selection.activations.get(value)) is not None:
        value = other
    return value
