"""Deploy PyTorch models with deformable convolutions: ONNX, ONNX Runtime, TensorRT, with parity proven."""

from deploydcn.engine import EngineReport, build_engine
from deploydcn.errors import DeployDcnError, ExportError, InvalidArgument, InvalidModel, MissingDependency, RuntimeFailure, UserError
from deploydcn.export import ExportReport, PrecisionReport, convert_precision, export_onnx
from deploydcn.libraries import ort_library_path, plugin_library_path, register_ort_ops
from deploydcn.parity import ParityReport, verify
from deploydcn.runners import Runner, TensorInfo, load

__all__ = [
    "DeployDcnError",
    "EngineReport",
    "ExportError",
    "ExportReport",
    "InvalidArgument",
    "InvalidModel",
    "MissingDependency",
    "ParityReport",
    "PrecisionReport",
    "Runner",
    "RuntimeFailure",
    "TensorInfo",
    "UserError",
    "build_engine",
    "convert_precision",
    "export_onnx",
    "load",
    "ort_library_path",
    "plugin_library_path",
    "register_ort_ops",
    "verify",
]
