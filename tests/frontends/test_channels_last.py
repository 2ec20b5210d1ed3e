"""InternImage's DCNv3 and DCNv4: kernels that are there, that are missing, and the PyTorch form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.frontends import foreign
from tests.frontends.channels_last import DCNv3, DCNv4
from tests.frontends.helpers import DYNAMIC, exported, image, largest, replaced, with_large_offsets

LAYERS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "dcnv3": ("DCNv3", DCNv3),
    "dcnv3_stride_scale": ("DCNv3", lambda: DCNv3(stride=2, offset_scale=2.0)),
    "dcnv3_without_centre": ("DCNv3", lambda: DCNv3(group=4, remove_center=True)),
    "dcnv3_in_pytorch": ("DCNv3", lambda: DCNv3(use_kernel=False, remove_center=True)),
    "dcnv4": ("DCNv4", lambda: DCNv4(8)),
    "dcnv4_without_centre": ("DCNv4", lambda: DCNv4(8, offset_scale=0.5, remove_center=True)),
}


@pytest.mark.parametrize(("operator", "build"), LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("runs_here", [True, False], ids=["compiled", "missing"])
def test_layers_compute_the_same(operator: str, build: Callable[[], nn.Module], runs_here: bool) -> None:
    torch.manual_seed(0)
    model, x = with_large_offsets(build()), image(8)
    with foreign.compiled(), torch.no_grad():
        wanted = model(x)
    if runs_here:
        with foreign.compiled():
            output, notes = replaced(model, x)
    else:
        output, notes = replaced(model, x, runs_here=False)
    assert largest(output, wanted) < 1e-5
    in_pytorch = not getattr(model, "use_kernel", True)
    assert ("equal within" if runs_here or in_pytorch else "not compared") in notes[0]


@pytest.mark.slow
@pytest.mark.backend("ort")
@pytest.mark.parametrize(("operator", "build"), LAYERS.values(), ids=LAYERS)
def test_layers_exported_with_dynamic_sizes(operator: str, build: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = with_large_offsets(build()), image(8)
    with foreign.compiled():
        with torch.no_grad():
            wanted = model(x)
        outputs, report = exported(model, (x,), tmp_path, dynamic_shapes=(DYNAMIC,))
    assert largest(outputs[0], wanted) < 1e-4
    assert report.operators == {f"deploydcn::{operator}": 1}
    assert len(report.checks) > 2
