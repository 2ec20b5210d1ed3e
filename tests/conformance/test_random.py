"""300 random configurations, all options mixed, against torchvision in float64; and dense special cases."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import HealthCheck, given, settings

from deploydcn.ops import op_named
from deploydcn.runners import load
from tests.conformance.backends import BACKENDS
from tests.conformance.single_node import single_node_model
from tests.conformance.strategies import STRATEGIES
from tests.conformance.tolerances import allowed, largest_error
from tests.cpp.driver import DriverCase

OP = op_named("DeformConv2d")
CONFIGURATIONS = 300
TYPES = {"T": "float32", "T1": "float32"}
TOLERANCE = 5e-6  # of the output's range: float32 rounding of sums of some hundred products


def random_configuration(seed: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Fractional, non-zero offsets; any groups, window and options; float32 inputs."""
    rng = np.random.default_rng(seed)
    group, offset_group = (int(rng.choice([1, 1, 2, 3, 4])) for _ in range(2))
    channels = int(np.lcm(group, offset_group)) * int(rng.integers(1, 9))
    outputs = group * int(rng.integers(1, 13))
    kernel = tuple(int(rng.integers(1, 6)) for _ in range(2))
    strides, dilations = (tuple(int(rng.integers(1, 4)) for _ in range(2)) for _ in range(2))
    pads = tuple(int(rng.integers(0, 4)) for _ in range(2)) * 2
    reach = [dilation * (size - 1) + 1 for dilation, size in zip(dilations, kernel, strict=True)]
    image = tuple(int(max(1, size - 2 * pad) + rng.integers(0, 12)) for size, pad in zip(reach, pads[:2], strict=True))
    attributes = {"strides": strides, "pads": pads, "dilations": dilations, "group": group, "offset_group": offset_group}
    x, w = (int(rng.integers(1, 4)), channels, *image), (outputs, channels // group, *kernel)
    n, _, oh, ow = OP.spec.output_shapes({"X": x, "W": w}, attributes)[0]
    taps = offset_group * kernel[0] * kernel[1]
    inputs = {"X": rng.standard_normal(x), "W": rng.standard_normal(w)}
    inputs["offset"] = rng.standard_normal((n, 2 * taps, oh, ow)) * rng.choice([0.3, 1.0, 4.0])
    if rng.random() < 0.5:
        inputs["B"] = rng.standard_normal(outputs)
    if rng.random() < 0.7:
        inputs["mask"] = rng.random((n, taps, oh, ow))
    return {name: value.astype(np.float32) for name, value in inputs.items()}, attributes


def torchvision_float64(inputs: dict[str, np.ndarray], attributes: dict[str, Any]) -> np.ndarray:
    t = {name: torch.from_numpy(value.astype(np.float64)) for name, value in inputs.items()}
    result = torchvision.ops.deform_conv2d(
        t["X"], t["offset"], t["W"], t.get("B"), attributes["strides"], attributes["pads"][:2], attributes["dilations"], t.get("mask")
    )
    return np.asarray(result.numpy())


@pytest.mark.backend("ort")
@pytest.mark.parametrize("block", [0, *(pytest.param(block, marks=pytest.mark.slow) for block in range(1, 6))])
def test_random_configurations_against_torchvision(block: int) -> None:
    mismatches = []
    for seed in range(block * CONFIGURATIONS // 6, (block + 1) * CONFIGURATIONS // 6):
        inputs, attributes = random_configuration(seed)
        wanted = torchvision_float64(inputs, attributes)
        span = float(wanted.max() - wanted.min()) or 1.0
        for got in (BACKENDS["ort"](OP, inputs, attributes, TYPES)[0], OP.reference(inputs, attributes)[0]):
            if not float(np.abs(got - wanted).max()) <= TOLERANCE * span:
                mismatches.append((seed, attributes))
    assert not mismatches


@pytest.mark.backend("ort")
@pytest.mark.parametrize("seed", range(8))
def test_zero_offsets_equal_the_dense_convolution(seed: int) -> None:
    inputs, attributes = random_configuration(seed)
    inputs["offset"][:] = 0
    inputs.pop("mask", None)
    bias = torch.from_numpy(inputs["B"]).double() if "B" in inputs else None
    x, w = (torch.from_numpy(inputs[name]).double() for name in ("X", "W"))
    wanted = torch.nn.functional.conv2d(
        x, w, bias, attributes["strides"], attributes["pads"][:2], attributes["dilations"], attributes["group"]
    ).numpy()
    got = BACKENDS["ort"](OP, inputs, attributes, TYPES)[0]
    assert float(np.abs(got - wanted).max()) <= TOLERANCE * float(np.ptp(wanted) or 1)


@pytest.mark.backend("ort")
def test_integer_offsets_equal_a_shifted_dense_convolution() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 4, 12, 13)).astype(np.float32), rng.standard_normal((5, 4, 3, 3)).astype(np.float32)
    offset = np.zeros((1, 18, 12, 13), np.float32)
    offset[:, 0::2], offset[:, 1::2] = 2, -1  # two rows down, one column left
    shifted = np.zeros_like(x)
    shifted[:, :, :-2, 1:] = x[:, :, 2:, :-1]
    wanted = torch.nn.functional.conv2d(torch.from_numpy(shifted), torch.from_numpy(w), padding=1).numpy()
    got = BACKENDS["ort"](OP, {"X": x, "W": w, "offset": offset}, {"pads": (1, 1, 1, 1)}, TYPES)[0]
    inner = (slice(None), slice(None), slice(1, -3), slice(2, -1))  # away from the borders, where the shift brings other pixels in
    assert float(np.abs(got[inner] - wanted[inner]).max()) <= 1e-5


