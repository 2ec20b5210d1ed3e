"""Sensible random weights for models that are not trained.

Offsets of untrained deformable layers are zero, and random ones are chaotic: a stack of them amplifies float32 rounding
until nothing can be compared. Here they are a fixed random shift of about one pixel plus a smaller part that depends on
the data, as in trained models; batch norms are calibrated on an image, residual branches damped.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deploydcn.nn import DeformConv2d


@torch.no_grad()
def seed_weights(model: nn.Module, *, seed: int = 0) -> None:
    """Weights that keep a signal's scale, for models that begin with small ones or zeros: there, nothing behind the first layers would
    depend on the image, and no comparison could see a mistake. Comes before the functions below."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            gain = 2 if isinstance(module, nn.Conv2d) else 1  # a ReLU halves the power behind most convolutions
            module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * (gain / fan_in) ** 0.5)


OFFSET_BRANCHES = ("offset_conv", "sampling_offsets")
"""What deformable convolutions and deformable attention call the layer that predicts their offsets."""


def seed_offsets(model: nn.Module, *, pixels: float = 1.0, seed: int = 0) -> None:
    """Non-zero offsets for every deformable layer: shifts of standard deviation `pixels`, a tenth of it data-dependent."""
    generator = torch.Generator().manual_seed(seed)
    for name, branch in model.named_modules():
        if name.rpartition(".")[2] in OFFSET_BRANCHES:
            fan_in = branch.weight[0].numel()
            branch.weight.data = torch.randn(branch.weight.shape, generator=generator) * (0.1 * pixels / fan_in**0.5)
            branch.bias.data = torch.randn(branch.bias.shape, generator=generator) * pixels


@torch.no_grad()
def calibrate_batch_norm(model: nn.Module, *inputs: Tensor, **kwargs: Tensor) -> None:
    """Give every batch norm, frozen ones of other frameworks too, the statistics it sees on an example call, so that activations keep
    a sensible scale. Layers are settled in the order they run in."""

    def settle(norm: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        norm.running_mean.copy_(arguments[0].mean((0, 2, 3)))
        norm.running_var.copy_(arguments[0].var((0, 2, 3)))

    norms = [module for module in model.modules() if getattr(module, "running_var", None) is not None]
    hooks = [norm.register_forward_pre_hook(settle) for norm in norms]
    training = model.training
    model.eval()(*inputs, **kwargs)
    model.train(training)
    for hook in hooks:
        hook.remove()


def deformable_copy(conv: nn.Conv2d, **options: object) -> DeformConv2d:
    """A DeformConv2d with the window and the weights of a plain convolution."""
    deformable = DeformConv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
        conv.bias is not None,
        **options,
    )
    deformable.weight.data.copy_(conv.weight.data)
    if conv.bias is not None:
        deformable.bias.data.copy_(conv.bias.data)
    return deformable
