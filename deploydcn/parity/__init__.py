"""Are two runners' numbers the same? `verify` compares them, with statistics and a tolerance whose reason is stated."""

from deploydcn.parity.compare import OutputComparison, compare
from deploydcn.parity.tolerance import Tolerance, default_tolerance
from deploydcn.parity.verify import ParityReport, random_inputs, verify

__all__ = ["OutputComparison", "ParityReport", "Tolerance", "compare", "default_tolerance", "random_inputs", "verify"]
