"""PyTorch -> ONNX, checked: `export_onnx` writes a file only after running it against the model it came from."""

from deploydcn.export.api import export_onnx
from deploydcn.export.report import ExportReport, ShapeCheck
from deploydcn.export.targets import TARGETS

__all__ = ["TARGETS", "ExportReport", "ShapeCheck", "export_onnx"]
