"""Our module and operators in eager PyTorch: starting point, gradients, torch's own checks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deploydcn.nn import DeformConv2d, deform_conv2d
from deploydcn.nn.torch_ops import call_with_onnx_names, is_differentiable
from deploydcn.ops import OPS, Op
from tests.export import models
from tests.export.helpers import image

pytestmark = pytest.mark.backend("torch")


# ------------------------------------------------------------------------------------------------ our own module
@pytest.mark.parametrize("modulated", [True, False])
def test_the_module_starts_as_a_plain_convolution(modulated: bool) -> None:
    layer = DeformConv2d(4, 6, (3, 5), stride=(1, 2), padding=(1, 2, 0, 1), dilation=(1, 2), groups=2, modulated=modulated)
    x = image(4)
    padded = nn.functional.pad(x, (2, 1, 1, 0))
    wanted = nn.functional.conv2d(padded, layer.weight * (0.5 if modulated else 1), layer.bias, (1, 2), 0, (1, 2), 2)
    assert torch.allclose(layer(x), wanted, atol=1e-5)


def test_gradients_are_right() -> None:
    torch.manual_seed(0)
    arguments = [
        torch.randn(1, 4, 5, 4, dtype=torch.float64, requires_grad=True),
        torch.randn(6, 2, 3, 3, dtype=torch.float64, requires_grad=True),
        (torch.randn(1, 36, 5, 4, dtype=torch.float64) * 0.7 + 0.2).requires_grad_(),
        torch.randn(6, dtype=torch.float64, requires_grad=True),
        torch.rand(1, 18, 5, 4, dtype=torch.float64, requires_grad=True),
    ]

    def call(x, w, offset, bias, mask):
        return deform_conv2d(x, w, offset, bias=bias, mask=mask, padding=(1, 0, 1, 2), groups=2, offset_groups=2, activation="silu")

    assert torch.autograd.gradcheck(call, arguments)


def test_torch_operator_passes_torchs_own_checks() -> None:
    layer = models.with_offsets(DeformConv2d(4, 6, 3, padding=1))
    offset = torch.randn(2, 18, 14, 17)
    arguments = (image(4), layer.weight.detach(), offset, None, torch.rand(2, 9, 14, 17), [1, 1], [1, 1, 1, 1], [1, 1], 1, 1, "")
    torch.library.opcheck(torch.ops.deploydcn.deform_conv2d.default, arguments)


def test_autocast_keeps_offsets_precise() -> None:
    layer = models.with_offsets(DeformConv2d(4, 6, 3, padding=1))
    x = image(4)
    with torch.autocast("cpu", torch.bfloat16):
        low = layer(x)
    assert low.dtype == torch.bfloat16
    assert (low.float() - layer(x)).abs().max() < 0.1


def inputs_of(op: Op) -> dict[str, Tensor]:
    """The first row of the operator's conformance table, in float32."""
    types = {tensor.name: np.dtype(op.spec.type_rows[0][tensor.type_param]) for tensor in op.spec.inputs}
    return {name: torch.from_numpy(value) for name, value in op.cases[0].inputs(types.__getitem__).items()}


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.spec.snake_name)
def test_outputs_lie_in_memory_as_torch_compile_expects(op: Op) -> None:
    """torch's convolutions answer channels-last images in kind; compiled code has been told that outputs are contiguous."""
    inputs = {k: v.to(memory_format=torch.channels_last) if v.ndim == 4 else v for k, v in inputs_of(op).items()}
    outputs = call_with_onnx_names(op.spec, inputs, op.cases[0].attributes)
    assert all(output.is_contiguous() for output in outputs)


@pytest.mark.parametrize("op", [op for op in OPS if is_differentiable(op.spec)], ids=lambda op: op.spec.snake_name)
def test_autocast_does_not_reach_into_an_operator(op: Op) -> None:
    """Its functional form has cast what is to be cast: a product inside must not be rounded to bfloat16 once more."""
    inputs, first = inputs_of(op), op.spec.inputs[0].name

    def outputs_and_gradient() -> tuple[Tensor, ...]:
        leaf = inputs[first].clone().requires_grad_()
        outputs = call_with_onnx_names(op.spec, {**inputs, first: leaf}, op.cases[0].attributes)
        return *outputs, *torch.autograd.grad(outputs[0].square().sum(), leaf)

    wanted = outputs_and_gradient()
    with torch.autocast("cpu", torch.bfloat16):
        got = outputs_and_gradient()
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
