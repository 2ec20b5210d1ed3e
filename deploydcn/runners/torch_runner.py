"""PyTorch itself, eager: the reference every other backend is compared with."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from deploydcn.errors import InvalidArgument, InvalidModel, RuntimeFailure
from deploydcn.runners.base import Inputs, TensorInfo, arrays_for, as_array
from deploydcn.runners.deployed import deployed, unwrap
from deploydcn.runners.factory import as_built_model, build_model
from deploydcn.runners.signature import CallSignature, name_outputs


class TorchRunner:
    """A torch module, run as deployed: in eval mode, without gradients, detector heads returning decoded boxes. The module's own
    flags are restored after each run.

    Args:
        model: the module.
        example_args, example_kwargs: an example call; it tells how tensors are nested, and the outputs' names.
        device: where to run; the module is not moved, inputs are.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        example_args: tuple[Any, ...] = (),
        example_kwargs: Mapping[str, Any] | None = None,
        device: str = "cpu",
    ) -> None:
        if not example_args and not example_kwargs:
            raise InvalidArgument(
                "a torch model needs example inputs to know its tensors; pass example_args, or let the factory return (model, inputs)"
            )
        self.model = unwrap(model)
        if not isinstance(self.model, torch.nn.Module):
            raise InvalidModel(f"got a {type(model).__name__}; wanted a torch.nn.Module")
        self.signature = CallSignature.of(self.model, example_args, example_kwargs or {})
        self.name = f"torch {torch.__version__} ({type(self.model).__name__})"
        self.inputs = tuple(_info(name, tensor, free=True) for name, tensor in self.signature.tensors().items())
        self.device = torch.device(device)
        self._outputs: tuple[TensorInfo, ...] | None = None

    @classmethod
    def load(cls, model: Any, **options: Any) -> TorchRunner:
        """From a module, a factory's name, or what a factory returns."""
        built = build_model(model) if isinstance(model, str) else as_built_model(model)
        if built.has_example:
            options = {"example_args": built.args, "example_kwargs": built.kwargs, **options}
        return cls(built.model, **options)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The output tensors; their names come from the first run."""
        if self._outputs is None:
            self._outputs = tuple(_info(name, tensor, free=True) for name, tensor in self.call(self.signature.tensors()).items())
        return self._outputs

    @property
    def example(self) -> dict[str, np.ndarray]:
        """The example's inputs."""
        return {name: as_array(tensor) for name, tensor in self.signature.tensors().items()}

    def run(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """See Runner.run."""
        arrays = arrays_for(self.inputs, inputs)
        tensors = {name: torch.from_numpy(array.copy()).to(self.device) for name, array in arrays.items()}
        return {name: as_array(tensor) for name, tensor in self.call(tensors).items()}

    def call(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Run on tensors by name.

        Raises:
            RuntimeFailure: the module raised.
        """
        copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}  # forward may write to its inputs
        args, kwargs = self.signature.call_arguments(copies)
        try:
            with deployed(self.model), torch.no_grad():
                return name_outputs(self.model(*args, **kwargs))
        except InvalidArgument:
            raise
        except Exception as error:
            shapes = ", ".join(f"{name}{list(tensor.shape)}" for name, tensor in tensors.items())
            raise RuntimeFailure(f"{self.name} failed on {shapes}: {type(error).__name__}: {error}") from error

    def run_in_float64(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Run a double-precision copy: what float32 rounding alone costs is the distance to it."""
        double = copy.copy(self)
        double.model = copy.deepcopy(self.model).double()
        arrays = arrays_for(self.inputs, inputs)
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        wide = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
        return {name: as_array(tensor) for name, tensor in double.call(wide).items()}


def _info(name: str, tensor: torch.Tensor, *, free: bool) -> TensorInfo:
    shape = tuple(None for _ in tensor.shape) if free else tuple(tensor.shape)
    return TensorInfo(name, str(tensor.dtype).removeprefix("torch."), shape)
