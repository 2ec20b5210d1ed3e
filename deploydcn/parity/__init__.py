"""Are two runners' numbers the same? `verify` compares them, with statistics and a tolerance whose reason is stated; it finds the layer
where they part, and `write_repro` shows that layer by itself."""

from deploydcn.parity.compare import OutputComparison, compare
from deploydcn.parity.detections import DetectionComparison, compare_detections
from deploydcn.parity.inputs import random_inputs
from deploydcn.parity.location import Finding, LayerComparison, Location
from deploydcn.parity.repro import write_repro
from deploydcn.parity.statistics import TensorStatistics, statistics
from deploydcn.parity.tolerance import Tolerance, default_tolerance
from deploydcn.parity.verify import ParityCase, ParityReport, verify

__all__ = [
    "DetectionComparison",
    "Finding",
    "LayerComparison",
    "Location",
    "OutputComparison",
    "ParityCase",
    "ParityReport",
    "TensorStatistics",
    "Tolerance",
    "compare",
    "compare_detections",
    "default_tolerance",
    "random_inputs",
    "statistics",
    "verify",
    "write_repro",
]
