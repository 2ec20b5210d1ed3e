"""The public function; importing it needs no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from deploydcn._lazy import lazy_import
from deploydcn.errors import InvalidArgument
from deploydcn.export.report import ExportReport
from deploydcn.export.targets import TARGETS

OLDEST_OPSET, DEFAULT_OPSET, NEWEST_OPSET = 19, 20, 25


def export_onnx(
    model: Any,
    args: Any,
    path: str | os.PathLike[str],
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    target: str = "ort",
    opset: int | None = None,
    output_names: Sequence[str] | None = None,
    check: bool = True,
) -> ExportReport:
    """Export a PyTorch model with deformable or grouped convolutions to ONNX, and prove the file.

    The model is traced by torch.export in eval mode without gradients; its training flags are restored. Inputs keep
    the names of forward's arguments (`batch_image` for batch["image"]), outputs those of a returned dict ("output" for
    a single tensor). The file is checked by onnx.checker with strict shape inference, and appears only when complete.

    Args:
        model: a torch.nn.Module (an ultralytics YOLO object too).
        args: example positional arguments: a tuple, or one tensor.
        path: the file to write. Models beyond 2 GB get their weights in `<path>.data`.
        kwargs: example keyword arguments.
        dynamic_shapes: as torch.export takes it, or with names: ({0: "n", 2: "h", 3: "w"},), or {"x": {0: "n"}}.
        target: "ort" (our operators, for ONNX Runtime with deploydcn), "tensorrt" (our operators, as `build_engine` and trtexec
            take them), "standard" (ONNX operators only) or "portable" (core operators of opset 16 only, without DeformConv).
        opset: 19 to 25; 20 when None.
        output_names: names for the outputs, in order.
        check: run the file at the example shape and at other sizes of every dynamic axis, and compare with PyTorch.

    Returns:
        What was written and how close it is.

    Raises:
        InvalidArgument: options or example inputs do not fit.
        ExportError: the model cannot be traced or translated (the message names module, operator and line), or the
            file does not compute what the model does: no file is written.
        MissingDependency: torch, onnxscript or, for the check, onnxruntime is not installed.
    """
    if not isinstance(target, str) or target not in TARGETS:
        raise InvalidArgument(f"target is {target!r}; wanted one of {', '.join(TARGETS)}")
    opset = DEFAULT_OPSET if opset is None else opset
    if not isinstance(opset, int) or not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise InvalidArgument(
            f"opset is {opset}; wanted {OLDEST_OPSET} to {NEWEST_OPSET}: DeformConv exists from opset 19 on, "
            "and older files with it are invalid; leave opset out"
        )
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise InvalidArgument(f"kwargs is {kwargs!r}; wanted a dict of keyword arguments by name")
    if output_names is not None:
        names = [output_names] if isinstance(output_names, str) else list(output_names)
        if not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
            raise InvalidArgument(f"output_names is {output_names!r}; wanted a list of distinct names")
    if not isinstance(path, str | os.PathLike):
        raise InvalidArgument(f"path is {path!r}; wanted a file name")
    for package in ("torch", "torchvision", "onnxscript"):
        lazy_import(package, extra="export")
    if check:
        lazy_import("onnxruntime", extra="cpu")
    from deploydcn.export.exporter import Export

    positional = tuple(args) if isinstance(args, tuple | list) else () if args is None else (args,)
    return Export(model, positional, kwargs or {}, dynamic_shapes, target, opset, output_names).run(path, check=check)
