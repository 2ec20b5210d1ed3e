"""PyTorch -> ONNX and ONNX -> ONNX, checked: a file is written only after running it against what it came from."""

from deploydcn.export.api import export_onnx
from deploydcn.export.convert import ConvertReport, NodeMapping, convert
from deploydcn.export.frontends import register_frontend
from deploydcn.export.inspection import InspectReport, inspect
from deploydcn.export.precision import PrecisionReport, convert_precision
from deploydcn.export.report import ExportReport, ShapeCheck
from deploydcn.export.targets import TARGETS

__all__ = [
    "TARGETS",
    "ConvertReport",
    "ExportReport",
    "InspectReport",
    "NodeMapping",
    "PrecisionReport",
    "ShapeCheck",
    "convert",
    "convert_precision",
    "export_onnx",
    "inspect",
    "register_frontend",
]
