"""The CPU kernels under sanitizers, on every instruction set, with shapes that hypothesis draws."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from deploydcn.ops import OPS, Op
from tests.conformance.backends import numpy_dtype
from tests.conformance.test_conformance import inputs_of
from tests.conformance.tolerances import TOLERANCE, largest_error
from tests.cpp.driver import ROOT, DriverCase, build_driver, run_driver

pytestmark = pytest.mark.slow


def runnable_isas() -> list[str]:
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "").split()
    needs = {"avx2": {"avx2", "fma"}, "avx512": {"avx512f", "avx512dq", "avx512bw", "avx512vl"}}
    return ["baseline", *(isa for isa, wanted in needs.items() if wanted <= set(flags))]


def table(op: Op, types: Mapping[str, str]) -> list[DriverCase]:
    return [DriverCase(op.spec, inputs_of(op, case, types), case.attributes, types) for case in op.cases]


def assert_equal_reference(op: Op, cases: list[DriverCase], results: list[Any]) -> None:
    for case, result in zip(cases, results, strict=True):
        wanted = op.reference(case.inputs, case.attributes)
        assert not isinstance(result, str), result
        # A clamp can shrink the largest output, which errors are relative to.
        slack = 4 if case.attributes.get("activation") else 1
        shapes = {name: value.shape for name, value in case.inputs.items()}
        assert largest_error(result, wanted) <= slack * TOLERANCE[case.types["T"]], (case.attributes, shapes)


@pytest.mark.parametrize("isa", runnable_isas())
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.spec.snake_name)
def test_every_isa_under_asan_and_ubsan(op: Op, isa: str) -> None:
    for types in op.spec.type_rows:
        cases = table(op, types)
        assert_equal_reference(op, cases, run_driver(cases, sanitizers="address,undefined", threads=2, isa=isa))


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.spec.snake_name)
def test_eight_callers_share_one_kernel_under_tsan(op: Op) -> None:
    cases = table(op, op.spec.type_rows[0])
    assert_equal_reference(op, cases, run_driver(cases, sanitizers="thread", threads=2, callers=8))


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Any legal deformable or plain convolution of a few thousand operations, offsets of any magnitude."""
    small = st.integers(1, 4)
    group, offset_group = draw(small), draw(small)
    unit = int(np.lcm(group, offset_group))
    size = st.integers(1, 9)
    return {
        "batch": draw(st.integers(0, 3)),
        "channels": unit * draw(st.integers(1, 6)),
        "outputs": group * draw(st.integers(1, 20)),
        "image": (draw(size), draw(st.integers(1, 40))),
        "kernel": (draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        "group": group,
        "offset_group": offset_group,
        "strides": (draw(small), draw(small)),
        "dilations": (draw(small), draw(small)),
        "pads": tuple(draw(st.integers(0, 6)) for _ in range(4)),
        "bias": draw(st.booleans()),
        "mask": draw(st.booleans()),
        "constant": draw(st.booleans()),
        "activation": draw(st.sampled_from(["", "relu", "relu6", "silu"])),
        "spread": draw(st.sampled_from([0.0, 0.6, 3.0, 40.0, 1e6, 3e8, 1e30])),
        "row": draw(st.integers(0, 6)),
        "isa": draw(st.sampled_from(runnable_isas())),
        "threads": draw(st.integers(1, 3)),
        "seed": draw(st.integers(0, 2**31)),
    }


def build_case(op: Op, c: dict[str, Any]) -> DriverCase | None:
    """The configuration as a case of an operator; None where the window does not fit the image."""
    attributes = {name: c[name] for name in ("strides", "dilations", "pads", "group", "activation")}
    x = (c["batch"], c["channels"], *c["image"])
    weight = (c["outputs"], c["channels"] // c["group"], *c["kernel"])
    deformable = op.spec.name == "DeformConv2d"
    if deformable:
        attributes["offset_group"] = c["offset_group"]
    n, _, oh, ow = op.spec.output_shapes({"X": x, "W": weight}, attributes)[0]
    if oh < 1 or ow < 1:
        return None
    taps = c["offset_group"] * c["kernel"][0] * c["kernel"][1]
    rng = np.random.default_rng(c["seed"])
    inputs = {"X": rng.standard_normal(x), "W": rng.standard_normal(weight)}
    if deformable:
        inputs["offset"] = rng.standard_normal((n, 2 * taps, oh, ow)) * c["spread"]
    if c["bias"]:
        inputs["B"] = rng.standard_normal(c["outputs"])
    if deformable and c["mask"]:
        inputs["mask"] = rng.uniform(-1, 2, (n, taps, oh, ow))
    rows = op.spec.type_rows
    types = rows[c["row"] % len(rows)]
    param = {tensor.name: tensor.type_param for tensor in op.spec.inputs}
    with np.errstate(over="ignore"):
        rounded = {name: value.astype(numpy_dtype(types[param[name]])) for name, value in inputs.items()}
    return DriverCase(op.spec, rounded, attributes, types, frozenset({"W"}) if c["constant"] else frozenset())


@pytest.mark.parametrize("op", OPS[:2], ids=lambda op: op.spec.snake_name)
def test_any_shape_under_asan_and_ubsan(op: Op) -> None:
    build_driver("address,undefined")

    @settings(max_examples=60, deadline=None, derandomize="CI" in os.environ, suppress_health_check=list(HealthCheck))
    @given(st.lists(configurations(), min_size=5, max_size=5))
    def check(batch: list[dict[str, Any]]) -> None:
        cases = [case for c in batch if (case := build_case(op, c))]
        results = run_driver(cases, sanitizers="address,undefined", threads=batch[0]["threads"], isa=batch[0]["isa"])
        assert_equal_reference(op, cases, results)

    check()


def test_steps_beyond_every_image_overflow_nothing() -> None:
    """A single output row takes any stride, and finite offsets reach positions far beyond 32 bits of pixels."""
    rng = np.random.default_rng(0)
    types = {"T": "float32", "T1": "float32"}
    image, weight = rng.standard_normal((1, 1, 9, 9)), rng.standard_normal((1, 1, 3, 3))
    far = {"X": image, "W": weight, "offset": rng.standard_normal((1, 18, 7, 7)) * 3e8}
    one_row = {"X": image[:, :, :3], "W": weight, "offset": np.zeros((1, 18, 1, 7))}
    cases = [DriverCase(OPS[0].spec, far, {}, types), DriverCase(OPS[0].spec, one_row, {"strides": (2**62, 1)}, types)]
    for isa in runnable_isas():
        assert_equal_reference(OPS[0], cases, run_driver(cases, sanitizers="address,undefined", isa=isa))


def test_planted_overread_is_caught_by_asan() -> None:
    """A detector that never fires proves nothing: X claims one row more than its allocation holds."""
    case = DriverCase(OPS[1].spec, {"X": np.ones((1, 1, 3, 3)), "W": np.ones((1, 1, 2, 2))}, {}, {"T": "float32"})
    honest = run_driver([case], sanitizers="address,undefined")
    assert isinstance(honest[0], list)
    with pytest.raises(AssertionError, match="heap-buffer-overflow"):
        run_driver([replace(case, claimed_shapes={"X": (1, 1, 4, 3)})], sanitizers="address,undefined")


def test_planted_race_is_caught_by_tsan() -> None:
    """Two callers that write one output must be reported."""
    case = DriverCase(OPS[1].spec, {"X": np.ones((1, 4, 9, 9)), "W": np.ones((4, 4, 2, 2))}, {}, {"T": "float32"})
    with pytest.raises(AssertionError, match="data race"):
        run_driver([case], sanitizers="thread", callers=2, plant_shared_output=True)


def test_kernel_objects_share_no_inline_functions() -> None:
    """A weak symbol compiled for AVX-512 could be the one the linker keeps for everyone."""
    build_driver()
    folder = ROOT / "build" / "driver-plain" / "plugins"
    objects = sorted(folder.rglob("tile_kernels_*.cc.o"))
    assert len(objects) >= 1
    for path in objects:
        listing = subprocess.run(["nm", "-C", str(path)], capture_output=True, text=True, check=True).stdout
        defined = [line for line in listing.splitlines() if line.split()[-2] in "TWVDBRu" or " W " in line or " V " in line]
        foreign = [line for line in defined if "::kFloat" not in line and "::kDouble" not in line]
        assert not foreign, f"{path.name} exports {foreign}"
