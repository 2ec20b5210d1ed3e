"""PyTorch -> ONNX, checked: `export_onnx` writes a file only after running it against the model it came from."""

from deploydcn.export.api import export_onnx
from deploydcn.export.precision import PrecisionReport, convert_precision
from deploydcn.export.report import ExportReport, ShapeCheck
from deploydcn.export.targets import TARGETS

__all__ = ["TARGETS", "ExportReport", "PrecisionReport", "ShapeCheck", "convert_precision", "export_onnx"]