@pytest.mark.backend("ort")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_non_finite_pixel_reaches_only_outputs_that_touch_it(value: float) -> None:
    rng = np.random.default_rng(0)
    inputs = {
        "X": rng.standard_normal((1, 16, 14, 15)).astype(np.float32),
        "W": rng.standard_normal((3, 16, 3, 3)).astype(np.float32),
        "offset": (rng.standard_normal((1, 18, 14, 15)) * 8).astype(np.float32),
    }
    clean = OP.reference(inputs, {"pads": (1, 1, 1, 1)})[0]
    inputs["X"][0, 3, 0, 0] = inputs["X"][0, 5, 13, 14] = value
    touched = ~np.isfinite(OP.reference(inputs, {"pads": (1, 1, 1, 1)})[0])
    got = BACKENDS["ort"](OP, inputs, {"pads": (1, 1, 1, 1)}, TYPES)[0]
    assert touched.any()
    assert not touched.all()
    assert np.isfinite(got[~touched]).all()
    assert float(np.abs(got - clean)[~touched].max()) <= 1e-5 * float(np.abs(clean).max())


@pytest.mark.backend("ort")
def test_one_session_called_from_eight_threads_gives_the_single_thread_results() -> None:
    from concurrent.futures import ThreadPoolExecutor

    inputs, attributes = random_configuration(3)
    weights = {name: inputs[name] for name in ("W", "B") if name in inputs}
    shapes = {
        name: tuple(f"{name}{i}" for i in range(value.ndim)) if name not in weights else value.shape for name, value in inputs.items()
    }
    runner = load(single_node_model(OP.spec, shapes, attributes, TYPES, constants=weights), "ort", threads=2)
    feeds = []
    for seed in range(16):
        rng = np.random.default_rng(seed)
        feed = {name: value + rng.standard_normal(value.shape).astype(np.float32) for name, value in inputs.items() if name not in weights}
        feeds.append(feed)
    alone = [runner.run(feed)["Y"] for feed in feeds]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda feed: runner.run(feed)["Y"], feeds * 4))
    for index, result in enumerate(together):
        assert np.array_equal(result, alone[index % 16])


@pytest.mark.backend("ort")
def test_one_dynamic_session_runs_several_shapes() -> None:
    inputs, attributes = random_configuration(5)
    model = single_node_model(
        OP.spec, {name: tuple(f"{name}{i}" for i in range(value.ndim)) for name, value in inputs.items()}, attributes, TYPES
    )
    runner = load(model, "ort")
    for grow in (0, 3, 7):
        x = np.random.default_rng(grow).standard_normal(
            (inputs["X"].shape[0] + grow, inputs["X"].shape[1], *(size + grow for size in inputs["X"].shape[2:]))
        )
        n, _, oh, ow = OP.spec.output_shapes({"X": x.shape, "W": inputs["W"].shape}, attributes)[0]
        feed = {"X": x.astype(np.float32), "W": inputs["W"]}
        feed["offset"] = np.random.default_rng(grow).standard_normal((n, inputs["offset"].shape[1], oh, ow)).astype(np.float32)
        if "B" in inputs:
            feed["B"] = inputs["B"]
        if "mask" in inputs:
            feed["mask"] = np.ones((n, inputs["mask"].shape[1], oh, ow), np.float32)
        wanted = torchvision_float64(feed, attributes)
        assert float(np.abs(runner.run(feed)["Y"] - wanted).max()) <= TOLERANCE * float(np.ptp(wanted))


@pytest.mark.slow
@pytest.mark.backend("ort")
@pytest.mark.parametrize("name", STRATEGIES)
def test_any_shape_in_onnxruntime(name: str) -> None:
    """What hypothesis draws, against the reference: the kernel behind ONNX Runtime's own shapes, types and memory."""

    @settings(max_examples=60, deadline=None, derandomize="CI" in os.environ, suppress_health_check=list(HealthCheck))
    @given(STRATEGIES[name].cases)
    def check(case: DriverCase) -> None:
        wanted = op_named(name).reference(case.inputs, case.attributes)
        got = BACKENDS["ort"](op_named(name), case.inputs, case.attributes, case.types)
        assert largest_error(got, wanted) <= allowed(case.types, case.attributes), (case.attributes, case.types)

    check()
