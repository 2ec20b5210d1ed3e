"""Which nodes stay in float32 when a model is converted to half precision, and why.

Every rule adds nodes to one table, node -> reason:

- offsets: what computes the offset of a deformable convolution, back to and including the convolution that makes it.
  Offsets are sampling positions: float16 resolves 8 to 16 pixels to 1/128 only, bfloat16 to 1/16.
- coordinates: sampling grids, boxes of interest, values computed from sizes and indices (Range, Shape), and what becomes
  an integer: float16 counts no further than 2048.
- outputs: arithmetic between the last layer and a float32 output (boxes of a detector reach the image's size).
- constants: operators with a constant that half precision cannot hold (an epsilon of 1e-12, a factor of 1e6).
- excluded by name: what the caller wants in float32.
- no half form: operators that ONNX, or TensorRT, defines for float32 only, and the bodies of If, Loop and Scan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import onnx_ir as ir
from onnx import defs

from deploydcn.export.graph import constant, input_at, nodes_named
from deploydcn.onnx_schema import DOMAIN
from deploydcn.ops import OPS

OFFSETS, COORDINATES, OUTPUTS, CONSTANTS, NO_HALF = "offsets", "coordinates", "outputs", "constants", "no half form"
EXCLUDED = "excluded by name"


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Layers: what precision is lowered for, and where a walk towards the inputs ends.
MAKERS = _names("Conv ConvTranspose Gemm MatMul Einsum DeformConv LSTM GRU RNN Attention MultiHeadAttention") | {op.spec.name for op in OPS}
MOVEMENT = _names("Concat Expand Flatten Gather GatherElements GatherND Identity Reshape Slice Split Squeeze Tile Transpose Unsqueeze")
ARITHMETIC = _names("Abs Add Ceil Clip Div Floor Max Min Mod Mul Neg Round Sub Where") | MOVEMENT
FUNCTIONS = _names("Exp Log Pow Reciprocal Sqrt")
BOUNDED = _names("Cos Erf Sigmoid Sin Softmax Tanh")  # whatever goes in, half precision holds what comes out
TAIL = (ARITHMETIC | FUNCTIONS | _names("LogSoftmax ReduceMax Sigmoid Softmax TopK")) - {"Clip"}
AFTER_EPSILON = _names("Div Expand Log Pow Reciprocal Sqrt")
BOUNDS = _names("Clip Max Min Pad Where")  # a constant beyond the range means "no bound" or "masked": clamping keeps that

# TensorRT wants one type for a GridSample's image and grid. Sums of squares overflow float16 at 256. TensorRT-RTX 1.7
# fails on the rest although it takes them in float32: its parser, or for ConvTranspose its compiler.
KEPT = {
    "GridSample": COORDINATES,
    "RoiAlign": COORDINATES,
    "NonMaxSuppression": COORDINATES,
    "Range": COORDINATES,
    "Celu": NO_HALF,
    "CumSum": NO_HALF,
    "MeanVarianceNormalization": NO_HALF,
    "ReduceL2": NO_HALF,
    "ReduceSumSquare": NO_HALF,
}
KEPT_BFLOAT16 = dict.fromkeys(_names("ConvTranspose HardSwish LpNormalization LpPool Mish Shrink"), NO_HALF)

# Type parameters that stay float32 in a node that is converted otherwise.
KEPT_PARAMS = {
    **{(DOMAIN, op.spec.name): {"T1"} for op in OPS},  # offsets, sampling locations, boxes
    ("", "Resize"): {"T2"},  # roi; scales have no half form
    ("", "BatchNormalization"): {"T1", "T2", "U"},  # statistics: small variances
}

# Inputs whose values are positions: (domain, operator) -> (input, whether the layer that makes it is kept too).
POSITIONS = {
    **{
        (DOMAIN, op.spec.name): [(index, True, OFFSETS) for index, tensor in enumerate(op.spec.inputs) if tensor.type_param == "T1"]
        for op in OPS
    },
    ("", "GridSample"): [(1, True, COORDINATES)],
    ("", "RoiAlign"): [(1, False, COORDINATES)],
    ("", "NonMaxSuppression"): [(0, False, COORDINATES)],
    ("", "Resize"): [(2, False, COORDINATES)],
}

LARGEST = {ir.DataType.FLOAT16: 65504.0}
SMALLEST_NORMAL = {ir.DataType.FLOAT16: 2.0**-14}
INTEGERS = frozenset(
    (ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32)
)


@dataclass
class Rules:
    """The decisions for one model. kept: node -> reason. dtype: the half-precision type. exclude: names of nodes, or patterns."""

    model: ir.Model
    dtype: ir.DataType
    exclude: Sequence[str] = ()
    kept: dict[ir.Node, str] = field(default_factory=dict)

    def decide(self) -> None:
        """Fill `kept`."""
        nodes = list(self.model.graph.all_nodes())
        layers = {("", name) for name in MAKERS} | {(DOMAIN, name) for name in MAKERS}
        self._keep(nodes_named(nodes, self.exclude, layers), EXCLUDED)
        self._keep_without_half_form(nodes)
        self._keep_positions(nodes)
        self._keep_coordinates()
        self._keep_constants()
        self._keep_tail()
        self._release_movement()

    # ------------------------------------------------------------------------------------------------------- types
    def converted_params(self, node: ir.Node) -> set[str]:
        """The type parameters of a node that become half precision."""
        if node in self.kept:
            return set()
        schema = schema_of(self.model, node)
        if schema is None:
            return set()
        allowed = {item.type_param_str: item.allowed_type_strs for item in schema.type_constraints}
        wanted = f"tensor({self.dtype.name.lower()})"
        fixed = KEPT_PARAMS.get((node.domain, node.op_type), set())
        params: dict[str, set[ir.DataType | None]] = {}
        for index, value in enumerate(node.inputs):
            if value is not None:
                params.setdefault(param_at(schema.inputs, index), set()).add(value.dtype)
        return {
            param
            for param, dtypes in params.items()
            if dtypes == {ir.DataType.FLOAT} and param not in fixed and wanted in allowed.get(param, ())
        }

    def wanted(self, node: ir.Node, index: int) -> ir.DataType | None:
        """The type that a float32 input is to have; None when any will do."""
        if node.op_type == "Cast" and node.domain == "" and node not in self.kept:
            return None
        schema = schema_of(self.model, node)
        if schema is not None and param_at(schema.inputs, index) in self.converted_params(node):
            return self.dtype
        return ir.DataType.FLOAT

    # ------------------------------------------------------------------------------------------------------- rules
    def _keep(self, nodes: Iterable[ir.Node], reason: str) -> None:
        for node in nodes:
            self.kept.setdefault(node, reason)

    def _keep_without_half_form(self, nodes: list[ir.Node]) -> None:
        table = KEPT | (KEPT_BFLOAT16 if self.dtype == ir.DataType.BFLOAT16 else {})
        for node in nodes:
            inner = node.graph is not self.model.graph
            control = any(attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in node.attributes.values())
            if inner or control:
                self._keep([node], NO_HALF)
                producers = [value.producer() for value in _captured(node) if value is not None]
                self._keep([producer for producer in producers if producer is not None], NO_HALF)
            elif node.domain == "" and node.op_type in table:
                self._keep([node], table[node.op_type])
            elif node.op_type != "Cast" and _takes_float(node) and not self.converted_params(node):
                self._keep([node], NO_HALF)

    def _keep_positions(self, nodes: list[ir.Node]) -> None:
        for node in nodes:
            if (node.domain, node.op_type) in POSITIONS:
                for index, inclusive, reason in POSITIONS[node.domain, node.op_type]:
                    self._keep(walk_back(input_at(node, index), inclusive=inclusive), reason)
            elif node.domain == "" and node.op_type == "Cast" and node.outputs[0].dtype in INTEGERS:
                self._keep(walk_back(input_at(node, 0), inclusive=False), COORDINATES)

    def _keep_coordinates(self) -> None:
        """Forwards from sizes and indices: all that computes with them alone, and arithmetic that mixes them with data."""
        carriers: set[ir.Node] = set()
        for node in self.model.graph:
            if _starts_coordinates(node):
                carriers.add(node)
                self._keep([node], COORDINATES)
                continue
            sources = [
                value for value in node.inputs if value is not None and value.dtype == ir.DataType.FLOAT and value.const_value is None
            ]
            fed = [value.producer() in carriers for value in sources]
            pure = bool(fed) and all(fed) and node.op_type in ARITHMETIC | FUNCTIONS | BOUNDED
            if pure or (any(fed) and node.op_type in ARITHMETIC):
                self._keep([node], COORDINATES)
                if node.op_type not in BOUNDED:
                    carriers.add(node)

    def _keep_constants(self) -> None:
        """Constants out of range; behind an epsilon also the root and the quotient it protects."""
        after: set[ir.Node] = set()
        for node in self.model.graph:
            if node in self.kept and node not in after:
                continue
            behind = node.op_type in AFTER_EPSILON and any(value is not None and value.producer() in after for value in node.inputs)
            if behind or any(self._unfit(node, index) for index in range(len(node.inputs))):
                self._keep([node], CONSTANTS)
                if node.op_type != "Div":
                    after.add(node)

    def _unfit(self, node: ir.Node, index: int) -> bool:
        """Whether an input is a constant that would lose its meaning in half precision."""
        value = input_at(node, index)
        if value is None or value.const_value is None or value.dtype != ir.DataType.FLOAT or self.dtype not in LARGEST:
            return False
        if self.wanted(node, index) != self.dtype:
            return False
        largest = largest_magnitude(value)
        if largest > LARGEST[self.dtype]:
            return node.op_type not in BOUNDS
        bias = node.op_type in MAKERS and index > 1  # too small for float16 is too small to matter beside the products
        return not bias and 0 < largest < SMALLEST_NORMAL[self.dtype]

    def _keep_tail(self) -> None:
        """Backwards from float32 outputs: cheap operators that compute outputs and nothing else."""
        outputs = {value for value in self.model.graph.outputs if value.dtype == ir.DataType.FLOAT}
        tail: set[ir.Node] = set()
        for node in reversed(list(self.model.graph)):
            if node.domain != "" or node.op_type not in TAIL:
                continue
            uses = [use.node for value in node.outputs for use in value.uses()]
            ends = any(value in outputs for value in node.outputs)
            if (uses or ends) and all(user in tail for user in uses):
                tail.add(node)
        floats = [node for node in self.model.graph if node in tail and any(value.dtype == ir.DataType.FLOAT for value in node.outputs)]
        self._keep(floats, OUTPUTS)

    def _release_movement(self) -> None:
        """Operators that only move values may as well move half precision, where all their users, or all their sources, have it."""
        outputs = set(self.model.graph.outputs)
        for node in reversed(list(self.model.graph)):
            if self.kept.get(node) != COORDINATES or node.op_type not in MOVEMENT or any(value in outputs for value in node.outputs):
                continue
            uses = [(use.node, use.idx) for value in node.outputs for use in value.uses()]
            if uses and all(self.wanted(user, index) == self.dtype for user, index in uses):
                del self.kept[node]
        for node in self.model.graph:
            if self.kept.get(node) == OUTPUTS and node.op_type in MOVEMENT:
                sources = [value for value in node.inputs if value is not None and value.dtype == ir.DataType.FLOAT]
                if sources and all(self.lowered(value) for value in sources):
                    del self.kept[node]

    def lowered(self, value: ir.Value) -> bool:
        """Whether a node yields the value in half precision."""
        node = value.producer()
        schema = schema_of(self.model, node) if node is not None else None
        return node is not None and schema is not None and param_at(schema.outputs, value.index() or 0) in self.converted_params(node)


# ----------------------------------------------------------------------------------------------------------- helpers
def schema_of(model: ir.Model, node: ir.Node) -> defs.OpSchema | None:
    """The schema of a node's operator at the model's opset; None when onnx knows none."""
    return _schema(node.op_type, model.opset_imports.get(node.domain, 1), node.domain)


@cache
def _schema(operator: str, version: int, domain: str) -> defs.OpSchema | None:
    try:
        return defs.get_schema(operator, version, domain)
    except defs.SchemaError:
        return None


def param_at(formals: Iterable[defs.OpSchema.FormalParameter], index: int) -> str:
    """The type parameter of an input or output; the last formal one repeats."""
    listed = list(formals)
    return str(listed[min(index, len(listed) - 1)].type_str) if listed else ""


def walk_back(value: ir.Value | None, *, inclusive: bool) -> Iterator[ir.Node]:
    """The nodes that compute a float32 value, back to the layers (MAKERS) it comes from; those too when `inclusive`."""
    stack, seen = [value], set()
    while stack:
        current = stack.pop()
        node = current.producer() if current is not None and current.dtype == ir.DataType.FLOAT else None
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.op_type in MAKERS:
            if inclusive:
                yield node
            continue
        yield node
        stack += node.inputs


def largest_magnitude(value: ir.Value) -> float:
    """The largest finite magnitude in a constant; 0 when there is none."""
    array = constant(value)
    if array is None or not array.size:
        return 0.0
    magnitudes = np.abs(array[np.isfinite(array)])
    return float(magnitudes.max()) if magnitudes.size else 0.0


def _takes_float(node: ir.Node) -> bool:
    return any(value is not None and value.dtype == ir.DataType.FLOAT for value in node.inputs)


def _starts_coordinates(node: ir.Node) -> bool:
    if node.domain != "" or not node.outputs or node.outputs[0].dtype != ir.DataType.FLOAT:
        return False
    source = input_at(node, 0)
    return node.op_type == "Range" or (node.op_type == "Cast" and source is not None and source.dtype in INTEGERS)


def _captured(node: ir.Node) -> Iterator[ir.Value | None]:
    """Values that subgraphs return as they are: their type is part of the subgraph's signature."""
    for attribute in node.attributes.values():
        graphs = [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else []
        for graph in graphs:
            yield from graph.outputs
