"""The CPU kernels under sanitizers, on every instruction set, with shapes that hypothesis draws."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from deploydcn.libraries import BFLOAT16_ISAS
from deploydcn.ops import OPS, Op, op_named
from tests.conformance.backends import numpy_dtype
from tests.conformance.strategies import STRATEGIES
from tests.conformance.test_conformance import inputs_of
from tests.conformance.tolerances import allowed, largest_error
from tests.cpp.driver import ROOT, DriverCase, build_driver, run_driver

pytestmark = pytest.mark.slow


def runnable_isas() -> list[str]:
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "").split()
    avx512 = {"avx512f", "avx512dq", "avx512bw", "avx512vl"}
    amx = {*avx512, "amx_tile", "amx_bf16", "amx_int8"}
    vnni = {*avx512, "avx512_vnni"}
    needs = {"avx2": {"avx2", "fma"}, "avx512": avx512, "avx512vnni": vnni, "avx512bf16": {*vnni, "avx512_bf16"}, "amx": amx}
    return ["baseline", *(isa for isa, wanted in needs.items() if wanted <= set(flags))]


def table(op: Op, types: Mapping[str, str]) -> list[DriverCase]:
    return [DriverCase(op.spec, inputs_of(op, case, types), case.attributes, types) for case in op.cases]


def assert_equal_reference(op: Op, cases: list[DriverCase], results: list[Any]) -> None:
    for case, result in zip(cases, results, strict=True):
        wanted = op.reference(case.inputs, case.attributes)
        assert not isinstance(result, str), result
        shapes = {name: value.shape for name, value in case.inputs.items()}
        assert largest_error(result, wanted) <= allowed(case.types, case.attributes), (case.attributes, shapes)


@pytest.mark.parametrize("isa", runnable_isas())
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.spec.snake_name)
def test_every_isa_under_asan_and_ubsan(op: Op, isa: str) -> None:
    for types in op.spec.type_rows:
        cases = table(op, types)
        assert_equal_reference(op, cases, run_driver(cases, sanitizers="address,undefined", threads=2, isa=isa))


def assert_rounded_only(cases: list[DriverCase], results: list[Any]) -> None:
    for case, result in zip(cases, results, strict=True):
        assert not isinstance(result, str), result
        error = largest_error(result, op_named(case.spec.name).reference(case.inputs, case.attributes))
        # Half a unit of 8 bits on either factor and on the image: 5.9e-3 of a product, and few sums are all of one sign.
        assert error <= 5.9e-3, (case.attributes, {name: value.shape for name, value in case.inputs.items()})


# Elsewhere the option changes nothing.
ROUNDING_ISAS = [isa for isa in runnable_isas() if isa in BFLOAT16_ISAS] or ["baseline"]


@pytest.mark.parametrize("isa", ROUNDING_ISAS)
@pytest.mark.parametrize("op", [op for op in OPS if op.spec.type_rows[0]["T"] == "float32"], ids=lambda op: op.spec.snake_name)
def test_bfloat16_products_round_factors_and_images_only(op: Op, isa: str) -> None:
    cases = table(op, op.spec.type_rows[0])
    assert_rounded_only(cases, run_driver(cases, sanitizers="address,undefined", threads=2, products="bfloat16", isa=isa))


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.spec.snake_name)
def test_eight_callers_share_one_kernel_under_tsan(op: Op) -> None:
    cases = table(op, op.spec.type_rows[0])
    assert_equal_reference(op, cases, run_driver(cases, sanitizers="thread", threads=2, callers=8))


@pytest.mark.parametrize("name", STRATEGIES)
def test_any_shape_under_asan_and_ubsan(name: str) -> None:
    build_driver("address,undefined")

    @settings(max_examples=60, deadline=None, derandomize="CI" in os.environ, suppress_health_check=list(HealthCheck))
    @given(st.lists(STRATEGIES[name].cases, min_size=5, max_size=5), st.sampled_from(runnable_isas()), st.integers(1, 3))
    def check(cases: list[DriverCase], isa: str, threads: int) -> None:
        assert_equal_reference(op_named(name), cases, run_driver(cases, sanitizers="address,undefined", threads=threads, isa=isa))

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


EDGES = [15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 95, 97, 129]


def edge_cases() -> Iterator[DriverCase]:
    """Channels, outputs and pixels each take every size of EDGES, in an order of their own."""
    rng = np.random.default_rng(1)
    types = {"T": "float32", "T1": "float32"}
    for index, channels in enumerate(EDGES):
        outputs, pixels = EDGES[(5 * index + 3) % len(EDGES)], EDGES[(8 * index + 1) % len(EDGES)] * (1 + 2 * (index % 2))
        shapes = {"X": (1, channels, 1, pixels), "W": (outputs, channels, 1, 3), "offset": (1, 6, 1, pixels)}
        inputs = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
        yield DriverCase(op_named("DeformConv2d").spec, inputs, {"pads": (0, 1, 0, 1)}, types)
        plain = {"X": inputs["X"], "W": inputs["W"]}
        yield DriverCase(op_named("GroupedConv2d").spec, plain, {"pads": (0, 1, 0, 1)}, {"T": "float32"})


@pytest.mark.parametrize("isa", runnable_isas())
def test_sizes_around_whole_vectors_tiles_and_blocks(isa: str) -> None:
    cases = list(edge_cases())
    results = run_driver(cases, sanitizers="address,undefined", threads=2, isa=isa)
    for case, result in zip(cases, results, strict=True):
        assert_equal_reference(op_named(case.spec.name), [case], [result])


@pytest.mark.parametrize("isa", ROUNDING_ISAS)
def test_bfloat16_products_of_sizes_around_whole_vectors_tiles_and_blocks(isa: str) -> None:
    cases = list(edge_cases())
    assert_rounded_only(cases, run_driver(cases, sanitizers="address,undefined", threads=2, products="bfloat16", isa=isa))


def whole_block_cases() -> Iterator[DriverCase]:
    """Layers whose channels and outputs fill blocks, which fewer products suffice for: any number of pixels, groups, taps and types."""
    rng = np.random.default_rng(2)
    op = op_named("DeformConv2d")
    pixels = itertools.cycle([1, 3, 15, 17, 31, 55, 57, 111, 113, 115, 225])
    for types in op.spec.type_rows:
        for channels, outputs, group, offset_group, kernel in (
            (64, 64, 1, 1, 3),
            (128, 125, 1, 2, 3),
            (256, 128, 2, 2, 2),
            (32, 192, 1, 1, 5),
            (64, 448, 1, 1, 3),
            (64, 90, 1, 1, 3),  # the last column of outputs is half as wide: with AVX-512,
            (128, 44, 1, 4, 3),  # with AVX2,
            (96, 20, 1, 1, 3),  # with SSE2
            (64, 64, 1, 8, 3),  # offset groups that share a block are halves of vectors: with AVX-512,
            (64, 20, 2, 16, 3),  # with AVX2,
            (64, 20, 1, 32, 2),  # with SSE2
        ):
            batch, grows = 1 + outputs % 2, 1 - kernel % 2  # an even window, padded as much, has an output pixel more
            height, width = 2 if grows else 1, next(pixels)
            shapes = {"X": (batch, channels, height, width), "W": (outputs, channels // group, kernel, kernel), "B": (outputs,)}
            shapes["offset"] = (batch, 2 * offset_group * kernel**2, height + grows, width + grows)
            inputs = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
            attributes = {"pads": (kernel // 2,) * 4, "group": group, "activation": "relu"}
            typed = {name: value.astype(numpy_dtype(types["T1" if name == "offset" else "T"])) for name, value in inputs.items()}
            yield DriverCase(op.spec, typed, {**attributes, "offset_group": offset_group}, types)
            if types["T"] == types["T1"]:
                plain = {name: typed[name] for name in ("X", "W", "B")}
                yield DriverCase(op_named("GroupedConv2d").spec, plain, attributes, {"T": types["T"]})


@pytest.mark.parametrize("isa", runnable_isas())
def test_whole_blocks_of_channels_and_outputs(isa: str) -> None:
    cases = list(whole_block_cases())
    for products in ("", "precise"):
        results = run_driver(cases, sanitizers="address,undefined", threads=2, isa=isa, products=products)
        for case, result in zip(cases, results, strict=True):
            assert_equal_reference(op_named(case.spec.name), [case], [result])


def cases_of_several_chunks() -> Iterator[DriverCase]:
    """Images that are copied in several chunks, some of them shorter than a row, when a sample near or far first reads them."""
    rng = np.random.default_rng(3)
    op = op_named("DeformConv2d")
    for types in op.spec.type_rows:
        for channels, outputs, group, offset_group in ((64, 16, 1, 1), (20, 20, 20, 2), (32, 16, 8, 1), (160, 64, 1, 2)):
            for height, width, reach in ((33, 29, 0.5), (21, 37, 20), (2, 600, 40)):
                shapes = {"X": (2, channels, height, width), "W": (outputs, channels // group, 3, 2)}
                shapes["offset"] = (2, 12 * offset_group, height, width - 1)
                inputs = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
                inputs["offset"] *= reach
                typed = {name: value.astype(numpy_dtype(types["T1" if name == "offset" else "T"])) for name, value in inputs.items()}
                attributes = {"pads": (1, 0, 1, 0), "group": group, "offset_group": offset_group}
                yield DriverCase(op.spec, typed, attributes, types)


@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_threads_copy_what_they_sample(sanitizers: str) -> None:
    cases = list(cases_of_several_chunks())
    results = run_driver(cases, sanitizers=sanitizers, threads=4, callers=2)
    for case, result in zip(cases, results, strict=True):
        assert_equal_reference(op_named("DeformConv2d"), [case], [result])


def cases_of_windows() -> Iterator[DriverCase]:
    """Images of which a thread keeps the rows around its samples, where these lie near, and copies everything where they do not."""
    rng = np.random.default_rng(6)
    for name in ("DeformConv2d", "GroupedConv2d"):
        spec = op_named(name).spec
        for types in spec.type_rows:
            for height, width, stride in ((150, 20, 1), (61, 64, 1), (131, 45, 2)):
                for reach in (0.5, 3, 60) if name == "DeformConv2d" else (0,):
                    shapes = {"X": (2, 24, height, width), "W": (8, 24, 3, 2)}
                    if reach:
                        shapes["offset"] = (2, 12, (height - 1) // stride + 1, (width - 2) // stride + 1)
                    inputs = {key: rng.standard_normal(shape) * (reach if key == "offset" else 1) for key, shape in shapes.items()}
                    typed = {key: value.astype(numpy_dtype(types["T1" if key == "offset" else "T"])) for key, value in inputs.items()}
                    yield DriverCase(spec, typed, {"pads": (1, 0, 1, 0), "strides": (stride, stride)}, types)


@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_threads_sample_windows_of_large_images(sanitizers: str) -> None:
    cases = list(cases_of_windows())
    results = run_driver(cases, sanitizers=sanitizers, threads=3, callers=2)
    for case, result in zip(cases, results, strict=True):
        assert_equal_reference(op_named(case.spec.name), [case], [result])


def group_cases() -> Iterator[DriverCase]:
    """One to eight channels per group, which stay in their lanes, and more, which are multiplied, of fewer, as many and more outputs, in
    channel blocks that threads take for themselves, and in some whose image is too large for that."""
    rng = np.random.default_rng(4)
    op = op_named("DeformConv2d")
    sizes = itertools.cycle([(33, 37), (1, 1), (41, 29), (3, 5)])
    for types in op.spec.type_rows:
        for channels, outputs, groups, offset_groups, pixels in (
            (1, 1, 150, 1, next(sizes)),
            (1, 3, 70, 2, next(sizes)),
            (2, 2, 65, 1, next(sizes)),
            (2, 3, 40, 4, next(sizes)),
            (4, 4, 36, 3, next(sizes)),
            (4, 9, 17, 1, next(sizes)),
            (8, 5, 18, 1, next(sizes)),
            (8, 8, 18, 2, next(sizes)),
            (8, 24, 9, 9, next(sizes)),
            (1, 1, 16, 1, (140, 130)),
            (16, 16, 8, 2, next(sizes)),
            (32, 40, 6, 1, next(sizes)),
            (24, 70, 3, 9, next(sizes)),
            (128, 20, 3, 2, next(sizes)),
            (64, 64, 2, 1, (70, 65)),
            (12, 12, 17, 1, (5, 4)),  # the last block is narrower, and where it was copied to the next image's first follows
        ):
            height, width = pixels
            shapes = {
                "X": (1 + groups % 2, channels * groups, height, width),
                "W": (outputs * groups, channels, 2, 2),
                "B": (outputs * groups,),
            }
            shapes["offset"] = (1 + groups % 2, 8 * offset_groups, height, width)
            inputs = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
            typed = {name: value.astype(numpy_dtype(types["T1" if name == "offset" else "T"])) for name, value in inputs.items()}
            attributes = {"pads": (0, 1, 1, 0), "group": groups, "offset_group": offset_groups, "activation": "relu"}
            yield DriverCase(op.spec, typed, attributes, types)


@pytest.mark.parametrize(("sanitizers", "isa"), [*(("address,undefined", isa) for isa in runnable_isas()), ("thread", runnable_isas()[-1])])
def test_groups(sanitizers: str, isa: str) -> None:
    cases = list(group_cases())
    for case, result in zip(cases, run_driver(cases, sanitizers=sanitizers, threads=3, isa=isa), strict=True):
        assert_equal_reference(op_named("DeformConv2d"), [case], [result])


# Which are multiplied in 26 products for 32, and by Strassen's algorithm.
OUTPUTS = (64, 448)


def spoiled_case(value: float, place: str, outputs: int, groups: int = 1) -> tuple[DriverCase, np.ndarray]:
    rng = np.random.default_rng(0)
    image, weight = rng.random((1, 64 * groups, 9, 9)), rng.random((outputs, 64, 3, 3)) * 1e-3
    inputs = {"X": image, "W": weight, "offset": rng.standard_normal((1, 18, 9, 9))}
    inputs[place].reshape(-1)[[100, 1000]] = value
    attributes = {"pads": (1, 1, 1, 1), "group": groups}
    case = DriverCase(op_named("DeformConv2d").spec, inputs, attributes, {"T": "float32", "T1": "float32"})
    wanted = op_named("DeformConv2d").reference(inputs, case.attributes)[0].astype(np.float32)
    assert np.isfinite(wanted).any()
    return case, wanted


@pytest.mark.parametrize("isa", runnable_isas())
@pytest.mark.parametrize("place", ["X", "W"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan], ids=str)
def test_values_that_are_not_finite_spoil_no_sums_but_their_own(value: float, place: str, isa: str) -> None:
    """Matrix tiles take a float32 apart, and combined products add it to others, which an infinite one does not survive: such a
    call is computed again without them."""
    sizes = [(outputs, 1) for outputs in OUTPUTS] + [(256, 4)]
    cases, wanted = zip(*(spoiled_case(value, place, *size) for size in sizes), strict=True)
    for result, expected in zip(run_driver(cases, sanitizers="address,undefined", threads=2, isa=isa), wanted, strict=True):
        assert isinstance(result, list), result
        np.testing.assert_allclose(result[0], expected, rtol=1e-5)


@pytest.mark.parametrize("isa", runnable_isas())
@pytest.mark.parametrize("place", ["X", "W"])
def test_the_largest_values_overflow_no_sums_but_their_own(place: str, isa: str) -> None:
    cases, wanted = zip(*(spoiled_case(3.4e38, place, outputs) for outputs in OUTPUTS), strict=True)
    for products in ("precise", ""):
        for result, expected in zip(run_driver(cases, sanitizers="address,undefined", isa=isa, products=products), wanted, strict=True):
            assert isinstance(result, list), result
            largest = float(np.abs(expected[np.isfinite(expected)]).max())
            np.testing.assert_allclose(result[0], expected, **({"rtol": 1e-5} if products else {"atol": 5e-6 * largest}))


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


@st.composite
def depthwise_cases(draw: st.DrawFn) -> DriverCase:
    """Depthwise convolutions of images that are large enough for kernels of their own: every remainder of rows and of columns."""
    kernel, strides, dilations = ((draw(st.integers(1, most)), draw(st.integers(1, most))) for most in (10, 3, 3))
    wanted = draw(st.integers(1, 40)), draw(st.integers(1, 70))
    pads = tuple(draw(st.integers(0, 6)) for _ in range(4))
    reach = [(size - 1) * stride + (k - 1) * d + 1 for size, stride, k, d in zip(wanted, strides, kernel, dilations, strict=True)]
    image = [max(1, size - before - after) for size, before, after in zip(reach, pads[:2], pads[2:], strict=True)]
    channels, rng = draw(st.integers(1, 3)), np.random.default_rng(draw(st.integers(0, 2**31)))
    op = op_named("GroupedConv2d")
    types = draw(st.sampled_from(op.spec.type_rows))
    inputs = {"X": rng.standard_normal((2, channels, *image)), "W": rng.standard_normal((channels, 1, *kernel))}
    if draw(st.booleans()):
        inputs["B"] = rng.standard_normal(channels)
    activation = draw(st.sampled_from(["", "relu", "relu6", "silu"]))
    attributes = {"strides": strides, "dilations": dilations, "pads": pads, "group": channels, "activation": activation}
    return DriverCase(op.spec, {name: value.astype(numpy_dtype(types["T"])) for name, value in inputs.items()}, attributes, types)


@pytest.mark.parametrize("isa", runnable_isas())
def test_depthwise_convolutions_of_any_shape_under_asan_and_ubsan(isa: str) -> None:
    build_driver("address,undefined")

    @settings(max_examples=30, deadline=None, derandomize="CI" in os.environ, suppress_health_check=list(HealthCheck))
    @given(st.lists(depthwise_cases(), min_size=10, max_size=10), st.integers(1, 3))
    def check(cases: list[DriverCase], threads: int) -> None:
        results = run_driver(cases, sanitizers="address,undefined", threads=threads, isa=isa)
        assert_equal_reference(op_named("GroupedConv2d"), cases, results)

    check()
