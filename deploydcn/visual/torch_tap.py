"""Watch a PyTorch model at work: every call of a deformable operator, whatever module or function makes it.

Operators are seen where torch dispatches them (torchvision's and ours), so that no class has to be known. Layers of other frameworks, whose
kernels torch does not dispatch or which are written in plain PyTorch, are first replaced as for an export, and proven equal as there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from deploydcn.errors import ExportError, InvalidArgument, RuntimeFailure
from deploydcn.export.frontends.substitution import Substitution
from deploydcn.nn.torch_ops import split_arguments
from deploydcn.ops import op_named
from deploydcn.runners.deployed import deployed
from deploydcn.runners.torch_runner import TorchRunner
from deploydcn.visual.geometry import Grid, Trail, merged
from deploydcn.visual.layers import CONVOLUTIONS, SAMPLING_INPUTS, Layer, make_layer, map_grid, output_trail, parent_of, unique_name
from deploydcn.visual.torch_steps import step

OURS = {f"deploydcn::{op_named(name).spec.snake_name}": name for name in SAMPLING_INPUTS}
TORCHVISION = "torchvision::deform_conv2d"
Call = tuple[str, Mapping[str, Tensor], Mapping[str, Any]]  # operator, inputs by ONNX name, ONNX attributes


class TorchTap:
    """A torch model on one image. image: the name of its input.

    Raises:
        RuntimeFailure: the model fails on these inputs.
    """

    def __init__(self, runner: TorchRunner, tensors: Mapping[str, Tensor], image: str) -> None:
        self.runner, self.tensors, self.image = runner, tensors, image
        self.notes: list[str] = []
        self.substitution = Substitution(runner.model)
        self.installed: Callable[[], contextlib.AbstractContextManager[nn.Module]] | None = None  # replacements, if any are needed
        with deployed(runner.model):
            self.layers = self._record()

    def _record(self) -> list[Layer]:
        try:
            with self.substitution.recording():
                layers = self._watch()
        except (InvalidArgument, RuntimeFailure) as error:
            layers = self._watch_without_kernels(error)
        foreign = self.substitution.swaps or any(routine.call is not None for routine in self.substitution.routines)
        if not foreign:
            return layers
        try:
            self.notes += self.substitution.prove()
        except ExportError as error:
            self.notes.append(f"shown is only what calls a known operator; the rest cannot be told: {error}")
            return layers
        self.installed = self.substitution.installed
        return self._watch()

    def _watch_without_kernels(self, error: Exception) -> list[Layer]:
        """Perhaps a compiled kernel is missing here: the replacements note what they receive."""
        for replacement in (self.substitution.without_kernels, self.substitution.without_originals):
            self.installed = replacement
            with contextlib.suppress(InvalidArgument, RuntimeFailure):
                layers = self._watch()
                self.notes.append("the model does not run on this machine by itself: shown with replacements for its kernels")
                return layers
        raise error

    def _model(self) -> contextlib.AbstractContextManager[nn.Module]:
        return self.installed() if self.installed else contextlib.nullcontext(self.runner.model)

    def _call(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> Any:
        args, kwargs = self.runner.signature.call_arguments(tensors)
        try:
            return module(*args, **kwargs)
        except Exception as error:
            shapes = ", ".join(f"{name}{list(tensor.shape)}" for name, tensor in self.tensors.items())
            raise RuntimeFailure(f"{self.runner.name} failed on {shapes}: {type(error).__name__}: {error}") from error

    def _watch(self) -> list[Layer]:
        tensors = {name: tensor.clone() for name, tensor in self.tensors.items()}
        with torch.no_grad(), self._model() as module, _module_path(module) as path:
            recorder = _Recorder(tensors[self.image], path)
            with recorder:
                self._call(module, tensors)
        return recorder.layers

    def gradient(self, index: int, sites: Sequence[int]) -> list[np.ndarray]:
        """The effective receptive field (Luo et al. 2016) of sites of a layer: |d sum of the site's channels / d image|, summed over the
        image's channels; (H, W) each.

        Raises:
            RuntimeFailure: gradients do not reach from the layer to the image.
        """
        tensors = {name: tensor.clone() for name, tensor in self.tensors.items()}
        image = tensors[self.image].requires_grad_()
        with deployed(self.runner.model), torch.enable_grad(), self._model() as module, self._differentiable():
            catcher = _Catcher(index)
            try:
                # Called on a copy: a model may change its input in place, which no leaf allows.
                with catcher:
                    self._call(module, {**tensors, self.image: image.clone()})
            except _Caught as caught:
                operator, output = caught.operator, caught.output
            else:
                raise RuntimeFailure(f"deformable layer {index} was not met again; a scripted model hides it")
        channels = output[0].sum(0 if operator in CONVOLUTIONS else -1).reshape(-1)
        if not channels.requires_grad:
            raise RuntimeFailure("gradients do not reach the layer; the model computes without them")
        fields = []
        for site in sites:
            (gradient,) = torch.autograd.grad(channels[site], image, retain_graph=True, allow_unused=True)
            if gradient is None:
                raise RuntimeFailure("gradients do not reach the image; the model detaches it")
            fields.append(gradient.abs().reshape(-1, *image.shape[-2:]).sum(0).double().cpu().numpy())
        return fields

    @contextlib.contextmanager
    def _differentiable(self) -> Iterator[None]:
        """torch runs a Function's forward without gradients: what replaces one is called directly."""
        routines = self.substitution.routines if self.installed else []
        places = [(place, routine.takes_context) for routine in routines for place in routine.places]
        kinds = {holder: context for (holder, name, _), context in places if name == "forward" and "apply" not in vars(holder)}
        for kind, context in kinds.items():
            kind.apply = staticmethod(partial(kind.forward, None) if context else kind.forward)
        try:
            yield
        finally:
            for kind in kinds:
                del kind.apply


