"""The models of the acceptance: tensor-core patterns, conformance rows side by side, chains of layers to time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploydcn.ops import Op, op_named
from deploydcn.ops.case import Case
from tests.conformance.backends import numpy_dtype
from tests.conformance.single_node import ELEMENT_TYPES, is_constant, single_node_model
from tests.conformance.test_conformance import inputs_of

Types = Mapping[str, str]


# ---------------------------------------------------------------------------------------------------- tensor-core layout
@dataclass(frozen=True)
class Pattern:
    """A product of matrices whose result is known exactly. meaning: what an element of the output tells."""

    name: str
    weight: np.ndarray  # (M, K)
    samples: np.ndarray  # (K, pixels)
    meaning: str

    @property
    def wanted(self) -> np.ndarray:
        return self.weight @ self.samples


def layout_patterns(outputs: int = 64, depth: int = 64, pixels: int = 64, *, seed: int = 0) -> list[Pattern]:
    """Whole numbers that float16, bfloat16 and TF32 hold exactly, as they do every sum of their products.

    With a unit matrix on one side, every element of the result names the row or column of the other that it came from: a
    wrong fragment layout is not only seen but told.
    """
    rng = np.random.default_rng(seed)
    rows, columns, unit = np.arange(64)[:, None].repeat(64, 1), np.arange(64)[None].repeat(64, 0), np.eye(64, dtype=np.int64)
    signs = {side: rng.integers(-1, 2, shape) for side, shape in (("weight", (outputs, depth)), ("samples", (depth, pixels)))}
    return [
        Pattern("rows_of_W", rows, unit, "the row of the weight (output channel) it was taken from"),
        Pattern("columns_of_W", columns, unit, "the column of the weight (input channel) it was taken from"),
        Pattern("rows_of_X", unit, rows, "the input channel it was taken from"),
        Pattern("columns_of_X", unit, columns, "the pixel it was taken from"),
        Pattern("signs", signs["weight"], signs["samples"], "a sum of products of -1, 0 and 1"),
    ]


def layout_model(pattern: Pattern, dtype: str) -> onnx.ModelProto:
    """GroupedConv2d 1x1 with one group: the plain matrix product. Fed by X and W, so that one engine serves all patterns of a size."""
    (outputs, depth), side = pattern.weight.shape, image_side(pattern)
    shapes = {"X": (1, depth, *side), "W": (outputs, depth, 1, 1)}
    return single_node_model(op_named("GroupedConv2d").spec, shapes, {"kernel_shape": (1, 1)}, {"T": dtype})


def layout_inputs(pattern: Pattern, dtype: str) -> dict[str, np.ndarray]:
    fed = "float32" if dtype == "bfloat16" else dtype
    image = pattern.samples.reshape(1, -1, *image_side(pattern))
    return {"X": image.astype(fed), "W": pattern.weight[:, :, None, None].astype(fed)}


def image_side(pattern: Pattern) -> tuple[int, int]:
    pixels = pattern.samples.shape[1]
    height = next(side for side in range(int(pixels**0.5), 0, -1) if pixels % side == 0)
    return height, pixels // height


def explain(pattern: Pattern, got: np.ndarray) -> str:
    """ "" when the output is exact, else the first wrong element, and what its value says."""
    result, wanted = got.reshape(pattern.wanted.shape).astype(np.float64), pattern.wanted
    wrong = np.argwhere(result != wanted)
    if not len(wrong):
        return ""
    m, n = wrong[0]
    value = f"{result[m, n]:g}"
    return (
        f"{len(wrong)} of {wanted.size} wrong, the first at output channel {m}, pixel {n}: got {value}, wanted {wanted[m, n]}; "
        f"the value is {pattern.meaning}"
    )


# ------------------------------------------------------------------------------------------------------ conformance rows
def gpu_types(op: Op) -> list[Types]:
    """Rows of element types that a GPU has."""
    return [types for types in op.spec.type_rows if "float64" not in types.values()]


def type_label(types: Types) -> str:
    return "/".join(dict.fromkeys(types.values()))


def is_empty(case: Case) -> bool:
    return any(0 in shape for shape in case.shapes.values())


def row_model(op: Op, case: Case, types: Types) -> onnx.ModelProto:
    """One node, its weights in the file, every size fixed."""
    inputs = inputs_of(op, case, types)
    constants = {name: value for name, value in inputs.items() if is_constant(name)}
    shapes = {name: value.shape for name, value in inputs.items()}
    return single_node_model(op.spec, shapes, case.attributes, types, constants=constants)


def row_inputs(op: Op, case: Case, types: Types) -> dict[str, np.ndarray]:
    """What the row's engine is fed; bfloat16 goes in as float32, as the model has it."""
    inputs = {name: value for name, value in inputs_of(op, case, types).items() if not is_constant(name)}
    return {name: value.astype(np.float32) if value.dtype == numpy_dtype("bfloat16") else value for name, value in inputs.items()}


