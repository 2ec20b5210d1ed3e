"""Deploy PyTorch models with deformable convolutions: ONNX, ONNX Runtime, TensorRT, with parity proven."""

from deploydcn.engine import EngineReport, build_engine
from deploydcn.errors import DeployDcnError, ExportError, InvalidArgument, InvalidModel, MissingDependency, RuntimeFailure, UserError
from deploydcn.export import (
    ConvertReport,
    ExportReport,
    InspectReport,
    PrecisionReport,
    convert,
    convert_precision,
    export_onnx,
    inspect,
    register_frontend,
)
from deploydcn.libraries import ort_library_path, plugin_library_path, register_ort_ops
from deploydcn.parity import ParityReport, verify
from deploydcn.precision import DriftReport, drift
from deploydcn.quantization import QuantizeReport, quantize
from deploydcn.report import write_report
from deploydcn.runners import Runner, TensorInfo, load
from deploydcn.triton import TritonCheck, TritonRepository, check_triton_repository, write_triton_repository
from deploydcn.visual import VisualReport, visualize

__all__ = [
    "ConvertReport",
    "DeployDcnError",
    "DriftReport",
    "EngineReport",
    "ExportError",
    "ExportReport",
    "InspectReport",
    "InvalidArgument",
    "InvalidModel",
    "MissingDependency",
    "ParityReport",
    "PrecisionReport",
    "QuantizeReport",
    "Runner",
    "RuntimeFailure",
    "TensorInfo",
    "TritonCheck",
    "TritonRepository",
    "UserError",
    "VisualReport",
    "build_engine",
    "check_triton_repository",
    "convert",
    "convert_precision",
    "drift",
    "export_onnx",
    "inspect",
    "load",
    "ort_library_path",
    "plugin_library_path",
    "quantize",
    "register_frontend",
    "register_ort_ops",
    "verify",
    "visualize",
    "write_report",
    "write_triton_repository",
]
