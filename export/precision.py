"""Half precision: ONNX -> ONNX for strongly typed networks; importing this needs no onnx_ir."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from deploydcn._lazy import lazy_import
from deploydcn.errors import InternalError, InvalidArgument, InvalidModel
from deploydcn.files import replace_on_success

if TYPE_CHECKING:
    import onnx_ir as ir

DTYPES = {"fp16": "float16", "bf16": "bfloat16", "float16": "float16", "bfloat16": "bfloat16"}


@dataclass(frozen=True)
class PrecisionReport:
    """A converted file. converted: nodes in half precision; kept: reason -> nodes that stay in float32; casts: added ones."""

    path: Path
    dtype: str
    converted: int
    kept: Mapping[str, tuple[str, ...]]
    casts: int
    seconds: float
    notes: tuple[str, ...] = field(default=())

    def summary(self) -> str:
        """One line for logs."""
        reasons = ", ".join(f"{len(names)} for {reason}" for reason, names in self.kept.items()) or "none"
        return f"{self.path}: {self.converted} nodes in {self.dtype}; in float32: {reasons}; {self.casts} casts added"

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "path": str(self.path),
            "dtype": self.dtype,
            "converted": self.converted,
            "kept": {reason: list(names) for reason, names in self.kept.items()},
            "casts": self.casts,
            "seconds": round(self.seconds, 2),
            "notes": list(self.notes),
        }


def half_dtype(name: str) -> str:
    """ "fp16" -> "float16", "bf16" -> "bfloat16".

    Raises:
        InvalidArgument: neither.
    """
    if not isinstance(name, str) or name not in DTYPES:
        raise InvalidArgument(f"dtype is {name!r}; wanted fp16 or bf16")
    return DTYPES[name]


def convert_precision(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    dtype: str = "fp16",
    keep_io_types: bool = True,
    exclude: Sequence[str] = (),
) -> PrecisionReport:
    """Convert an ONNX file from float32 to half precision, every type explicit, as strongly typed TensorRT networks want it.

    Layers, normalizations and activations become half precision, weights are rounded once. In float32 stay: the offsets of
    deformable convolutions, back to and including the convolution that makes them; sampling grids and coordinates; sizes
    and indices; the arithmetic behind the last layer; operators with constants out of half precision's range (see
    `deploydcn.export.half_rules`). The standard DeformConv, which has one type for data and offset, becomes
    deploydcn::DeformConv2d. Converting a converted file changes nothing. The bodies of If, Loop and Scan stay as they are.

    Args:
        src: the file to read.
        dst: the file to write; may be the same.
        dtype: "fp16" or "bf16". bfloat16 raises the file's opset to 22, and ONNX Runtime's CPU provider does not run it.
        keep_io_types: inputs and outputs stay float32; False makes them half precision.
        exclude: nodes, by name or by a pattern such as "head.*", that stay in float32 too.

    Raises:
        InvalidModel: `src` cannot be read, or is not valid ONNX.
        InvalidArgument: another dtype, bfloat16 for an opset that has none, or a name that no node has.
        MissingDependency: onnx_ir is not installed.
    """
    start = time.perf_counter()
    wanted = half_dtype(dtype)
    model = checked_model(src)
    from deploydcn.export import graph
    from deploydcn.export.half import to_half

    with replace_on_success(dst) as temporary:
        conversion = to_half(model, wanted, keep_io_types=keep_io_types, exclude=exclude)
        graph.save(model, temporary)
        try:
            onnx.checker.check_model(str(temporary), full_check=True)
        except Exception as error:
            raise InternalError(f"the converted model is not valid ONNX: {error}") from error
    elapsed = time.perf_counter() - start
    return PrecisionReport(Path(dst), wanted, conversion.converted, conversion.kept, conversion.casts, elapsed, conversion.notes)


def checked_model(src: str | os.PathLike[str]) -> ir.Model:
    """The model in a file.

    Raises:
        InvalidModel: `src` cannot be read, or is not valid ONNX.
        MissingDependency: onnx_ir is not installed.
    """
    onnx_ir = lazy_import("onnx_ir", extra="export")
    from deploydcn.onnx_schema import register_schemas

    register_schemas()
    if not Path(src).is_file():
        raise InvalidModel(f"{src} does not exist or is a folder; wanted an ONNX file")
    try:
        onnx.checker.check_model(os.fspath(src))
        model: ir.Model = onnx_ir.load(os.fspath(src))
    except Exception as error:  # protobuf, onnx and onnx_ir have no exception in common
        raise InvalidModel(f"{src} is not a valid ONNX file: {str(error).strip().splitlines()[0]}") from error
    return model
