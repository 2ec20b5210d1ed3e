"""RoI pooling: boxes that are none, and configurations that hypothesis draws."""

from __future__ import annotations

import os
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from deploydcn.errors import DeployDcnError, InvalidArgument
from deploydcn.ops import op_named
from deploydcn.testing.plugins import run_kernel, run_plugin
from tests.conformance.backends import BACKENDS, numpy_dtype
from tests.conformance.tolerances import TOLERANCE

EMULATION = [pytest.mark.backend("emulation"), pytest.mark.slow]
FLOATS = {"T": "float32", "T1": "float32"}
OPERATORS = ("DeformRoIPool", "DeformPSRoIPool")
Configuration = tuple[dict[str, np.ndarray], dict[str, Any], dict[str, str]]  # inputs, attributes, types


# ----------------------------------------------------------------------------------------------------- bad batch index
def with_bad_box(name: str, index: float) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Four sound boxes of two images; the third one's batch index is replaced."""
    rng = np.random.default_rng(0)
    boxes = np.array([[image, 1, 2, 8, 9] for image in (1, 0, 1, 0)], np.float32)
    boxes[2, 0] = index
    attributes = {"output_height": 2, "output_width": 3} if name == "DeformRoIPool" else {"output_dim": 3, "pooled_size": 2}
    return {"input": rng.standard_normal((2, 3, 9, 11)).astype(np.float32), "rois": boxes}, attributes


