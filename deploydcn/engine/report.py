"""What building an engine did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploydcn.runners import TensorInfo

Shape = tuple[int, ...]
Range = tuple[Shape, Shape, Shape]
"""Smallest, optimal and largest shape of one input."""


@dataclass(frozen=True)
class TensorLayout:
    """A tensor as an engine's plugin takes it. format: TensorRT's name, "LINEAR" or "HWC8"; "" when the engine does not tell."""

    name: str
    dtype: str
    format: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.name, self.dtype, self.format) if part)


@dataclass(frozen=True)
class PluginLayer:
    """A layer that runs in a plugin. operator: "deploydcn::DeformConv2d", or "DeformConv" for ONNX's own."""

    name: str
    operator: str
    inputs: tuple[TensorLayout, ...]
    outputs: tuple[TensorLayout, ...]

    def formats(self) -> str:
        """ "X float16 HWC8, ... -> float16 HWC8"."""
        return f"{', '.join(map(str, self.inputs))} -> {', '.join(map(str, self.outputs))}"


@dataclass(frozen=True)
class BuildProgress:
    """How far a build is. phase: TensorRT's name for what it does; fraction: 0 to 1, as TensorRT counts its steps."""

    phase: str
    fraction: float


@dataclass(frozen=True)
class EngineReport:
    """A written engine.

    version: of the runtime. precisions: how many layers yield each type. compute_capabilities: "8.6" ..., the GPUs it
    was built for. profiles: per profile, the range of every dynamic input's shape; none when all shapes are fixed.
    plugins: the layers that run in plugins. notes: what was changed on the way. warnings: TensorRT's own.
    """

    path: Path
    runtime: str
    version: str
    size: int
    seconds: float
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    layers: int
    plugins: tuple[PluginLayer, ...]
    precisions: Mapping[str, int]
    compute_capabilities: tuple[str, ...]
    profiles: tuple[Mapping[str, Range], ...]
    embedded_plugins: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line for logs."""
        kinds = ", ".join(f"{count} {name}" for name, count in self.precisions.items())
        profiles = f", {len(self.profiles)} profile{'s' if len(self.profiles) > 1 else ''}" if self.profiles else ""
        return (
            f"{self.path}: {self.runtime} {self.version}, {self.size / 1e6:.1f} MB, {self.layers} layers ({kinds}), "
            f"{len(self.plugins)} in plugins{profiles}; {self.seconds:.1f} s"
        )

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "path": str(self.path),
            "runtime": self.runtime,
            "version": self.version,
            "size": self.size,
            "seconds": round(self.seconds, 2),
            "inputs": [str(info) for info in self.inputs],
            "outputs": [str(info) for info in self.outputs],
            "layers": self.layers,
            "plugins": [
                {
                    "name": layer.name,
                    "operator": layer.operator,
                    "inputs": [vars(tensor) for tensor in layer.inputs],
                    "outputs": [vars(tensor) for tensor in layer.outputs],
                }
                for layer in self.plugins
            ],
            "precisions": dict(self.precisions),
            "compute_capabilities": list(self.compute_capabilities),
            "profiles": [{name: [list(shape) for shape in span] for name, span in profile.items()} for profile in self.profiles],
            "embedded_plugins": [str(path) for path in self.embedded_plugins],
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }
