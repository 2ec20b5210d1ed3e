"""Deploy PyTorch models with deformable convolutions: ONNX, ONNX Runtime, TensorRT, with parity proven."""

from deploydcn.errors import DeployDcnError, ExportError, InvalidArgument, InvalidModel, MissingDependency, RuntimeFailure, UserError
from deploydcn.export import ExportReport, export_onnx
from deploydcn.libraries import ort_library_path, register_ort_ops
from deploydcn.parity import ParityReport, verify
from deploydcn.runners import Runner, TensorInfo, load

__all__ = [
    "DeployDcnError",
    "ExportError",
    "ExportReport",
    "InvalidArgument",
    "InvalidModel",
    "MissingDependency",
    "ParityReport",
    "Runner",
    "RuntimeFailure",
    "TensorInfo",
    "UserError",
    "export_onnx",
    "load",
    "ort_library_path",
    "register_ort_ops",
    "verify",
]
