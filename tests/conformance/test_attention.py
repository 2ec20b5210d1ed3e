"""Deformable attention against other ways to compute it, and levels that do not lie in the value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deploydcn.errors import DeployDcnError, InvalidArgument
from deploydcn.ops import op_named
from deploydcn.runners import load
from deploydcn.testing import run_plugin
from tests.conformance.backends import BACKENDS
from tests.conformance.single_node import single_node_model
from tests.conformance.tolerances import TOLERANCE, largest_error, relative_error

FLOATS = {"T": "float32", "T1": "float32", "I": "int64"}
EMULATION = [pytest.mark.backend("emulation"), pytest.mark.slow]


def attention(levels: list[tuple[int, int]], *, queries: int = 5, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    counts = [height * width for height, width in levels]
    each = (2, queries, 3, len(levels), 4)
    return {
        "value": rng.standard_normal((2, sum(counts), 3, 8)).astype(np.float32),
        "spatial_shapes": np.array(levels),
        "level_start_index": np.cumsum([0, *counts[:-1]]),
        "sampling_locations": rng.uniform(-0.2, 1.2, (*each, 2)).astype(np.float32),
        "attention_weights": rng.random(each).astype(np.float32),
    }


# ----------------------------------------------------------------------------------------------------------- other oracles
def test_ms_deform_attn_equals_grid_sample() -> None:
    """What Deformable DETR's PyTorch version does: one grid_sample per level."""
    import torch
    from torch.nn.functional import grid_sample

    inputs = attention([(9, 7), (5, 4), (1, 3)])
    value, locations, weights = (torch.from_numpy(inputs[name]).double() for name in ("value", "sampling_locations", "attention_weights"))
    total = torch.zeros(2, 5, 3, 8, dtype=torch.float64)
    for level, ((height, width), start) in enumerate(zip(inputs["spatial_shapes"], inputs["level_start_index"], strict=True)):
        image = value[:, start : start + height * width].permute(0, 2, 3, 1).reshape(6, 8, height, width)
        grid = locations[:, :, :, level].transpose(1, 2).reshape(6, 5, 4, 2) * 2 - 1
        sampled = grid_sample(image, grid, align_corners=False).reshape(2, 3, 8, 5, 4).permute(0, 3, 1, 4, 2)
        total += (weights[:, :, :, level, :, None] * sampled).sum(3)
    assert relative_error(op_named("MSDeformAttn").reference(inputs, {})[0], total.flatten(2).numpy()) < 1e-12


@pytest.mark.parametrize("backend", ["reference", "ort"])
@pytest.mark.parametrize(
    "attributes",
    [{}, {"strides": (2, 1), "dilations": (1, 2), "pads": (1, 2, 0, 3)}, {"kernel_shape": (4, 2)}, {"kernel_shape": (5, 3)}],
    ids=["default", "asymmetric", "even", "tall"],
)
def test_dcnv3_without_offsets_equals_a_box_filter(backend: str, attributes: dict[str, Any]) -> None:
    import torch

    op, rng = op_named("DCNv3"), np.random.default_rng(0)
    x = rng.standard_normal((2, 9, 8, 6)).astype(np.float32)
    attributes = {**attributes, "group": 2}
    n, oh, ow, _ = op.spec.output_shapes({"input": x.shape}, attributes)[0]
    kernel = attributes.get("kernel_shape", (3, 3))
    points = 2 * kernel[0] * kernel[1]
    inputs = {"input": x, "offset": np.zeros((n, oh, ow, 2 * points), np.float32), "mask": np.ones((n, oh, ow, points), np.float32)}
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    padded = torch.from_numpy(np.pad(x.astype(np.float64), ((0, 0), (top, bottom), (left, right), (0, 0)))).permute(0, 3, 1, 2)
    filters = torch.ones(6, 1, *kernel, dtype=torch.float64)
    window = (attributes.get("strides", (1, 1)), 0, attributes.get("dilations", (1, 1)))
    wanted = torch.nn.functional.conv2d(padded, filters, None, *window, groups=6).permute(0, 2, 3, 1).numpy()
    got = op.reference(inputs, attributes) if backend == "reference" else BACKENDS["ort"](op, inputs, attributes, FLOATS)
    assert relative_error(got[0], wanted) <= TOLERANCE["float32"]


def test_one_session_takes_other_levels_at_each_run() -> None:
    """Levels are data: nothing of a run may stay in the kernel."""
    op = op_named("MSDeformAttn")
    feeds = [attention(levels, queries=3 + i, seed=i) for i, levels in enumerate(([(4, 5), (2, 3)], [(7, 1), (1, 9)], [(1, 1), (8, 8)]))]
    shapes = {name: tuple(f"{name}{i}" for i in range(array.ndim)) for name, array in feeds[0].items()}
    runner = load(single_node_model(op.spec, shapes, {}, FLOATS), "ort", threads=2)
    for feed in (*feeds, *feeds):
        assert largest_error([runner.run(feed)["output"]], op.reference(feed, {})) <= TOLERANCE["float32"]


# ---------------------------------------------------------------------------------------------------- levels that are none
HUGE = 2**62
BAD_LEVELS = {
    "no_height": ((0, 3), 20, "level 1 is 0x3 pixels from pixel 20 on"),
    "negative_width": ((2, -3), 20, "level 1 is 2x-3 pixels"),
    "before_value": ((2, 3), -1, "from pixel -1 on"),
    "beyond_value": ((2, 3), 21, "within the 26 pixels of value"),
    "far_beyond": ((2, 3), HUGE, f"from pixel {HUGE} on"),
    "product_overflows": ((HUGE, 4), 0, f"level 1 is {HUGE}x4 pixels"),
    "product_wraps_to_0": ((2**33, 2**31), 0, "pixels from pixel 0 on"),
}


def with_bad_level(name: str) -> tuple[dict[str, np.ndarray], str]:
    shape, start, message = BAD_LEVELS[name]
    inputs = attention([(4, 5), (2, 3)])
    inputs["spatial_shapes"][1], inputs["level_start_index"][1] = shape, start
    return inputs, message


@pytest.mark.parametrize("name", BAD_LEVELS)
def test_a_level_outside_the_value_is_refused_by_name(name: str) -> None:
    op, (inputs, message) = op_named("MSDeformAttn"), with_bad_level(name)
    with pytest.raises(InvalidArgument) as raised:
        op.reference(inputs, {})
    assert message in str(raised.value)
    # The torch backend of these tests passes every number through float64, which cannot hold all of these.
    for backend in ("ort", "torch") if max(map(abs, (*BAD_LEVELS[name][0], BAD_LEVELS[name][1]))) < 2**53 else ("ort",):
        with pytest.raises(DeployDcnError) as refused:
            BACKENDS[backend](op, inputs, {}, FLOATS)
        assert str(raised.value) in str(refused.value)


@pytest.mark.parametrize("engine", ["source", "ptx75", "ptx80"])
@pytest.mark.parametrize("name", [pytest.param(name, marks=EMULATION) for name in BAD_LEVELS])
def test_on_the_gpu_it_gives_nan_and_is_not_read(name: str, engine: Any) -> None:
    """The emulator's memory ends where the tensors do: a read beyond fails the run."""
    inputs, _ = with_bad_level(name)
    assert np.isnan(run_plugin("MSDeformAttn", inputs, {}, engine=engine)[0]).all()
