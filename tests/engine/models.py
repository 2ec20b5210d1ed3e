"""ONNX files the builder is tried on: sound ones, and one for every way to be unsound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, HALF, BFLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE
ATTRIBUTES = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1], "dilations": [1, 1], "group": 1, "offset_group": 1}
DYNAMIC = ("n", 3, "h", "w")


def constant(name: str, *shape: int, dtype: int = FLOAT, scale: float = 0.1) -> onnx.TensorProto:
    values = np.random.default_rng(len(name)).standard_normal(shape) * scale
    return numpy_helper.from_array(values.astype(helper.tensor_dtype_to_np_dtype(dtype)), name)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[Any] | None]],
    outputs: Mapping[str, tuple[int, Sequence[Any] | None]],
    constants: Sequence[onnx.TensorProto] = (),
    *,
    opset: int = 20,
    domains: Sequence[str] = ("deploydcn",),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, dtype, shape) for name, (dtype, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, dtype, shape) for name, (dtype, shape) in outputs.items()],
        constants,
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def plain(shape: Sequence[Any] = DYNAMIC) -> onnx.ModelProto:
    """x -> Conv -> Relu -> y."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1] * 4), helper.make_node("Relu", ["c"], ["y"], name="relu")]
    return model_of(nodes, {"x": (FLOAT, shape)}, {"y": (FLOAT, [shape[0], 8, *shape[2:]])}, [constant("w", 8, 3, 3, 3)])


def deformable(
    shape: Sequence[Any] = DYNAMIC,
    *,
    operator: str = "DeformConv2d",
    domain: str = "deploydcn",
    bias: bool = True,
    mask: bool = True,
    name: str = "neck.dcn",
    offset_channels: int = 18,
    weight: Sequence[int] = (8, 6, 3, 3),
    types: Mapping[str, int] | None = None,
    attributes: Mapping[str, Any] | None = None,
    inputs: Sequence[str] | None = None,
) -> onnx.ModelProto:
    """x -> Conv (6 channels) -> deformable convolution -> Relu -> y, its offset and mask by convolutions of their own.

    types: element types to cast the deformable convolution's inputs to, by the spec's names.
    """
    nodes = [helper.make_node("Conv", ["x", "w0"], ["f"], name="stem", pads=[1] * 4)]
    constants = [constant("w0", 6, 3, 3, 3), constant("W", *weight), constant("wo", offset_channels, 6, 3, 3)]
    nodes.append(helper.make_node("Conv", ["f", "wo"], ["offset"], name="offset_conv", pads=[1] * 4))
    names = ["f", "W", "offset", "", ""]
    if bias:
        constants.append(constant("B", weight[0]))
        names[3] = "B"
    if mask:
        constants.append(constant("wm", offset_channels // 2, 6, 3, 3))
        nodes.append(helper.make_node("Conv", ["f", "wm"], ["m"], name="mask_conv", pads=[1] * 4))
        nodes.append(helper.make_node("Sigmoid", ["m"], ["mask"], name="sigmoid"))
        names[4] = "mask"
    for index, key in enumerate(("X", "W", "offset", "B", "mask")):
        if types and key in types and names[index]:
            nodes.append(helper.make_node("Cast", [names[index]], [f"{names[index]}_cast"], to=types[key], name=f"cast_{key}"))
            names[index] = f"{names[index]}_cast"
    names = list(inputs) if inputs is not None else names
    while not names[-1]:
        names.pop()
    given = ATTRIBUTES if attributes is None else {key: value for key, value in {**ATTRIBUTES, **attributes}.items() if value is not None}
    nodes.append(helper.make_node(operator, names, ["d"], name=name, domain=domain, **given))
    result = (types or {}).get("X", FLOAT)
    nodes.append(helper.make_node("Relu", ["d"], ["y"], name="relu"))
    return model_of(nodes, {"x": (FLOAT, shape)}, {"y": (result, [None] * 4)}, constants)


def written(model: onnx.ModelProto, folder: Path, name: str = "model.onnx", *, external: bool = False) -> Path:
    """The model as a file; its weights in `weights.bin` beside it when `external`."""
    path = folder / name
    onnx.save(model, str(path), save_as_external_data=external, location="weights.bin", size_threshold=0)
    return path


def initializer(model: onnx.ModelProto, name: str) -> np.ndarray:
    return next(numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name == name)
