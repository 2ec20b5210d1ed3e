"""The conformance table through real plugin objects and their kernels, on the emulator: sources and nvcc's PTX, every schedule."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from deploydcn.ops import GPU_OPS, Op, op_named
from deploydcn.ops.case import Case
from deploydcn.testing import PluginFailure, run_plugin
from deploydcn.testing.plugins import Engine, Schedule, run_kernel, run_ort_op
from tests.conformance.strategies import STRATEGIES, Strategy
from tests.conformance.test_conformance import inputs_of
from tests.conformance.tolerances import TOLERANCE, gpu_tolerance, largest_error, relative_error
from tests.cpp.driver import DriverCase, run_plugin_driver

pytestmark = [pytest.mark.backend("emulation"), pytest.mark.slow]

ENGINES: tuple[Engine, ...] = ("source", "ptx75", "ptx80")
SCHEDULES = ("seq", "rev", "rand")


def gpu_rows(op: Op) -> list[Mapping[str, str]]:
    return [types for types in op.spec.type_rows if "float64" not in types.values()]


def rows() -> Iterator[Any]:
    for engine in ENGINES:
        for op in GPU_OPS:
            for types in gpu_rows(op):
                if engine == "ptx75" and types["T"] == "bfloat16":
                    continue  # no such tensor cores before 8.0: refused, see below
                label = "_".join(dict.fromkeys(types.values()))
                for case in op.cases:
                    yield pytest.param(op, case, types, engine, id=f"{op.spec.snake_name}-{case.id}-{engine}-{label}")


@pytest.mark.parametrize(("op", "case", "types", "engine"), rows())
def test_plugin_equals_reference_on_every_schedule(op: Op, case: Case, types: Mapping[str, str], engine: Engine) -> None:
    inputs = inputs_of(op, case, types)
    runs = [run_plugin(op.spec.name, inputs, case.attributes, engine=engine, schedule=schedule, seed=7) for schedule in SCHEDULES]
    assert largest_error(runs[0], op.reference(inputs, case.attributes)) <= gpu_tolerance(op, types), case.why
    assert len({b"".join(output.tobytes() for output in outputs) for outputs in runs}) == 1


LINEAR = [(op, naive) for op in GPU_OPS for naive in (False, True) if not naive or op.spec.name in ("DeformConv2d", "GroupedConv2d")]


@pytest.mark.parametrize(("op", "naive"), LINEAR, ids=[f"{op.spec.snake_name}-{'naive' if naive else 'kernel'}" for op, naive in LINEAR])
def test_kernels_on_linear_layouts(op: Op, naive: bool) -> None:
    """What ONNX Runtime feeds them; TensorRT gives half precision in channels-last only. The naive kernels are second oracles."""
    for types in gpu_rows(op):
        for case in op.cases:
            inputs = inputs_of(op, case, types)
            got = run_kernel(op.spec.name, inputs, case.attributes, naive=naive)
            wanted = op.reference(inputs, case.attributes)
            assert largest_error(got, wanted) <= gpu_tolerance(op, types), (case.id, types)


def test_bfloat16_products_are_refused_before_compute_capability_8() -> None:
    op = next(op for op in GPU_OPS if op.spec.name == "GroupedConv2d")
    inputs = inputs_of(op, Case("bf16", {"X": (1, 16, 4, 4), "W": (16, 16, 1, 1)}), {"T": "bfloat16"})
    with pytest.raises(PluginFailure, match=r"bfloat16 needs a GPU of compute capability 8\.0 or newer; use float16"):
        run_plugin("GroupedConv2d", inputs, {}, engine="ptx75")


WIDE_TILES = Case("wide_tiles", {"X": (6, 72, 9, 9), "W": (136, 72, 3, 3), "offset": (6, 18, 9, 9)}, {"pads": (1, 1, 1, 1)})


@pytest.mark.parametrize("engine", ["source", "ptx80"])
def test_wide_tiles_where_they_keep_the_gpu_busy(engine: Engine) -> None:
    """More than 64 output channels and more blocks than the emulator's multiprocessors: the 128-column tiles."""
    op = next(op for op in GPU_OPS if op.spec.name == "DeformConv2d")
    inputs = inputs_of(op, WIDE_TILES, {"T": "float16", "T1": "float16"})
    outputs = [run_plugin("DeformConv2d", inputs, WIDE_TILES.attributes, engine=engine, schedule=s)[0] for s in SCHEDULES]
    assert relative_error(outputs[0], op.reference(inputs, WIDE_TILES.attributes)[0]) <= TOLERANCE["float16"]
    assert len({output.tobytes() for output in outputs}) == 1


