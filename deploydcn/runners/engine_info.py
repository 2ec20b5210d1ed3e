"""What an engine says of itself: its tensors and the ranges of shapes it was built for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploydcn.errors import InvalidArgument, RuntimeFailure
from deploydcn.runners.base import TensorInfo
from deploydcn.runners.device_arrays import numpy_dtype
from deploydcn.runners.tensorrt_api import LoadedEngine
from deploydcn.tensorrt_runtimes import DTYPES

Shape = tuple[int, ...]
Range = tuple[Shape, Shape, Shape]


@dataclass(frozen=True)
class EngineInfo:
    """profiles: per profile, smallest, optimal and largest shape of every dynamic input."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    profiles: tuple[Mapping[str, Range], ...]

    @classmethod
    def of(cls, loaded: LoadedEngine) -> EngineInfo:
        """Read an engine.

        Raises:
            RuntimeFailure: a tensor is of a kind that the runner does not handle.
        """
        trt, engine, label = loaded.trt, loaded.engine, loaded.label
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        infos = {name: _tensor(trt, engine, name, label) for name in names}
        is_input = {name: engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        inputs = tuple(infos[name] for name in names if is_input[name])
        dynamic = [info.name for info in inputs if None in (info.shape or ())]
        profiles = tuple(
            {name: _range(engine.get_tensor_profile_shape(name, index)) for name in dynamic}
            for index in range(engine.num_optimization_profiles)
        )
        return cls(inputs, tuple(infos[name] for name in names if not is_input[name]), profiles)

    def profile_for(self, shapes: Mapping[str, Shape]) -> int:
        """The profile to use for input shapes: of those that admit them the one with the smallest range.

        Raises:
            InvalidArgument: none admits them; the message says what the engine was built for.
        """
        fitting = [index for index, profile in enumerate(self.profiles) if not _outside(profile, shapes)]
        if fitting:
            return min(fitting, key=lambda index: sum(math.prod(largest) for _, _, largest in self.profiles[index].values()))
        name = _outside(self.profiles[0], shapes)
        ranges = " or ".join(f"{_text(profile[name][0])} to {_text(profile[name][2])}" for profile in self.profiles)
        joint = "" if all(name == _outside(profile, shapes) for profile in self.profiles) else ", all inputs in one profile"
        raise InvalidArgument(
            f"input {name!r} has shape {_text(shapes[name])}; this engine was built for {ranges}{joint}; "
            "feed that, or build the engine again with a profile that includes it"
        )

    def dtype(self, name: str) -> np.dtype[Any]:
        """An input's or output's element type."""
        return numpy_dtype(next(info.dtype for info in (*self.inputs, *self.outputs) if info.name == name))


def _tensor(trt: Any, engine: Any, name: str, label: str) -> TensorInfo:
    dtype, layout = engine.get_tensor_dtype(name).name, engine.get_tensor_format(name).name
    if dtype not in DTYPES:
        raise RuntimeFailure(f"{label}: tensor {name!r} is {dtype}, which arrays cannot hold; build the engine with a cast in front of it")
    if layout != "LINEAR":
        raise RuntimeFailure(
            f"{label}: tensor {name!r} has format {layout}; wanted LINEAR; build the engine without formats for inputs and outputs"
        )
    if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
        raise RuntimeFailure(
            f"{label}: tensor {name!r} holds shapes and lives in host memory, which is not supported; make it a constant in the ONNX file, "
            "or take it off the outputs"
        )
    return TensorInfo(name, DTYPES[dtype], tuple(size if size >= 0 else None for size in engine.get_tensor_shape(name)))


def _range(shapes: Any) -> Range:
    smallest, optimal, largest = (tuple(shape) for shape in shapes)
    return smallest, optimal, largest


def _outside(profile: Mapping[str, Range], shapes: Mapping[str, Shape]) -> str:
    """The first input whose shape a profile does not admit, or ""."""
    for name, (smallest, _, largest) in profile.items():
        if not all(low <= size <= high for low, size, high in zip(smallest, shapes[name], largest, strict=True)):
            return name
    return ""


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape))