def side_by_side(models: Mapping[str, onnx.ModelProto]) -> onnx.ModelProto:
    """One model of several that do not touch; every name is put behind the key: "key.X". One engine instead of a hundred."""
    merged = onnx.ModelProto()
    for key, model in models.items():
        graph = onnx.compose.add_prefix_graph(model.graph, f"{key}.")
        if not merged.graph.name:
            merged.CopyFrom(model)
            merged.graph.CopyFrom(graph)
            merged.graph.name = "side_by_side"
            continue
        merged.graph.node.extend(graph.node)
        merged.graph.input.extend(graph.input)
        merged.graph.output.extend(graph.output)
        merged.graph.initializer.extend(graph.initializer)
    return merged


# --------------------------------------------------------------------------------------------------------------- timing
@dataclass(frozen=True)
class Layer:
    """A 3x3 layer, as many channels out as in, same size. channels, height and width: of ResNet-50's stages at 224 px."""

    name: str
    batch: int
    channels: int
    size: int

    def __str__(self) -> str:
        return f"{self.name} {self.batch}x{self.channels}x{self.size}x{self.size}"


STAGES = (("conv3", 128, 28), ("conv4", 256, 14), ("conv5", 512, 7))
LAYERS = tuple(Layer(name, batch, channels, size) for name, channels, size in STAGES for batch in (1, 8))
CHAIN = 8
"""Layers in a row in every timed program: what is measured is a layer, not the entry to and exit from a library."""


def chain_arrays(layer: Layer, seed: int = 0) -> dict[str, np.ndarray]:
    """float32. x: (N, C, H, W); offset: (N, 18, H, W), about 1 px; mask: (N, 9, H, W); weight: (C, C, 3, 3); bias: (C,)."""
    rng = np.random.default_rng(seed)
    n, c, s = layer.batch, layer.channels, layer.size
    return {
        "x": rng.standard_normal((n, c, s, s)).astype(np.float32),
        "offset": rng.standard_normal((n, 18, s, s)).astype(np.float32),
        "mask": rng.uniform(0.5, 1.5, (n, 9, s, s)).astype(np.float32),
        "weight": (rng.standard_normal((c, c, 3, 3)) / np.sqrt(9 * c)).astype(np.float32),
        "bias": (0.1 * rng.standard_normal(c)).astype(np.float32),
    }


def chain_model(layer: Layer, dtype: str, kind: str) -> onnx.ModelProto:
    """CHAIN layers in a row. kind: "ours" (deploydcn::DeformConv2d), "standard" (DeformConv, opset 22) or "dense" (Conv)."""
    arrays, element = chain_arrays(layer), ELEMENT_TYPES[dtype]
    window: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    domain, op_type = {"ours": ("deploydcn", "DeformConv2d"), "standard": ("", "DeformConv"), "dense": ("", "Conv")}[kind]
    fed = ("x",) if kind == "dense" else ("x", "offset", "mask")
    nodes = []
    for index in range(CHAIN):
        source, result = "x" if index == 0 else f"h{index}", "y" if index == CHAIN - 1 else f"h{index + 1}"
        names = [source, "weight", "bias"] if kind == "dense" else [source, "weight", "offset", "bias", "mask"]
        nodes.append(helper.make_node(op_type, names, [result], name=f"layer{index}", domain=domain, **window))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info(name, element, arrays[name].shape) for name in fed],
        [helper.make_tensor_value_info("y", element, arrays["x"].shape)],
        [numpy_helper.from_array(arrays[name].astype(dtype), name) for name in ("weight", "bias")],
    )
    imports = [helper.make_opsetid("", 22), helper.make_opsetid("deploydcn", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


assert ELEMENT_TYPES["float16"] == TensorProto.FLOAT16
