"""How fast are the CPU kernels? `bench_layers` and `bench_model` time them against everything else that runs the same."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from deploydcn._lazy import lazy_import
from deploydcn.bench.contenders import DENSE, NATIVE, OPENVINO, OURS, PRODUCT, TORCH
from deploydcn.bench.family import FAMILY, OperatorLayer
from deploydcn.bench.layers import LAYERS, ConvLayer, parse_layer
from deploydcn.bench.models import PLAIN
from deploydcn.bench.report import BenchReport, Row, write_json, write_markdown, write_plot
from deploydcn.bench.timing import Timing, measure
from deploydcn.errors import InvalidArgument
from deploydcn.libraries import cpu_isa

__all__ = [
    "DENSE", "FAMILY", "LAYERS", "NATIVE", "OPENVINO", "OURS", "PLAIN", "PRODUCT", "TORCH",
    "BenchReport", "ConvLayer", "OperatorLayer", "Row", "Timing", "bench_layers", "bench_model", "parse_layer", "write_json",
    "write_markdown", "write_plot",
]  # fmt: skip


def bench_layers(
    layers: Mapping[str, ConvLayer | OperatorLayer],
    *,
    threads: Sequence[int] = (1,),
    seconds: float = 2.0,
    offset_scale: float = 1.0,
    progress: Callable[[Row], None] | None = None,
) -> BenchReport:
    """Time single layers.

    Args:
        layers: by name.
        threads: numbers of threads; every layer is timed at each.
        seconds: for one layer at one number of threads; slow layers take longer, since 15 rounds are the fewest.
        offset_scale: standard deviation of the offsets, in pixels.
        progress: called with each row as it is complete.

    Raises:
        InvalidArgument: no layers, or a number of threads or seconds that is not positive.
        MissingDependency: onnxruntime is not installed.
    """
    from deploydcn.bench import contenders, family, report

    _check(threads, seconds)
    if not layers:
        raise InvalidArgument("no layers; wanted at least one, as in {'mine': parse_layer('c=128,h=56,w=56,m=128')}")
    lazy_import("onnxruntime", extra="cpu")
    rows = []
    for name, layer in layers.items():
        arrays = layer.arrays(offset_scale)
        makers = contenders.contenders(layer, arrays) if isinstance(layer, ConvLayer) else family.contenders(layer, arrays)
        for count in threads:
            timings = measure({label: make(count) for label, make in makers.items()}, seconds=seconds)
            rows.append(Row(name, str(layer), count, layer.flops, timings, DENSE if isinstance(layer, ConvLayer) else OURS))
            if progress:
                progress(rows[-1])
    return BenchReport(rows, report.machine(cpu_isa()))


def bench_model(
    path: str | Path,
    inputs: Mapping[str, np.ndarray],
    *,
    threads: Sequence[int] = (1,),
    seconds: float = 5.0,
    progress: Callable[[Row], None] | None = None,
) -> tuple[BenchReport, dict[int, dict[str, float]]]:
    """Time a whole model: as it is, with ONNX Runtime's own operators, and with plain convolutions in place of deformable ones.

    Args:
        path: an ONNX file.
        inputs: arrays by name.
        threads, seconds, progress: as in `bench_layers`.

    Returns:
        The report; and seconds per run of each operator type of the model as it is, by number of threads.

    Raises:
        InvalidArgument, InvalidModel: the file or a number cannot be used.
        MissingDependency: onnxruntime or onnx_ir is not installed.
    """
    from deploydcn.bench import models, report

    _check(threads, seconds)
    path = Path(path)
    if not path.is_file():
        raise InvalidArgument(f"{path} does not exist; wanted an ONNX file")
    lazy_import("onnxruntime", extra="cpu")
    rows, operators = [], {}
    shape = ", ".join(f"{name} {'x'.join(map(str, array.shape))}" for name, array in inputs.items())
    with tempfile.TemporaryDirectory() as folder:
        makers, notes = models.contenders(path, inputs, Path(folder))
        for count in threads:
            timings = measure({label: make(count) for label, make in makers.items()}, seconds=seconds)
            rows.append(Row(path.stem, shape, count, 0, timings, PLAIN if PLAIN in timings else OURS))
            operators[count] = models.operator_seconds(path, inputs, threads=count)
            if progress:
                progress(rows[-1])
    return BenchReport(rows, report.machine(cpu_isa()), notes), operators


def _check(threads: Sequence[int], seconds: float) -> None:
    for value, what in ((seconds, "seconds"), *((count, "threads") for count in threads)):
        if not value > 0:
            raise InvalidArgument(f"{what} is {value}; wanted a positive number")
    if not threads:
        raise InvalidArgument("no number of threads; wanted one or more, as in (1, 2)")
