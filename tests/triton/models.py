"""Small ONNX files, and the repositories made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import deploydcn

Sizes = Sequence[int | str | None]


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sizes]],
    outputs: Mapping[str, tuple[int, Sizes]],
    weights: Mapping[str, np.ndarray] | None = None,
    **metadata: str,
) -> Path:
    """Write a model; inputs and outputs are (element type, sizes) by name."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, kind, sizes) for name, (kind, sizes) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, sizes) for name, (kind, sizes) in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("deploydcn", 1)], ir_version=9)
    helper.set_model_props(model, metadata)
    onnx.save(model, str(path))
    return path


def squares(path: Path, first: int | str | None = "n", last: int | str | None = None) -> Path:
    """y = x * x of (first, 3); `last` is another name for y's first axis."""
    node = helper.make_node("Mul", ["x", "x"], ["y"])
    kind = TensorProto.FLOAT
    return save(path, [node], {"x": (kind, [first, 3])}, {"y": (kind, [first if last is None else last, 3])})


def deformable(path: Path) -> Path:
    """A deformable convolution of 2 to 4 channels, offsets given: needs our library, and has two inputs with dynamic sizes."""
    node = helper.make_node("DeformConv2d", ["x", "w", "offset"], ["y"], domain="deploydcn", pads=[1, 1, 1, 1])
    weights = {"w": np.random.default_rng(0).standard_normal((4, 2, 3, 3)).astype("float32")}
    inputs = {"x": (TensorProto.FLOAT, ["n", 2, "h", "w"]), "offset": (TensorProto.FLOAT, ["n", 18, "h", "w"])}
    return save(path, [node], inputs, {"y": (TensorProto.FLOAT, ["n", 4, "h", "w"])}, weights)


def repository(folder: Path, *models: Path, batch: int = 8) -> Path:
    deploydcn.write_triton_repository(list(models), folder / "repository", batch=batch)
    return folder / "repository"
