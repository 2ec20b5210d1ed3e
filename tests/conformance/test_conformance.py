"""The conformance table: every operator x case x backend x element types, against the float64 reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from deploydcn.ops import OPS, Op
from deploydcn.ops.case import Case
from tests.conformance.backends import BACKENDS, numpy_dtype
from tests.conformance.tolerances import TOLERANCE, TORCHVISION_COORDINATES, largest_error


def rows(*, first: bool) -> Iterator[object]:
    """first: of every operator's first element types, which are float32; else of all others, see test_conformance_types.py."""
    for op in OPS:
        for types in op.spec.type_rows[:1] if first else op.spec.type_rows[1:]:
            label = "_".join(dict.fromkeys(types.values()))
            for backend in BACKENDS:
                for case in op.cases:
                    yield pytest.param(op, case, backend, types, id=f"{op.spec.snake_name}-{case.id}-{backend}-{label}")


def inputs_of(op: Op, case: Case, types: Mapping[str, str]) -> dict[str, np.ndarray]:
    param_of = {tensor.name: tensor.type_param for tensor in op.spec.inputs}
    with np.errstate(over="ignore"):  # huge offsets become infinite in half precision: a row of its own
        return case.inputs(lambda name: numpy_dtype(types[param_of[name]]))


@pytest.mark.parametrize(("op", "case", "backend", "types"), rows(first=True))
def test_equals_reference(op: Op, case: Case, backend: str, types: Mapping[str, str]) -> None:
    check_row(op, case, backend, types)


def check_row(op: Op, case: Case, backend: str, types: Mapping[str, str]) -> None:
    inputs = inputs_of(op, case, types)
    wanted = op.reference(inputs, case.attributes)
    got = BACKENDS[backend](op, inputs, case.attributes, types)
    error = largest_error(got, wanted)
    tolerance = max(TOLERANCE[types["T"]], TORCHVISION_COORDINATES if backend == "torch" and case.id == "wide_image" else 0)
    assert error <= tolerance, f"{error:.3g} of the largest output; {case.why}"


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.spec.snake_name)
def test_cases_have_distinct_ids(op: Op) -> None:
    ids = [case.id for case in op.cases]
    assert len(ids) == len(set(ids)) >= 3
