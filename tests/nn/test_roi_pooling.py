"""RoI pooling in eager PyTorch: gradients, torch's own checks, types, and what the functional forms add."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deploydcn.errors import InvalidArgument
from deploydcn.nn import deform_psroi_pool, deform_roi_pool

pytestmark = pytest.mark.backend("torch")

ROIS = torch.tensor([[1, 2.3, 1.1, 17.9, 21.2], [0, -3.4, 4.7, 11.3, 30.1], [1, 8.2, 9.4, 30.7, 19.5]])


def features(channels: int = 4, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(2, channels, 9, 11, generator=torch.Generator().manual_seed(0)).to(dtype)


def offsets(channels: int, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(3, channels, size, size, generator=torch.Generator().manual_seed(1)).to(dtype)


def pool(x: Tensor, offset: Tensor | None, rois: Tensor = ROIS) -> Tensor:
    return deform_roi_pool(x, rois, offset, output_size=3, spatial_scale=0.3, gamma=0.4)


def psroi_pool(x: Tensor, offset: Tensor | None, rois: Tensor = ROIS) -> Tensor:
    options = {"output_dim": x.shape[1] // 4, "pooled_size": 3, "group_size": 2, "sample_per_part": 3, "trans_std": 0.4}
    return deform_psroi_pool(x, rois, offset, spatial_scale=0.3, **options)[0]


FORMS = pytest.mark.parametrize(("call", "offset_channels"), [(pool, 2), (psroi_pool, 4)], ids=["roi", "psroi"])


@FORMS
def test_gradient_of_the_features(call, offset_channels: int) -> None:
    x = features(8, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: call(x, offsets(offset_channels, 3, torch.float64)), (x,), fast_mode=True)


@FORMS
def test_gradient_of_the_offsets(call, offset_channels: int) -> None:
    """Against differences: positions are float32 whatever the type, so steps are larger than gradcheck's, on a smooth image."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 9), torch.linspace(0, 1, 11), indexing="ij")
    x = torch.stack([rows * (k + 1) - columns * (k - 3) for k in range(8)]).expand(2, 8, 9, 11).double()
    inner = torch.tensor([[0, 8.1, 8.2, 21.3, 19.4], [1, 10.2, 7.7, 22.6, 20.1], [0, 9.3, 9.9, 20.2, 18.8]])  # no edge within reach
    offset = (offsets(offset_channels, 3) * 0.2).double().requires_grad_()
    weight = torch.randn(call(x, offset, inner).shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((call(x, offset, inner) * weight).sum(), offset)
    step = torch.randn(offset.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 1e-2
    with torch.no_grad():
        difference = ((call(x, offset + step, inner) - call(x, offset - step, inner)) * weight).sum() / 2
    assert gradient.abs().max() > 0
    assert torch.isclose((gradient * step).sum(), difference, rtol=1e-3)


@FORMS
def test_without_boxes_the_gradient_is_zero(call, offset_channels: int) -> None:
    """A detector in training that proposes nothing: its features were used all the same."""
    x = features(8).requires_grad_()
    (gradient,) = torch.autograd.grad(call(x, offsets(offset_channels, 3)[:0], ROIS[:0]).sum(), x)
    assert torch.equal(gradient, torch.zeros_like(x))


def test_torch_operators_pass_torchs_own_checks() -> None:
    torch.library.opcheck(torch.ops.deploydcn.deform_roi_pool.default, (features(), ROIS, offsets(2, 3), 3, 3, 0.3, 0, 0.1))
    arguments = (features(8), ROIS, None, 0.3, 2, 2, 3, 3, 4, 0.1, 1)
    torch.library.opcheck(torch.ops.deploydcn.deform_psroi_pool.default, arguments)


@FORMS
def test_half_precision_keeps_float32_boxes(call, offset_channels: int) -> None:
    x = features(8).half()
    got, wanted = call(x, offsets(offset_channels, 3)), call(x.float(), offsets(offset_channels, 3))
    assert got.dtype == torch.float16
    assert (got.float() - wanted).abs().max() < 1e-3
    assert call(x, offsets(offset_channels, 3).half(), ROIS.half()).dtype == torch.float16
    with torch.autocast("cpu", torch.bfloat16):
        assert call(x.float(), offsets(offset_channels, 3)).dtype == torch.bfloat16


def test_a_mask_multiplies_the_output() -> None:
    mask = torch.rand(3, 1, 3, 3)
    plain = deform_roi_pool(features(), ROIS, output_size=3, spatial_scale=0.3)
    assert torch.equal(deform_roi_pool(features(), ROIS, output_size=3, spatial_scale=0.3, mask=mask), plain * mask)
    options = {"spatial_scale": 0.3, "output_dim": 4, "pooled_size": 3}
    output, count = deform_psroi_pool(features(), ROIS, **options)
    masked, same_count = deform_psroi_pool(features(), ROIS, **options, mask=mask)
    assert torch.equal(masked, output * mask)
    assert torch.equal(count, same_count)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"input offset: dimension 2 is 4; wanted 3 = PH"):
        deform_roi_pool(features(), ROIS, offsets(2, 4), output_size=3)
    with pytest.raises(InvalidArgument, match=r"OD is 4; wanted a multiple of CLS = 3"):
        deform_psroi_pool(features(), ROIS, offsets(6, 3), spatial_scale=1.0, output_dim=4, pooled_size=3)
    for offset, message in (
        (offsets(1, 3), "dimension 1 is 1; wanted 2"),
        (offsets(3, 3), "dimension 1 is 3; wanted 2"),
        (offsets(2, 3)[0, 0, 0], r"has shape \[3\]; wanted 4 dimensions"),
    ):
        with pytest.raises(InvalidArgument, match=f"DeformPSRoIPool input offset:? {message}"):
            deform_psroi_pool(features(), ROIS, offset, spatial_scale=1.0, output_dim=4, pooled_size=3)
    with pytest.raises(InvalidArgument, match="box 1 has batch index 2; wanted 0 or more and less than N = 2"):
        deform_roi_pool(features(), torch.tensor([[0.0, 0, 0, 4, 4], [2, 0, 0, 4, 4]]), output_size=2)
