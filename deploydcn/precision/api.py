"""`deploydcn.drift`; importing this needs neither onnx_ir nor onnxruntime."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deploydcn._lazy import lazy_import
from deploydcn.errors import InvalidArgument
from deploydcn.precision.report import DriftReport
from deploydcn.quantization.api import ACTIVATIONS
from deploydcn.quantization.data import ImageOptions
from deploydcn.quantization.ranges import METHODS

DTYPES = ("fp16", "bf16", "int8")


def drift(
    src: str | os.PathLike[str],
    calibration: str | os.PathLike[str] | Mapping[str, Any] | Sequence[Mapping[str, Any]],
    *,
    dtype: str,
    target_db: float | None = None,
    output: str | os.PathLike[str] | None = None,
    probes: int = 4,
    target: str = "ort",
    method: str = "minmax",
    size: tuple[int, int] | None = None,
    fit: str = "letterbox",
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    limit: int | None = None,
    progress: bool = False,
) -> DriftReport:
    """Predict what a lower precision costs a float32 ONNX file, and which layers to keep in float32.

    All that `convert_precision` or `quantize` would round, weights and activations, is rounded by itself, and what that does to the layer
    and to the model's outputs is measured. Of several roundings the noise powers are added up; that prediction is compared with
    the lowered model on all samples. Offsets of deformable convolutions are always float32. With a target, layers are given back to
    float32, those first whose noise is largest, until the lowered file, written and run, reaches it. Memory holds
    one sample's activations twice, and the weights twice.

    Args:
        src: the float32 file.
        calibration: typical inputs, as `deploydcn.quantize` takes them.
        dtype: "fp16", "bf16" or "int8".
        target_db: wanted signal to noise of the worst output, in decibels; None only predicts.
        output: the file to write the proposal to, or, without a target, the model with all layers lowered; None writes none.
        probes: samples on which each rounding is tried by itself: some 2 runs of the model for each layer and sample.
        target, method: int8 only; see `deploydcn.quantize`.
        size, fit, mean, std, limit: how images become inputs, and how many; see `deploydcn.quantize`.
        progress: show progress bars.

    Raises:
        InvalidArgument: unknown options, calibration data that does not fit, outputs that are not finite, or a file that is lowered
            already.
        InvalidModel: `src` cannot be read, or is not valid ONNX.
        ExportError: no layer could be lowered.
        MissingDependency: onnx_ir or onnxruntime is not installed, or, for images, Pillow.
    """
    for what, value, allowed in (("dtype", dtype, DTYPES), ("target", target, tuple(ACTIVATIONS)), ("method", method, tuple(METHODS))):
        if value not in allowed:
            raise InvalidArgument(f"{what} is {value!r}; wanted one of {', '.join(allowed)}")
    if target_db is not None and not math.isfinite(target_db):
        raise InvalidArgument(f"target_db is {target_db}; wanted decibels, as in 40")
    if probes < 1:
        raise InvalidArgument(f"probes is {probes}; wanted at least 1")
    if output is not None and Path(output).resolve() == Path(src).resolve():
        raise InvalidArgument(f"{src} is to be read and written; wanted another file to write")
    lazy_import("onnx_ir", extra="export")
    lazy_import("onnxruntime", extra="cpu")
    from deploydcn.precision.run import run

    return run(
        Path(src),
        calibration,
        dtype=dtype,
        target_db=target_db,
        output=None if output is None else Path(output),
        probes=probes,
        target=target,
        method=method,
        images=ImageOptions(size, fit, tuple(mean), tuple(std)),
        limit=limit,
        progress=progress,
    )
