"""Models that can be watched: what they take, their deformable layers on given inputs, and gradients where there are any."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploydcn._lazy import lazy_import
from deploydcn.errors import InvalidArgument, RuntimeFailure
from deploydcn.runners.base import TensorInfo, as_array
from deploydcn.visual.layers import Layer
from deploydcn.visual.photo import Photo, image_array, image_input, read_photo


class Source(ABC):
    """One model. notes: on what could not be watched."""

    def __init__(
        self, name: str, infos: Sequence[TensorInfo], shapes: Mapping[str, Sequence[Any]], example: Mapping[str, np.ndarray]
    ) -> None:
        self.name = name
        self.infos, self.shapes, self.example = infos, shapes, example
        self.notes: list[str] = []
        self.image = image_input(infos, shapes)

    @staticmethod
    def of(model: Any) -> Source:
        text = str(model) if isinstance(model, str | os.PathLike) else ""
        if text.endswith((".engine", ".plan", ".trt")):
            raise InvalidArgument(f"{text}: an engine does not tell what its layers sample; give the ONNX file it was built from")
        return OnnxSource(Path(text)) if text.endswith(".onnx") else TorchSource(model)

    def prepare(
        self, image: Any, size: tuple[int, int] | None, mean: Sequence[float], std: Sequence[float], given: Mapping[str, Any]
    ) -> tuple[Photo, dict[str, np.ndarray]]:
        """The photograph, and all inputs by name."""
        info = next(info for info in self.infos if info.name == self.image)
        shape = self.shapes[self.image]
        own = tuple(side if isinstance(side, int) else None for side in shape[-2:])
        if size is None and None not in own:
            size = own  # type: ignore[assignment]
        photo = read_photo(image, size)
        tensors = {**self.example, self.image: image_array(photo, info, shape, mean, std)}
        tensors |= {name: as_array(value) for name, value in given.items()}
        missing = [other for other in self.infos if other.name not in tensors]
        if missing:
            raise InvalidArgument(f"input {', '.join(map(str, missing))} is missing; give it beside the image, in an .npz file")
        return photo, tensors

    @abstractmethod
    def watch(self, tensors: Mapping[str, np.ndarray]) -> list[Layer]:
        """The deformable layers, in the order they run."""

    @abstractmethod
    def gradient(self, index: int, sites: Sequence[int]) -> list[np.ndarray]:
        """See TorchTap.gradient. Raises RuntimeFailure where the model has none."""


class OnnxSource(Source):
    """An ONNX file in ONNX Runtime."""

    def __init__(self, path: Path) -> None:
        lazy_import("onnx_ir", extra="export")
        lazy_import("onnxruntime", extra="cpu")
        from deploydcn.visual.onnx_tap import OnnxTap

        self._tap = OnnxTap(path)
        super().__init__(str(path), self._tap.inputs, {info.name: info.shape or () for info in self._tap.inputs}, {})
        self.notes += self._tap.notes

    def watch(self, tensors: Mapping[str, np.ndarray]) -> list[Layer]:
        return self._tap.layers(tensors, self.image)

    def gradient(self, index: int, sites: Sequence[int]) -> list[np.ndarray]:
        raise RuntimeFailure("an ONNX file has no gradients")


class TorchSource(Source):
    """A torch module."""

    def __init__(self, model: Any) -> None:
        lazy_import("torch", extra="export")
        from deploydcn.runners.torch_runner import TorchRunner

        self._runner = TorchRunner.load(model)
        example = self._runner.example
        shapes = {name: array.shape for name, array in example.items()}
        name = model if isinstance(model, str) else type(self._runner.model).__name__
        super().__init__(name, self._runner.inputs, shapes, example)

    def watch(self, tensors: Mapping[str, np.ndarray]) -> list[Layer]:
        import torch

        from deploydcn.runners.base import arrays_for
        from deploydcn.visual.torch_tap import TorchTap

        arrays = arrays_for(self._runner.inputs, tensors)
        device = next((parameter.device for parameter in self._runner.model.parameters()), "cpu")
        placed = {name: torch.from_numpy(array.copy()).to(device) for name, array in arrays.items()}
        self._tap = TorchTap(self._runner, placed, self.image)
        self.notes += self._tap.notes
        return self._tap.layers

    def gradient(self, index: int, sites: Sequence[int]) -> list[np.ndarray]:
        return self._tap.gradient(index, sites)


def watch(model: Any, inputs: Mapping[str, Any]) -> tuple[list[Layer], list[str]]:
    """The deformable layers of a model on its inputs, by name, and notes on what could not be watched; no picture is made of anything.

    Raises:
        InvalidArgument: no input takes an image, or inputs do not fit.
        InvalidModel, RuntimeFailure: the model cannot be read, or fails.
    """
    source = Source.of(model)
    layers = source.watch({**source.example, **{name: as_array(value) for name, value in inputs.items()}})
    return layers, source.notes