# ------------------------------------------------------------------------------------------------- operators as calls
def _deformable(name: str, arguments: Sequence[Any]) -> Call | None:
    """What a torch operator means, if it is a deformable one."""
    if name in OURS:
        return OURS[name], *split_arguments(op_named(OURS[name]).spec, arguments)
    if name != TORCHVISION:
        return None
    input, weight, offset, mask, bias, *window, groups, offset_groups, use_mask = arguments
    (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w) = window
    inputs = {"X": input, "W": weight, "offset": offset, "B": bias, **({"mask": mask} if use_mask else {})}
    attributes = {
        "strides": (stride_h, stride_w),
        "pads": (pad_h, pad_w, pad_h, pad_w),
        "dilations": (dilation_h, dilation_w),
        "group": groups,
        "offset_group": offset_groups,
    }
    return "DeformConv2d", inputs, attributes


class _Caught(BaseException):
    """Carries a layer's output out of a running model."""

    def __init__(self, operator: str, output: Tensor) -> None:
        self.operator, self.output = operator, output


class _Catcher(TorchFunctionMode):
    """Stops the model at its index-th deformable call, above autograd: the output knows where it comes from."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.left = index

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        name = getattr(func, "_qualified_op_name", "") or getattr(getattr(func, "_schema", None), "name", "")
        if name in OURS or name == TORCHVISION:
            if self.left == 0:
                raise _Caught(OURS.get(name, "DeformConv2d"), output)
            self.left -= 1
        return output


# ------------------------------------------------------------------------------------------------------- watching
@contextlib.contextmanager
def _module_path(root: nn.Module) -> Iterator[Callable[[], str]]:
    """Yields a function that names the innermost module that is running."""
    names = {id(module): name for name, module in root.named_modules()}
    running: list[str] = []

    def enter(module: nn.Module, _arguments: Any) -> None:
        running.append(names.get(id(module), running[-1] if running else ""))

    def leave(_module: nn.Module, _arguments: Any, _result: Any) -> None:
        running.pop()

    handles = [
        nn.modules.module.register_module_forward_pre_hook(enter),
        nn.modules.module.register_module_forward_hook(leave, always_call=True),
    ]
    try:
        yield lambda: running[-1] if running else ""
    finally:
        for handle in handles:
            handle.remove()


class _Recorder(TorchDispatchMode):
    """Follows the image through a model, and notes every deformable layer on its way."""

    def __init__(self, image: Tensor, path: Callable[[], str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.path, self.image_size = path, (image.shape[-2], image.shape[-1])
        self.trails: MutableMapping[Tensor, Trail] = WeakTensorKeyDictionary()
        self.trails[image] = Trail(Grid(), self.image_size, (-2, -1))
        self.layers: list[Layer] = []
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        call = _deformable(func._schema.name, args)
        if call is not None:
            self.trails[result] = self._layer(*call)
            return result
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        followed = [trail for tensor in tensors if (trail := self.trails.get(tensor)) is not None]
        if followed:
            data = self.trails.get(args[0]) if isinstance(args[0], Tensor) else None
            for output in pytree.tree_leaves(result):
                if isinstance(output, Tensor):
                    known = step(func, args, kwargs or {}, data, output) if data is not None and data.is_map else None
                    self.trails[output] = known or merged(followed, output.shape)
        return result

    def _layer(self, operator: str, inputs: Mapping[str, Tensor], attributes: Mapping[str, Any]) -> Trail:
        arrays = {name: inputs[name].detach().double().cpu().numpy() for name in SAMPLING_INPUTS[operator] if name in inputs}
        shapes = {name: tuple(tensor.shape) for name, tensor in inputs.items()}
        trail = self.trails.get(next(iter(inputs.values()))) or Trail()
        name = unique_name(self.path() or operator, self.names)
        grid, parent = map_grid(operator, trail), parent_of(self.layers, trail)
        layer = make_layer(name, operator, arrays, shapes, attributes, grid=grid, image_size=self.image_size, parent=parent)
        self.layers.append(layer)
        return output_trail(layer, len(self.layers) - 1)
