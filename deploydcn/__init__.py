"""Deploy PyTorch models with deformable convolutions: ONNX, ONNX Runtime, TensorRT, with parity proven."""

from deploydcn.errors import DeployDcnError, ExportError, InvalidArgument, InvalidModel, MissingDependency, RuntimeFailure, UserError
from deploydcn.libraries import ort_library_path, register_ort_ops
from deploydcn.runners import Runner, TensorInfo, load

__all__ = [
    "DeployDcnError",
    "ExportError",
    "InvalidArgument",
    "InvalidModel",
    "MissingDependency",
    "Runner",
    "RuntimeFailure",
    "TensorInfo",
    "UserError",
    "load",
    "ort_library_path",
    "register_ort_ops",
]
