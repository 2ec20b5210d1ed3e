"""Deformable attention in eager PyTorch: gradients, torch's own checks, types, and what the functional forms add."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deploydcn.errors import InvalidArgument
from deploydcn.nn import dcnv3, dcnv4, flash_deform_attn, ms_deform_attn

pytestmark = pytest.mark.backend("torch")

WINDOW = {"kernel_size": (3, 2), "stride": (2, 1), "padding": 1, "groups": 2, "offset_scale": 1.5, "remove_center": True}
SHAPES, STARTS = torch.tensor([[3, 4], [2, 2]]), torch.tensor([0, 12])


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def window_inputs(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """input, offset, mask for WINDOW: 5 points in each of 2 groups."""
    return [normal(2, 5, 4, 6, dtype=dtype), normal(2, 3, 5, 20, seed=1, dtype=dtype), normal(2, 3, 5, 10, seed=2, dtype=dtype)]


def attention_inputs(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """value, locations, weights: 3 queries, 2 heads, 2 levels, 3 points."""
    locations = 0.5 + 0.4 * normal(2, 3, 2, 2, 3, 2, seed=3)
    return [normal(2, 16, 2, 5, dtype=dtype), locations.to(dtype), normal(2, 3, 2, 2, 3, seed=4, dtype=dtype)]


def attend(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    return ms_deform_attn(value, SHAPES, STARTS, locations, weights)


def joined(offset: Tensor, mask: Tensor) -> Tensor:
    """DCNv4's offset_mask of DCNv3's offset and mask: 30 channels in 32."""
    both = torch.cat([offset.unflatten(-1, (2, 10)), mask.unflatten(-1, (2, 5))], -1).flatten(-2)
    return torch.nn.functional.pad(both, (0, 2), value=float("nan"))


# --------------------------------------------------------------------------------------------------------------- gradients
def test_gradients_equal_differences() -> None:
    inputs = [tensor.requires_grad_() for tensor in window_inputs()]
    assert torch.autograd.gradcheck(lambda *t: dcnv3(*t, **WINDOW), inputs, fast_mode=True)
    assert torch.autograd.gradcheck(lambda x, o, m: dcnv4(x, joined(o, m), **WINDOW, softmax=True), inputs, fast_mode=True)
    assert torch.autograd.gradcheck(attend, [tensor.requires_grad_() for tensor in attention_inputs()], fast_mode=True)


def test_zero_offsets_have_the_published_gradient() -> None:
    """Models start there: on a pixel the slope is towards the next one, as in the published kernels, not zero."""
    x, offset = torch.arange(25.0).reshape(1, 5, 5, 1), torch.zeros(1, 5, 5, 2, requires_grad=True)
    dcnv3(x, offset, torch.ones(1, 5, 5, 1), kernel_size=1).sum().backward()
    assert torch.equal(offset.grad[0, :4, :4], torch.tensor([1.0, 5.0]).expand(4, 4, 2))


def test_samples_outside_have_no_gradient() -> None:
    x, mask = normal(1, 5, 5, 1).requires_grad_(), torch.ones(1, 5, 5, 1, dtype=torch.float64)
    offset = torch.tensor([float("nan"), 99.0], dtype=torch.float64).repeat(1, 5, 5, 1).requires_grad_()
    dcnv3(x, offset, mask, kernel_size=1).sum().backward()
    assert not x.grad.any()
    assert not offset.grad.any()


# ------------------------------------------------------------------------------------------------------------------- forms
def test_dcnv4_is_dcnv3_on_one_tensor() -> None:
    x, offset, mask = window_inputs()
    assert torch.equal(dcnv4(x, joined(offset, mask), **WINDOW), dcnv3(x, offset, mask, **WINDOW))
    normed = mask.unflatten(-1, (2, 5)).softmax(-1).flatten(-2)
    assert torch.allclose(dcnv4(x, joined(offset, mask), **WINDOW, softmax=True), dcnv3(x, offset, normed, **WINDOW), rtol=0, atol=1e-14)


def test_flash_deform_attn_takes_locations_and_logits_in_one_tensor() -> None:
    value, locations, logits = attention_inputs()
    sampling = torch.cat([locations.flatten(3), logits.flatten(3)], -1)
    wanted = attend(value, locations, logits.flatten(3).softmax(-1).reshape(logits.shape))
    assert torch.allclose(flash_deform_attn(value, SHAPES, STARTS, sampling, points=3), wanted, rtol=0, atol=1e-14)
    with pytest.raises(InvalidArgument, match="sampling has 18 numbers per head; wanted 24"):
        flash_deform_attn(value, SHAPES, STARTS, sampling, points=4)


def test_torch_operators_pass_torchs_own_checks() -> None:
    x, offset, mask = window_inputs(torch.float32)
    window = ([3, 2], [2, 1], [1, 1, 1, 1], [1, 1], 2, 1.5, 1)
    torch.library.opcheck(torch.ops.deploydcn.dcnv3.default, (x, offset, mask, *window))
    torch.library.opcheck(torch.ops.deploydcn.dcnv4.default, (x, joined(offset, mask), *window, 1))
    value, locations, weights = attention_inputs(torch.float32)
    torch.library.opcheck(torch.ops.deploydcn.ms_deform_attn.default, (value, SHAPES, STARTS, locations, weights))


def test_half_precision_keeps_float32_positions() -> None:
    x, offset, mask = window_inputs(torch.float32)
    value, locations, weights = attention_inputs(torch.float32)
    calls = {
        "dcnv3": lambda cast: dcnv3(cast(x), offset, cast(mask), **WINDOW),
        "dcnv4": lambda cast: dcnv4(cast(x), joined(offset, mask), **WINDOW),
        "ms_deform_attn": lambda cast: attend(cast(value), locations, cast(weights)),
    }
    for call in calls.values():
        wanted, got = call(lambda tensor: tensor), call(Tensor.half)
        assert got.dtype == torch.float16
        assert (got.float() - wanted).abs().max() < 5e-3 * wanted.abs().max()
        with torch.autocast("cpu", torch.bfloat16):
            assert call(lambda tensor: tensor).dtype == torch.bfloat16
    assert dcnv3(x.half(), offset.half(), mask.half(), **WINDOW).dtype == torch.float16


def test_what_does_not_fit_is_refused() -> None:
    x, offset, mask = window_inputs()
    with pytest.raises(InvalidArgument, match=r"DCNv3 input offset: dimension 3 is 20; wanted 24 = 2\*G\*P"):
        dcnv3(x, offset, mask, **{**WINDOW, "remove_center": False})
    with pytest.raises(InvalidArgument, match=r"DCNv3: P is 0; wanted at least 1 = KH\*KW - RC"):
        dcnv3(x, offset, mask, kernel_size=1, remove_center=True)
    with pytest.raises(InvalidArgument, match=r"DCNv4 input offset_mask: dimension 3 is 30; wanted 32 = \(3\*G\*P \+ 7\)//8\*8"):
        dcnv4(x, joined(offset, mask)[..., :30], **WINDOW)
    value, locations, weights = attention_inputs()
    with pytest.raises(InvalidArgument, match=r"input spatial_shapes: dimension 1 is 3; wanted 2; check the input shapes"):
        ms_deform_attn(value, torch.ones(2, 3, dtype=torch.int64), STARTS, locations, weights)
    with pytest.raises(InvalidArgument, match=r"level 1 is 2x2 pixels from pixel 13 on; wanted at least 1x1, within the 16 pixels"):
        ms_deform_attn(value, SHAPES, STARTS + 1, locations, weights)
