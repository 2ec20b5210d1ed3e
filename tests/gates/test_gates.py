"""The compiler's figures for the built kernels, and that the gates would notice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploydcn import ort_library_path, plugin_library_path
from tests.gates.gates import COUNTED, TRAPS, Kernel, architectures, measure, problems, read_table

HALVES = ("__half", "__nv_bfloat16")
pytestmark = [pytest.mark.backend("emulation"), pytest.mark.slow]


def test_no_kernel_is_worse_than_its_row() -> None:
    table, library = read_table(), plugin_library_path()
    measured = architectures(library)
    assert len(measured) >= 4
    for sm in measured:
        kernels = measure(library, sm)
        assert len(kernels) > 30
        assert [text for kernel in kernels for text in problems(kernel, table.get((sm, kernel.name)))] == []


# ptxas 13.0 keeps this kernel to 80 registers on 10.x and 11.0, and two of them in local memory, whatever limit it is given.
SPILLS = {(sm, f"implicit_gemm<TensorCoreMultiply<{t}, 64>, DenseSampling<{t}>, linear>"): 8 for sm in (100, 103, 110) for t in HALVES}
# Likewise on 12.x: 72 and 96 registers, although 255 would do.
SEPARABLE = (
    "implicit_gemm<TensorCoreMultiply<{t}, 64>, SeparableSampling<{t}>, channels_last>",
    "direct_packets<{t}, SeparableSampling<{t}>>",
)
SPILLS |= {(sm, name.format(t=t)): 16 for sm in (120, 121) for t in HALVES for name in SEPARABLE}


def test_the_table_itself_holds_what_it_should() -> None:
    for row in read_table().values():
        if row.sm < 80 and TRAPS.search(row.name):
            continue
        assert row.spilled <= SPILLS.get((row.sm, row.name), 0), row
        if "TensorCoreMultiply" in row.name or "Tf32Multiply" in row.name:
            assert row.hmma > 0, row
            assert row.matrix_load > 0, row
        if "implicit_gemm" in row.name and row.sm >= 80:
            assert row.async_copy > 0, row
        if "channels_last" in row.name or "direct_packets" in row.name:
            assert row.load16 > 0 or "direct_convolution" in row.name, row
        if "deformable_attention" in row.name:
            assert (row.load16 == 4) == (not row.name.endswith(" 1>")), row


@pytest.mark.parametrize("column", ["spilled", "registers", "shared"])
def test_more_is_noticed(column: str) -> None:
    row = next(iter(read_table().values()))
    worse = replace(row, **{column: getattr(row, column) + 1})
    assert len(problems(worse, row)) == 1
    assert problems(row, row) == []


@pytest.mark.parametrize("column", ["occupancy", *COUNTED])
def test_less_is_noticed(column: str) -> None:
    row = next(row for row in read_table().values() if row.sm >= 80 and "TensorCore" in row.name and row.load16)
    worse: Kernel = replace(row, **{column: getattr(row, column) - 1})
    assert len(problems(worse, row)) == 1


def test_libraries_stay_small() -> None:
    """Four architectures and two PTX versions."""
    assert plugin_library_path().stat().st_size < 32 << 20
    assert ort_library_path().stat().st_size < 32 << 20
