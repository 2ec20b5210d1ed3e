"""`deploydcn.quantize`; importing this needs neither onnx_ir nor onnxruntime."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from deploydcn._lazy import lazy_import
from deploydcn.errors import InvalidArgument
from deploydcn.quantization.data import ImageOptions
from deploydcn.quantization.ranges import METHODS
from deploydcn.quantization.report import QuantizeReport

ACTIVATIONS = {"ort": "uint8", "standard": "uint8", "tensorrt": "int8"}
"""Targets, and the type of activations that suits each. `portable` is for runtimes that may not know Q and DQ nodes."""


def quantize(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    calibration: str | os.PathLike[str] | Mapping[str, Any] | Sequence[Mapping[str, Any]],
    *,
    target: str = "ort",
    method: str = "minmax",
    activations: str | None = None,
    exclude: Sequence[str] = (),
    size: tuple[int, int] | None = None,
    fit: str = "letterbox",
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    limit: int | None = None,
    narrow_weights: bool = False,
    progress: bool = False,
) -> QuantizeReport:
    """Write an ONNX file that computes with 8-bit weights and activations where that is possible.

    Convolutions, deformable ones too, and products with constant weights get int8 weights, symmetric, with a scale per output channel, and
    activations with one scale per tensor; biases have 32 bits. In float32 stay the layers that make offsets and masks, and what
    comes behind the last layer. The float32 model is run on every sample once to measure ranges and once more for comparison; memory holds
    one sample's activations.

    Args:
        src: a float32 file of any exporter `deploydcn.convert` understands.
        dst: the file to write; another one.
        calibration: typical inputs, some 50 to 500: a folder of images; an .npz file or arrays by input name, with an axis of samples
            before the input's own or along its first; or a list of inputs by name.
        target: "ort" (QLinearDeformConv2d for deformable convolutions), "standard" or "tensorrt" (Q and DQ nodes around DeformConv
            and our DeformConv2d).
        method: how a range is taken from what was measured: "minmax", "percentile" (without the rarest values) or "entropy" (cut where
            least information is lost). None is best everywhere: on samples 01 to 03 they differ by 1 dB and each is best once, on other
            networks by more (a YOLO lost 3.6 dB with entropy): compare them on yours.
        activations: "uint8" or "int8" (symmetric); what suits the target when None.
        exclude: nodes, by name or by a pattern such as "head.*", that stay in float32.
        size: (height, width) that images are brought to; the model's own when None.
        fit: "letterbox" keeps the proportions of images, "stretch" does not.
        mean, std: per channel, of image values in [0, 1].
        limit: use the first so many samples only.
        narrow_weights: weights of 7 bits, for x86 processors without VNNI, on which ONNX Runtime's sums of 8-bit products saturate.
        progress: show a progress bar.

    Returns:
        What became of each layer, and how the outputs compare with the float32 file's over the calibration data.

    Raises:
        InvalidArgument: unknown options or nodes, calibration data that does not fit, or activations that are not finite.
        InvalidModel: `src` cannot be read, is not valid ONNX, or one of its nodes is malformed.
        ExportError: no layer could be quantized.
        MissingDependency: onnx_ir or onnxruntime is not installed, or, for images, Pillow.
    """
    choices: dict[str, tuple[str, Collection[str]]] = {
        "target": (target, ACTIVATIONS),
        "method": (method, METHODS),
        "activations": (activations or ACTIVATIONS["ort"], ("uint8", "int8")),
    }
    for what, (value, allowed) in choices.items():
        if value not in allowed:
            raise InvalidArgument(f"{what} is {value!r}; wanted one of {', '.join(allowed)}")
    for what, path in (("src", src), ("dst", dst)):
        if not isinstance(path, str | os.PathLike):
            raise InvalidArgument(f"{what} is {path!r}; wanted a file name")
    source, result = Path(src), Path(dst)
    if source.resolve() == result.resolve():
        raise InvalidArgument(f"{source} is to be read and written; wanted another file to write, as in {source.with_suffix('.int8.onnx')}")
    lazy_import("onnx_ir", extra="export")
    lazy_import("onnxruntime", extra="cpu")
    from deploydcn.quantization.insertion import Scheme
    from deploydcn.quantization.run import run

    return run(
        source,
        result,
        calibration,
        target=target,
        method=method,
        scheme=Scheme(activations or ACTIVATIONS[target], 64 if narrow_weights else 127),
        exclude=tuple(exclude),
        images=ImageOptions(size, fit, tuple(mean), tuple(std)),
        limit=limit,
        progress=progress,
    )
