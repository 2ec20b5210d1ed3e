"""Where the compiled libraries of this installation are."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from deploydcn.errors import UserError

if TYPE_CHECKING:
    import onnxruntime

ORT_LIBRARY = "libdeploydcn_ort.so"
REPLACE_STANDARD = "deploydcn.replace_standard"


def ort_library_path() -> Path:
    """The ONNX Runtime custom-op library, for sessions made in other languages (`RegisterCustomOpsLibrary`).

    Raises:
        UserError: this installation has none.
    """
    return _library(ORT_LIBRARY)


def register_ort_ops(session_options: onnxruntime.SessionOptions, *, replace_standard: bool = False) -> None:
    """Make deploydcn's operators known to an ONNX Runtime session.

    Args:
        session_options: the options the session will be created with.
        replace_standard: also run the standard `DeformConv` with our kernel: faster, and available on runtimes before
            1.25, which have none.
    """
    if replace_standard:
        session_options.add_session_config_entry(REPLACE_STANDARD, "1")
    session_options.register_custom_ops_library(str(ort_library_path()))


def _library(name: str) -> Path:
    folder = files("deploydcn").joinpath("lib")
    path = Path(str(folder.joinpath(name)))
    if not path.is_file():
        raise UserError(f"{name} is not in {folder}; the package was not built; run `pip install -e .` in the checkout, or install a wheel")
    return path
