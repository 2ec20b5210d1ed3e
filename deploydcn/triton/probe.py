"""Opens a model as Triton's ONNX Runtime backend does, with the libraries of its configuration and no others, and runs it.

This is a process of its own (`python -m deploydcn.triton.probe RESULT < request`): a damaged library or file ends it, not its caller.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from deploydcn._lazy import lazy_import
from deploydcn.parity import random_inputs
from deploydcn.runners import TensorInfo
from deploydcn.runners.base import as_array

GUESS = 64
"""A dynamic size that is not the batch, when nothing tells: a multiple of the strides of common networks."""

_DTYPES = {"float": "float32", "double": "float64"}


def examine(model: str, libraries: Sequence[str], batches: Sequence[int], sizes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """The signature of a model, and what became of a run at every batch size.

    sizes: per input what its dynamic sizes shall be, -1 where that is open.
    """
    ort = lazy_import("onnxruntime", extra="cpu")
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors are raised, not printed as well
    try:
        for library in libraries:
            options.register_custom_ops_library(library)
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exception classes share no base of their own
        return {"error": str(error)}
    graph = onnx.load(model, load_external_data=False).graph
    unknown = {value.name for value in (*graph.input, *graph.output) if not value.type.tensor_type.HasField("shape")}
    found: dict[str, Any] = {
        "inputs": [_described(node, unknown) for node in session.get_inputs()],
        "outputs": [_described(node, unknown) for node in session.get_outputs()],
        "optional": [_described(node, unknown) for node in session.get_overridable_initializers()],
    }
    infos = [TensorInfo(item["name"], item["dtype"], item["shape"]) for item in found["inputs"]]
    found["runs"] = [_run(session, infos, batch, sizes) for batch in batches]
    return found


def _described(node: Any, unknown: set[str]) -> dict[str, Any]:
    """A tensor; an unknown rank and a scalar both arrive as an empty list."""
    sizes = [size if isinstance(size, str) or (isinstance(size, int) and size > 0) else None for size in node.shape]
    dtype = node.type.removeprefix("tensor(").removesuffix(")") if node.type.startswith("tensor(") else node.type
    return {"name": node.name, "dtype": _DTYPES.get(dtype, dtype), "shape": None if not sizes and node.name in unknown else sizes}


def _run(session: Any, infos: Sequence[TensorInfo], batch: int, sizes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    try:
        shapes = {info.name: _shape(info, batch, sizes.get(info.name, ())) for info in infos}
        names = [node.name for node in session.get_outputs()]
        values = session.run(names, {name: as_array(value) for name, value in random_inputs(infos, shapes).items()})
    except Exception as error:
        return {"batch": batch, "error": str(error)}
    return {
        "batch": batch,
        "error": "",
        "shapes": {name: list(getattr(value, "shape", ())) for name, value in zip(names, values, strict=True)},
    }


def _shape(info: TensorInfo, batch: int, sizes: Sequence[int]) -> tuple[int, ...]:
    shape = []
    for axis, size in enumerate(info.shape or ()):
        wanted = sizes[axis] if axis < len(sizes) and sizes[axis] > 0 else batch if axis == 0 else GUESS
        shape.append(size if isinstance(size, int) else wanted)
    return tuple(shape)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(examine(**json.load(sys.stdin))))
