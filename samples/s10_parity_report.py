"""Sample 10: two reports of parity, one of a file that computes what PyTorch does and one of a file with a bug in one layer.

    python samples/s10_parity_report.py            # writes demo/passing.html and demo/failing.html

The model is sample 02's YOLOv8n. The bug is the most common one with deformable convolutions: one layer's offsets are read as (x, y) for
(y, x). Both pages hold everything and need no network; the second names the layer and shows where it looks instead.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from rich.console import Console
from s02_yolov8n_dcn import build

import deploydcn
from deploydcn.parity import ParityReport

LAYER = "model.6.m.1.cv2.conv"


def with_swapped_offsets(source: Path, target: Path) -> None:
    """A copy of an ONNX file in which LAYER's offset convolution gives (x, y) where it gave (y, x)."""
    model = onnx.load(source)
    tensors = [tensor for tensor in model.graph.initializer if tensor.name.startswith(f"{LAYER}.offset_conv")]
    if len(tensors) != 2:
        raise SystemExit(f"{source} has no weight and bias of {LAYER}.offset_conv")
    for tensor in tensors:
        values = numpy_helper.to_array(tensor).copy()
        offsets = values[:18]  # nine pairs; the masks come after them
        values[:18] = offsets[np.arange(18) ^ 1]
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, target)


def report_on(model: tuple[object, object], path: Path, page: Path) -> ParityReport:
    """Compare, find the layer, write the page."""
    report = deploydcn.verify(model, str(path), model[1], locate=True, detector="yolo")
    command = f"deploydcn verify samples/s02_yolov8n_dcn.py:build {path} --locate --seeds 0 --report {page}"
    deploydcn.write_report(report, page, models=(model, str(path)), command=command)
    return report


def main() -> None:
    """Export, plant the bug, write both reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder for the pages and the ONNX files")
    folder: Path = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False)
    with console.status("building and exporting YOLOv8n with deformable convolutions"):
        model, example = build()
        good, bad = folder / "yolov8n_dcn.onnx", folder / "yolov8n_swapped.onnx"
        deploydcn.export_onnx(model, None, good, kwargs=example, check=False)
    with_swapped_offsets(good, bad)
    passed = []
    for path, page in ((good, folder / "passing.html"), (bad, folder / "failing.html")):
        with console.status(f"comparing {path.name} with PyTorch, layer by layer"):
            report = report_on((model, example), path, page)
        console.print(report.summary(), soft_wrap=True)
        if report.location is not None:
            console.print(f"  {report.location.explanation}", soft_wrap=True)
        console.print(f"wrote {page}")
        passed.append(report.passed)
    if passed != [True, False]:
        raise SystemExit("wanted the first file to pass and the second to fail")


if __name__ == "__main__":
    main()
