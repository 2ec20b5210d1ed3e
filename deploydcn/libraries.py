"""Where the compiled libraries of this installation are."""

from __future__ import annotations

import ctypes
import os
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from deploydcn.errors import InvalidArgument, UserError

if TYPE_CHECKING:
    import onnxruntime

ORT_LIBRARY = "libdeploydcn_ort.so"
PLUGIN_LIBRARY = "libdeploydcn_trt.so"
REPLACE_STANDARD = "deploydcn.replace_standard"
BFLOAT16 = "deploydcn.bfloat16"
PRECISE = "deploydcn.precise"
BFLOAT16_ISAS = ("amx", "avx512bf16")
"""Instruction sets whose products of bfloat16 are faster than those of float32."""


def ort_library_path() -> Path:
    """The ONNX Runtime custom-op library, for sessions made in other languages (`RegisterCustomOpsLibrary`).

    Raises:
        UserError: this installation has none.
    """
    return _library(ORT_LIBRARY)


def plugin_library_path() -> Path:
    """The TensorRT and TensorRT-RTX plugin library, for trtexec (`--dynamicPlugins`), Triton and C++; `build_engine` loads it itself.

    Raises:
        UserError: this installation has none.
    """
    try:
        return _library(PLUGIN_LIBRARY)
    except UserError as error:
        raise UserError(
            f"this installation has no {PLUGIN_LIBRARY}: it was built without a CUDA compiler; put nvcc on PATH, or set CUDA_HOME, or "
            "pip install '.[cuda]' in deploydcn's source folder; then, there, "
            "pip install --no-build-isolation --force-reinstall --no-deps --config-settings=cmake.define.DEPLOYDCN_CUDA=ON ."
        ) from error


def register_ort_ops(
    session_options: onnxruntime.SessionOptions, *, replace_standard: bool = False, bfloat16: bool = False, precise: bool = False
) -> None:
    """Make deploydcn's operators known to an ONNX Runtime session.

    Args:
        session_options: the options the session will be created with.
        replace_standard: also run the standard `DeformConv` with our kernel: faster, and available on runtimes before
            1.25, which have none.
        bfloat16: convolutions on the CPU may round the factors of their products, and the image they sample, to bfloat16 (8
            bits) where the processor multiplies them faster (`cpu_isa` is one of BFLOAT16_ISAS). Positions, interpolation and
            sums stay float32; results differ by about 0.2 % of the largest, up to 0.4 % where few products are summed. No effect
            on other processors, and on grouped convolutions of few channels.
        precise: convolutions on the CPU multiply by fused multiply-add alone. Otherwise large ones combine pixels, channels and
            outputs into fewer products (26 for 32, or Strassen's seven for eight), or take matrix tiles (AMX). Rounding errors of
            combined products are up to twice as large, at most 2e-6 of the largest result, and shared by up to four neighbouring
            pixels: where one is 1000 times as large as the next, so is the error of the small one.

    Raises:
        InvalidArgument: both `bfloat16` and `precise`.
    """
    if bfloat16 and precise:
        raise InvalidArgument("got both bfloat16=True and precise=True; wanted one of them")
    if replace_standard:
        session_options.add_session_config_entry(REPLACE_STANDARD, "1")
    if bfloat16:
        session_options.add_session_config_entry(BFLOAT16, "1")
    if precise:
        session_options.add_session_config_entry(PRECISE, "1")
    session_options.register_custom_ops_library(str(ort_library_path()))


def cpu_isa() -> str:
    """The instruction set of the CPU kernels on this machine, or what DEPLOYDCN_CPU_ISA asks for: "amx", "avx512bf16", "avx512vnni",
    "avx512", "avx2" or "baseline".

    Raises:
        UserError: this installation has no library, or DEPLOYDCN_CPU_ISA asks for what this processor does not run.
    """
    function = ctypes.CDLL(str(ort_library_path())).deploydcn_cpu_isa
    function.restype = ctypes.c_char_p
    name = function()
    if name is None:
        wanted = os.environ.get("DEPLOYDCN_CPU_ISA")
        raise UserError(f"DEPLOYDCN_CPU_ISA is {wanted!r}, unknown or not for this processor; unset it to use the best there is")
    return str(name.decode())


def _library(name: str) -> Path:
    folder = files("deploydcn").joinpath("lib")
    path = Path(str(folder.joinpath(name)))
    if not path.is_file():
        raise UserError(f"{name} is not in {folder}; the package was not built; run `pip install -e .` in the checkout, or install a wheel")
    return path
