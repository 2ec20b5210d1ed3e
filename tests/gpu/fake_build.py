"""`build_engine` for the fake TensorRT: an engine that runs its ONNX file in ONNX Runtime, on the CPU."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import onnx
import pytest

import deploydcn
from deploydcn.onnx_schema import register_schemas
from tests.runners.fake_tensorrt import Arrays, Function, Shape, engine_file
from tests.runners.machine import Machine as FakeMachine

KINDS = onnx.TensorProto
NAMES = {KINDS.FLOAT: "FLOAT", KINDS.FLOAT16: "HALF", KINDS.INT64: "INT64"}
Defect = Callable[[Arrays], Arrays]


def install_build(monkeypatch: pytest.MonkeyPatch, fake: FakeMachine, *, defect: Defect | None = None) -> list[str]:
    """Put it in the place of deploydcn.build_engine. defect: done to every output. Returns the names of what was built."""
    built: list[str] = []
    signature = inspect.signature(deploydcn.build_engine)

    def build_engine(onnx_path: str | os.PathLike[str], engine_path: str | os.PathLike[str], **options: Any) -> None:
        given = signature.bind(onnx_path, engine_path, **options).arguments
        graph = onnx.load(str(onnx_path)).graph
        key = Path(engine_path).stem
        fake.trt.functions[key] = _function(Path(onnx_path), defect or (lambda outputs: outputs))
        constants = {tensor.name for tensor in graph.initializer}
        inputs = {value.name: _tensor(value) for value in graph.input if value.name not in constants}
        outputs = {value.name: _tensor(value) for value in graph.output}
        ranges = [{name: list(span) for name, span in profile.items()} for profile in given.get("profiles", ())]
        Path(engine_path).write_bytes(engine_file(key, inputs, outputs, ranges))
        built.append(key)

    monkeypatch.setattr(deploydcn, "build_engine", build_engine)
    return built


def _tensor(value: onnx.ValueInfoProto) -> tuple[str, Shape]:
    kind = value.type.tensor_type
    return NAMES[kind.elem_type], tuple(size.dim_value if size.HasField("dim_value") else -1 for size in kind.shape.dim)


def _function(path: Path, defect: Defect) -> Function:
    runner = deploydcn.load(path)
    register_schemas()

    @cache
    def inferred(given: tuple[tuple[str, Shape], ...]) -> dict[str, Shape]:
        model, sizes = onnx.load(path), dict(given)
        for value in model.graph.input:
            for dim, size in zip(value.type.tensor_type.shape.dim, sizes.get(value.name, ()), strict=False):
                dim.dim_value = size
        return {value.name: _tensor(value)[1] for value in onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.output}

    def infer(given: Mapping[str, Shape]) -> dict[str, Shape]:
        """From shapes alone: values may be tables, of which zeros mean nothing."""
        return inferred(tuple(sorted(given.items())))

    def compute(arrays: Arrays) -> Arrays:
        assert not any(array.dtype == ml_dtypes.bfloat16 for array in arrays.values())
        return defect(runner.run(arrays))

    return Function(infer, compute)