@pytest.mark.parametrize("index", [2.0, -1.0, -7.5, 1e9, 3e38, float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", OPERATORS)
def test_a_box_that_names_no_image_is_refused_by_name(name: str, index: float) -> None:
    op, (inputs, attributes) = op_named(name), with_bad_box(name, index)
    with pytest.raises(InvalidArgument) as raised:
        op.reference(inputs, attributes)
    message = f"{name} input rois: box 2 has batch index {index:g}; wanted 0 or more and less than N = 2; check the boxes"
    assert str(raised.value) == message
    for backend in ("ort", "torch"):
        with pytest.raises(DeployDcnError) as refused:
            BACKENDS[backend](op, inputs, attributes, FLOATS)
        assert message in str(refused.value)


@pytest.mark.parametrize("index", [2.0, -1.0, 3e38, pytest.param(float("nan"), id="nan"), float("-inf")])
@pytest.mark.parametrize("engine", ["source", "ptx75", "ptx80"])
@pytest.mark.parametrize("name", [pytest.param(name, marks=EMULATION) for name in OPERATORS])
def test_on_the_gpu_it_gives_nan_and_touches_no_other_box(name: str, engine: Any, index: float) -> None:
    inputs, attributes = with_bad_box(name, index)
    sound, _ = with_bad_box(name, 1.0)
    got, wanted = run_plugin(name, inputs, attributes, engine=engine), op_named(name).reference(sound, attributes)
    assert np.isnan(got[0][2]).all()
    for output, right in zip(got, wanted, strict=True):
        assert np.abs(output - right)[[0, 1, 3]].max() < TOLERANCE["float32"] * np.abs(right).max()
    if name == "DeformPSRoIPool":
        assert (got[1][2] == 0).all()


# -------------------------------------------------------------------------------------------------------- any boxes
BOX_KINDS = {
    "sound": lambda rng: np.concatenate([corner := rng.uniform(-8, 30, 2), corner + rng.uniform(1, 40, 2)]),
    "integer": lambda rng: rng.integers(-6, 40, 4).astype(float),
    "half": lambda rng: rng.integers(-12, 80, 4) / 2,
    "tiny": lambda rng: np.concatenate([corner := rng.uniform(0, 30, 2), corner + rng.uniform(0, 1e-3, 2)]),
    "empty": lambda rng: np.tile(rng.uniform(0, 30, 2), 2),
    "inverted": lambda rng: np.concatenate([corner := rng.uniform(5, 30, 2), corner - rng.uniform(1, 40, 2)]),
    "far": lambda rng: rng.uniform(-400, 400, 4),
    "huge": lambda rng: rng.standard_normal(4) * 10.0 ** rng.uniform(3, 30),
    "broken": lambda rng: rng.choice(np.array([np.nan, np.inf, -np.inf, 4.0]), 4),
}


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """What both operators need; each takes its part."""
    small = st.integers(1, 4)
    return {
        "batch": draw(st.integers(1, 3)),
        "channels": draw(st.integers(1, 9)),
        "image": (draw(st.integers(1, 12)), draw(st.integers(1, 12))),
        "kinds": draw(st.lists(st.sampled_from(sorted(BOX_KINDS)), max_size=5)),
        "pooled": (draw(st.integers(1, 5)), draw(st.integers(1, 5))),
        "scale": draw(st.sampled_from([1.0, 0.5, 0.25, 0.0625, 0.3, 1.7])),
        "samples": draw(st.integers(0, 3)),
        "strength": draw(st.sampled_from([0.1, 1.0, -0.3])),
        "group": draw(small),
        "part": draw(small),
        "classes": draw(st.integers(1, 3)),
        "spread": draw(st.sampled_from([None, 0.0, 0.5, 5.0, 1e30, float("nan")])),
        "row": draw(st.integers(0, 6)),
        "seed": draw(st.integers(0, 2**31)),
    }


def build(name: str, c: dict[str, Any]) -> Configuration:
    """The configuration as (inputs, attributes, types) of an operator."""
    rng, (ph, pw) = np.random.default_rng(c["seed"]), c["pooled"]
    types = dict(op_named(name).spec.type_rows[c["row"]])
    boxes = [np.concatenate([[rng.integers(c["batch"])], BOX_KINDS[kind](rng)]) for kind in c["kinds"]]
    attributes: dict[str, Any] = {"spatial_scale": c["scale"]}
    if name == "DeformRoIPool":
        channels, offsets = c["channels"], (2, ph, pw)
        attributes |= {"output_height": ph, "output_width": pw, "sampling_ratio": c["samples"], "gamma": c["strength"]}
    else:
        outputs = c["classes"] * (1 + c["channels"] % 2)
        channels, offsets = outputs * c["group"] ** 2, (2 * c["classes"], c["part"], c["part"])
        attributes |= {"output_dim": outputs, "group_size": c["group"], "pooled_size": ph, "part_size": c["part"]}
        attributes |= {"sample_per_part": c["samples"] + 1, "trans_std": c["strength"], "classes": c["classes"]}
    inputs = {"input": rng.standard_normal((c["batch"], channels, *c["image"])), "rois": np.array(boxes).reshape(-1, 5)}
    if c["spread"] is not None:
        inputs["offset"] = rng.standard_normal((len(boxes), *offsets)) * c["spread"]
    with np.errstate(over="ignore"):
        rounded = {key: value.astype(numpy_dtype(types["T" if key == "input" else "T1"])) for key, value in inputs.items()}
    return rounded, attributes, types


def assert_right(name: str, got: list[np.ndarray], configuration: Configuration) -> None:
    """A mean of samples is as exact as the samples, each an average of pixels; counts are exact but for the type they are stored in."""
    inputs, attributes, types = configuration
    span = float(np.abs(inputs["input"].astype(np.float64)).max())
    for output, wanted in zip(got, op_named(name).reference(inputs, attributes), strict=True):
        rounding = TOLERANCE[types["T"]]
        bound = rounding * np.abs(wanted) + TOLERANCE["float64" if types["T"] == "float64" else "float32"] * span
        assert output.shape == wanted.shape
        assert (np.abs(output.astype(np.float64) - wanted) <= bound).all(), (attributes, types)


def any_configuration(examples: int) -> Any:
    checks = settings(max_examples=examples, deadline=None, derandomize="CI" in os.environ, suppress_health_check=list(HealthCheck))
    return lambda test: checks(given(configurations())(test))()


@pytest.mark.slow
@pytest.mark.backend("ort")
@pytest.mark.parametrize("backend", ["ort", "torch"])
@pytest.mark.parametrize("name", OPERATORS)
def test_any_boxes(name: str, backend: str) -> None:
    @any_configuration(80)
    def check(c: dict[str, Any]) -> None:
        inputs, attributes, types = build(name, c)
        assert_right(name, BACKENDS[backend](op_named(name), inputs, attributes, types), (inputs, attributes, types))


@pytest.mark.backend("emulation")
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["source", "ptx80"])
@pytest.mark.parametrize("name", OPERATORS)
def test_any_boxes_through_the_plugin(name: str, engine: Any) -> None:
    @any_configuration(60)
    def check(c: dict[str, Any]) -> None:
        inputs, attributes, types = build(name, c)
        if "float64" in types.values():
            return
        for run in (run_plugin, run_kernel):
            got = run(name, inputs, attributes, engine=engine, schedule="rand", seed=c["seed"] % 1000)
            assert_right(name, got, (inputs, attributes, types))
