"""Whether a replacement computes what its original does: on the inputs of the example, and on random inputs and parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from deploydcn.parity import compare, default_tolerance
from deploydcn.parity.tolerance import PRECISION
from deploydcn.runners.base import as_array

OFFSET_SCALE = 2.0
"""Standard deviation of random inputs: with random parameters, offsets become a few pixels and leave the image at its border."""


class CannotRun(Exception):
    """The original raised: on this machine there is nothing to compare with."""


@dataclass
class Call:
    """Arguments of one call; tensors are copies."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """Copies of the tensors: forward may write to its inputs."""
        return cls(*pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.detach().clone(), (args, dict(kwargs))))

    def changed(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Call:
        """With every floating-point tensor changed."""

        def leaf(value: Any) -> Any:
            return change(value) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

        return Call(*pytree.tree_map(leaf, (self.args, dict(self.kwargs))))


@dataclass(frozen=True)
class Difference:
    """The worst of the compared outputs. tolerance: what is allowed; worst: the largest error relative to its channel's scale."""

    worst: float
    tolerance: float
    what: str

    @property
    def acceptable(self) -> bool:
        return self.worst <= self.tolerance


def difference(original: Callable[..., Any], replacement: Callable[..., Any], call: Call) -> Difference:
    """Run both on copies of the arguments.

    Raises:
        CannotRun: the original raised.
    """
    try:
        wanted = _run(original, call)
    except Exception as error:
        raise CannotRun(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}") from error
    try:
        got = _run(replacement, call)
        if not any(array.size for array in wanted.values()):  # no boxes, for example: shapes are all there is
            same = [array.shape for array in wanted.values()] == [array.shape for array in got.values()]
            return Difference(0.0 if same else float("inf"), 0.0, "other shapes")
        outputs = compare(wanted, got)
    except Exception as error:
        return Difference(float("inf"), 0.0, f"{type(error).__name__}: {error}")
    dtypes = [array.dtype.name for array in wanted.values() if array.dtype.name in PRECISION]
    lowest = min(dtypes, key=lambda name: PRECISION[name], default="float32")
    # Originals compute parts in float32 whatever their inputs are.
    tolerance = max(default_tolerance(lowest).relative, default_tolerance("float32").relative)
    worst = max(outputs, key=lambda output: output.worst_channel)
    return Difference(worst.worst_channel, tolerance, worst.mismatch or f"largest difference {worst.max_abs:.3g}")


def randomised_call(call: Call, *, seed: int = 0) -> Call:
    """The call with random feature maps, offsets and masks. Lists of boxes and other tables (2 dimensions or fewer) stay: their
    columns have meanings, an image's number above all."""
    generator = torch.Generator().manual_seed(seed)

    def change(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.ndim < 3:
            return tensor
        return (OFFSET_SCALE * torch.randn(tensor.shape, generator=generator)).to(tensor)

    return call.changed(change)


def randomised_copy(module: nn.Module, *, seed: int = 0) -> nn.Module:
    """A copy with random parameters: an offset convolution that still is zero proves nothing.

    Raises:
        CannotRun: the module cannot be copied.
    """
    generator = torch.Generator().manual_seed(seed)
    try:
        result = copy.deepcopy(module)
    except Exception as error:
        raise CannotRun(f"it cannot be copied: {error}") from error
    with torch.no_grad():
        for parameter in result.parameters():
            if not parameter.is_floating_point():
                continue
            if parameter.ndim >= 2:
                fan_in = max(parameter.numel() // max(parameter.shape[0], 1), 1)
                values = torch.randn(parameter.shape, generator=generator) / fan_in**0.5
            else:
                values = OFFSET_SCALE * (2 * torch.rand(parameter.shape, generator=generator) - 1)
            parameter.copy_(values)
    return result


def in_double(module: nn.Module, call: Call) -> tuple[nn.Module, Call]:
    """Both in float64, where the module runs in it: rules with a floor in them jump, and rounding then decides which way."""
    wide = copy.deepcopy(module).double()
    wide_call = call.changed(lambda tensor: tensor.double())
    try:
        _run(wide, wide_call)
    except Exception:  # a module that names its types runs in those
        return module, call
    return wide, wide_call


def _run(function: Callable[..., Any], call: Call) -> dict[str, np.ndarray]:
    fresh = Call.of(call.args, call.kwargs)
    with torch.no_grad():
        result = function(*fresh.args, **fresh.kwargs)
    tensors = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
    return {str(index): as_array(tensor) for index, tensor in enumerate(tensors)}
