"""The conformance table in all element types but float32: a file of its own, which `make check` need not even read."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from deploydcn.ops import Op
from deploydcn.ops.case import Case
from tests.conformance.test_conformance import check_row, rows

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("op", "case", "backend", "types"), rows(first=False))
def test_equals_reference(op: Op, case: Case, backend: str, types: Mapping[str, str]) -> None:
    check_row(op, case, backend, types)
