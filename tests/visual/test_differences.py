"""Sampling points of two sides, compared: nothing is found where nothing is planted, and what is planted is found where it is."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from deploydcn.export import export_onnx
from deploydcn.visual import sampling_differences, watch
from tests.visual.test_visualize import small_net

pytestmark = pytest.mark.backend("ort")
EXAMPLE = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_a_file_looks_where_its_model_looks(tmp_path: Path) -> None:
    export_onnx(small_net(), EXAMPLE, tmp_path / "m.onnx")
    eager, _ = watch((small_net(), EXAMPLE), {})
    file, notes = watch(tmp_path / "m.onnx", {"input": EXAMPLE})
    found = sampling_differences(eager, file)
    assert [item.layer for item in found] == ["1", "3", "4"]
    assert all(item.largest < 1e-3 and item.share == 0 for item in found)  # float32 offsets, sums in another order
    assert notes == []


def test_swapped_offsets_are_found_in_their_layer() -> None:
    """The planted bug: (x, y) for (y, x) in the second layer; the first stays equal."""
    model = small_net()
    planted = deepcopy(model)
    branch, swap = planted[3].offset_conv, np.arange(36) ^ 1
    branch.weight.data[:36], branch.bias.data[:36] = branch.weight.data[swap], branch.bias.data[swap]
    first, second, _ = sampling_differences(watch((model, EXAMPLE), {})[0], watch((planted, EXAMPLE), {})[0])
    assert first.largest == 0
    assert second.largest > 0.3
    assert second.share > 0.3
    apart = np.linalg.norm(second.reference - second.candidate, axis=1)
    assert apart.max() == pytest.approx(second.largest)
    assert len(second.reference) == 2 * 9


def test_lost_points_differ_unless_both_are_lost() -> None:
    model, planted = small_net(), small_net()
    planted[4].offset_conv.bias.data[0] = float("nan")
    fine, broken = (watch((item, EXAMPLE), {})[0] for item in (model, planted))
    assert sampling_differences(fine, broken)[2].largest == np.inf
    assert sampling_differences(broken, broken)[2].largest == 0
    assert [item.layer for item in sampling_differences(fine, fine[:1])] == ["1"]
