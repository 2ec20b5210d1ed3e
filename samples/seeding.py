"""Sensible random weights for models that are not trained.

Offsets of untrained deformable layers are zero, and random ones are chaotic: a stack of them amplifies float32 rounding
until nothing can be compared. Here they are a fixed random shift of about one pixel plus a smaller part that depends on
the data, as in trained models; batch norms are calibrated on an image, residual branches damped.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deploydcn.nn import DeformConv2d


def seed_offsets(model: nn.Module, *, pixels: float = 1.0, seed: int = 0) -> None:
    """Non-zero offsets for every DeformConv2d: shifts of standard deviation `pixels`, a tenth of it data-dependent."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, DeformConv2d):
            branch = module.offset_conv
            fan_in = branch.weight[0].numel()
            branch.weight.data = torch.randn(branch.weight.shape, generator=generator) * (0.1 * pixels / fan_in**0.5)
            branch.bias.data = torch.randn(branch.bias.shape, generator=generator) * pixels


@torch.no_grad()
def calibrate_batch_norm(model: nn.Module, images: Tensor, *, passes: int = 2) -> None:
    """Give every BatchNorm2d the statistics it sees on `images`, so that activations keep a sensible scale."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    training = model.training
    model.train()
    for _ in range(passes):
        model(images)
    model.train(training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


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
