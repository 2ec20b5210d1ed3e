"""Float32 to half precision on onnx_ir models: every type explicit, as strongly typed networks want it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveUnusedNodesPass, ShapeInferencePass

from deploydcn.errors import InvalidArgument
from deploydcn.export.half_rules import LARGEST, Rules, param_at, schema_of
from deploydcn.export.standard import BFLOAT16_OPSET, from_standard
from deploydcn.onnx_schema import register_schemas, unchecked_inference

SUFFIX = {ir.DataType.FLOAT16: "fp16", ir.DataType.BFLOAT16: "bf16", ir.DataType.FLOAT: "fp32"}

CHANGED_BEFORE_BFLOAT16 = {"GridSample": 20, "DFT": 20, "GroupNormalization": 21}
"""Operators that mean something else from this opset on; all others between 19 and 22 only took on types."""


@dataclass(frozen=True)
class Conversion:
    """What a conversion did. kept: reason -> names of the nodes that stay in float32."""

    converted: int
    kept: Mapping[str, tuple[str, ...]]
    casts: int
    notes: tuple[str, ...]


def to_half(model: ir.Model, dtype: str, *, keep_io_types: bool = True, exclude: Sequence[str] = ()) -> Conversion:
    """Convert a model in place; see `deploydcn.export.half_rules` for what stays in float32.

    dtype: "float16" or "bfloat16". keep_io_types: inputs and outputs keep float32. Files in half precision already, or
    converted before, stay as they are. exclude: names of nodes, or patterns, that stay in float32.

    Raises:
        InvalidArgument: bfloat16 in a file of an opset that has none, or a name that no node has.
    """
    notes = prepare(model, dtype)
    rules = Rules(model, ir.DataType[dtype.upper()], exclude)
    rules.decide()
    writer = _Writer(rules)
    writer.convert(keep_io_types=keep_io_types)
    RemoveUnusedNodesPass()(model)
    kept: dict[str, tuple[str, ...]] = {}
    for node, reason in rules.kept.items():
        if any(value is not None and value.dtype == ir.DataType.FLOAT for value in (*node.inputs, *node.outputs)):
            kept[reason] = (*kept.get(reason, ()), node.name or node.op_type)
    reasons = ", ".join(f"{len(names)} for {reason}" for reason, names in kept.items()) or "none"
    notes.append(f"{dtype}: {writer.converted} nodes converted; kept in float32: {reasons}; {writer.casts} casts added")
    return Conversion(writer.converted, kept, writer.casts, (*notes, *writer.notes))


def prepare(model: ir.Model, dtype: str) -> list[str]:
    """Bring a model, in place, to where `Rules` can decide: operators that mix types, constants and types known. Returns notes.

    Raises:
        InvalidArgument: bfloat16 in a file of an opset that has none.
    """
    register_schemas()
    notes = from_standard(model)  # DeformConv has one type for data and offset; ours takes float32 offsets beside half-precision data
    if ir.DataType[dtype.upper()] == ir.DataType.BFLOAT16:
        notes += _raise_opset(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    with unchecked_inference():
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    return notes


def _raise_opset(model: ir.Model) -> list[str]:
    opset = model.opset_imports.get("", 0)
    if opset >= BFLOAT16_OPSET:
        return []
    changed = [
        node.op_type for node in model.graph.all_nodes() if node.domain == "" and CHANGED_BEFORE_BFLOAT16.get(node.op_type, 0) > opset
    ]
    if opset < 19 or changed:
        what = f"{changed[0]} changed its meaning since" if changed else "operators changed their meaning since"
        raise InvalidArgument(
            f"the file has opset {opset}; bfloat16 convolutions exist from opset {BFLOAT16_OPSET} on, and {what}; "
            f"export the model with opset {BFLOAT16_OPSET}, or use fp16"
        )
    model.opset_imports[""] = BFLOAT16_OPSET
    return [f"opset raised from {opset} to {BFLOAT16_OPSET}: older ones have no bfloat16 convolution"]


class _Writer:
    """Applies decisions: retypes values and constants, and casts where two types meet."""

    def __init__(self, rules: Rules) -> None:
        self.rules, self.half, self.graph = rules, rules.dtype, rules.model.graph
        self.converted, self.casts = 0, 0
        self.notes: list[str] = []
        self._cast_of: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def convert(self, *, keep_io_types: bool) -> None:
        nodes = list(self.graph.all_nodes())
        # All decisions before any change: they read the types.
        wishes = [
            (node, index, value, self.rules.wanted(node, index))
            for node in nodes
            for index, value in enumerate(node.inputs)
            if value is not None and value.dtype == ir.DataType.FLOAT
        ]
        lowered = [value for node in nodes for value in self._lowered_outputs(node)]
        outputs = list(self.graph.outputs)
        was_float = [value.dtype == ir.DataType.FLOAT for value in outputs]
        for value in lowered:
            value.type = ir.TensorType(self.half)
        if not keep_io_types:
            for value in self.graph.inputs:
                if value.dtype == ir.DataType.FLOAT and value.const_value is None:
                    value.type = ir.TensorType(self.half)
        for node, index, value, wanted in wishes:
            if wanted is not None and value.dtype != wanted:
                node.replace_input_with(index, self._as(value, wanted, node))
        for index, value in enumerate(outputs):
            wanted = ir.DataType.FLOAT if keep_io_types else self.half
            if was_float[index] and value.dtype != wanted:
                self._retype_output(index, value, wanted)
        self.casts = sum(1 for value in self._cast_of.values() if value.producer() is not None)

    def _lowered_outputs(self, node: ir.Node) -> list[ir.Value]:
        params = self.rules.converted_params(node)
        if not params:
            return []
        self.converted += 1
        schema = schema_of(self.rules.model, node)
        assert schema is not None
        return [
            value
            for index, value in enumerate(node.outputs)
            if param_at(schema.outputs, index) in params and value.dtype in (ir.DataType.FLOAT, None)
        ]

    def _as(self, value: ir.Value, wanted: ir.DataType, user: ir.Node) -> ir.Value:
        """The value in another type: a converted constant, the source of an exact cast, or a cast, each made once."""
        if (value, wanted) in self._cast_of:
            return self._cast_of[value, wanted]
        producer = value.producer()
        if value.const_value is not None and producer is None and not value.is_graph_input():
            result = self._converted_constant(value, wanted, user)
        elif producer is not None and producer.op_type == "Cast" and _exact_source(producer, wanted) is not None:
            result = producer.inputs[0]  # type: ignore[assignment]
        else:
            result = self._new_cast(value, wanted)
        self._cast_of[value, wanted] = result
        return result

    def _converted_constant(self, value: ir.Value, wanted: ir.DataType, user: ir.Node) -> ir.Value:
        assert value.const_value is not None
        array = np.asarray(value.const_value.numpy())
        limit = LARGEST.get(wanted)
        if limit is not None:
            beyond = np.isfinite(array) & (np.abs(array) > limit)
            if beyond.any():
                array = np.where(beyond, np.sign(array) * limit, array)
                where = f"constant {value.name!r} of {user.name or user.op_type!r}"
                self.notes.append(f"{where}: clamped to a magnitude of {limit:g}, the largest of {wanted.name.lower()}")
        name = f"{value.name}_{SUFFIX[wanted]}"
        tensor = ir.tensor(array.astype(wanted.numpy()), name=name)
        result = ir.Value(name=name, const_value=tensor, type=ir.TensorType(wanted), shape=value.shape)
        owner = value.graph or self.graph
        owner.register_initializer(result)
        return result

    def _new_cast(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        cast = ir.node("Cast", [value], attributes={"to": int(wanted)}, name=f"cast_{value.name}_{SUFFIX[wanted]}")
        result = cast.outputs[0]
        result.name, result.shape, result.type = f"{value.name}_{SUFFIX[wanted]}", value.shape, ir.TensorType(wanted)
        producer = value.producer()
        if producer is not None and producer.graph is not None:
            producer.graph.insert_after(producer, cast)
        elif len(self.graph):
            self.graph.insert_before(self.graph[0], cast)
        else:
            self.graph.append(cast)
        return result

    def _retype_output(self, index: int, value: ir.Value, wanted: ir.DataType) -> None:
        """The graph's output keeps its name; the value inside takes another."""
        name = value.name
        value.name = f"{name}_{SUFFIX[value.dtype or self.half]}"
        result = self._cast_of.get((value, wanted)) or self._new_cast(value, wanted)
        self._cast_of[value, wanted] = result
        result.name = name
        self.graph.outputs[index] = result


def _exact_source(cast: ir.Node, wanted: ir.DataType) -> ir.Value | None:
    """The input of a cast that has the wanted type already: half -> float32 -> half changes nothing."""
    source = cast.inputs[0]
    return source if source is not None and source.dtype == wanted else None