def products(case: Case) -> int:
    """Multiplications of a row, roughly: ThreadSanitizer follows each emulated thread, at about 1e5 of them per second."""
    if "W" in case.shapes:
        x, w = case.shapes["X"], case.shapes["W"]
        return x[0] * x[2] * x[3] * math.prod(w)
    return 32 * max(math.prod(shape) for shape in case.shapes.values())


@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
@pytest.mark.parametrize("op", GPU_OPS, ids=lambda op: op.spec.snake_name)
def test_plugins_under_sanitizers(op: Op, sanitizers: str) -> None:
    """No access outside any tensor, and no race within or between blocks, whatever the offsets are."""
    limit = 1_000_000 if sanitizers == "thread" else None
    for types in gpu_rows(op):
        if sanitizers == "thread" and types["T"] == "bfloat16":
            continue  # the same kernels as for float16
        rows = [case for case in op.cases if limit is None or products(case) <= limit]
        assert len(rows) > len(op.cases) * 0.9
        cases = [DriverCase(op.spec, inputs_of(op, case, types), case.attributes, types) for case in rows]
        for case, result in zip(cases, run_plugin_driver(cases, sanitizers=sanitizers, schedule="rand"), strict=True):
            assert not isinstance(result, str), result
            assert largest_error(result, op.reference(case.inputs, case.attributes)) <= gpu_tolerance(op, types)


@pytest.mark.parametrize("op", GPU_OPS, ids=lambda op: op.spec.snake_name)
def test_onnxruntime_cuda_ops_on_a_fake_runtime(op: Op) -> None:
    """The same kernels as custom ops of the CUDA execution provider: on its stream, with its allocator."""
    for types in gpu_rows(op):
        for case in op.cases:
            inputs = inputs_of(op, case, types)
            got = run_ort_op(op.spec.name, inputs, case.attributes)
            assert largest_error(got, op.reference(inputs, case.attributes)) <= gpu_tolerance(op, types), (case.id, types)
    with pytest.raises(PluginFailure, match=r"no CUDA kernel for .* with these types"):
        run_ort_op(op.spec.name, inputs_of(op, op.cases[0], dict.fromkeys(op.spec.type_rows[0], "float64")), op.cases[0].attributes)


UNIT_ROUNDOFF = {"float32": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def error_bound(strategy: Strategy, case: DriverCase, wanted: np.ndarray) -> np.ndarray:
    """How far each output may be off: half an ulp of it, what rounding the products before they are summed costs (with few that
    cancel that is more than half an ulp of any result), and sums in float32, as in TOLERANCE."""
    unactivated = {"activation": ""} if "activation" in case.attributes else {}
    magnitude = np.abs(op_named(case.spec.name).reference(strategy.positive(case), {**case.attributes, **unactivated})[0])
    rounding = UNIT_ROUNDOFF[case.types["T"]] * (strategy.inner_rounding * magnitude + np.abs(wanted))
    return np.asarray(1.01 * rounding + TOLERANCE["float32"] * max(1e-2, float(np.max(magnitude, initial=0.0))))


@pytest.mark.parametrize("name", [name for name in STRATEGIES if op_named(name).spec.gpu])
def test_any_shape_through_the_plugin(name: str) -> None:
    """Configurations that hypothesis draws, positions of any magnitude, against the reference."""

    @settings(max_examples=150, deadline=None, derandomize="CI" in os.environ, suppress_health_check=list(HealthCheck))
    @given(STRATEGIES[name].cases, st.sampled_from(["source", "ptx80"]), st.sampled_from(SCHEDULES))
    def check(case: DriverCase, engine: Engine, schedule: Schedule) -> None:
        if "float64" in case.types.values():
            return
        wanted = op_named(name).reference(case.inputs, case.attributes)[0]
        bound = error_bound(STRATEGIES[name], case, wanted)
        for run in (run_plugin, run_kernel):
            got = run(name, case.inputs, case.attributes, engine=engine, schedule=schedule)[0]
            assert (np.abs(got.astype(np.float64) - wanted) <= bound).all(), (case.attributes, case.types)

    check()
