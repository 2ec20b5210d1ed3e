"""Every environment variable deploydcn reads, in one place."""

from __future__ import annotations

import os

CPU_ISA = "DEPLOYDCN_CPU_ISA"
"""baseline | avx2 | avx512: the instruction set of the CPU kernels; the best the processor has when unset. Read by the C++ library."""


def cpu_isa() -> str:
    """The value of DEPLOYDCN_CPU_ISA, empty when unset."""
    return os.environ.get(CPU_ISA, "")
