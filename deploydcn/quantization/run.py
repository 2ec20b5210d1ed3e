"""The steps of a quantization: read and prepare, choose, calibrate, insert, write for the target, check, compare."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir
from rich.console import Console
from rich.progress import track

from deploydcn.errors import ExportError, InvalidArgument, RuntimeFailure
from deploydcn.export import graph
from deploydcn.export.api import DEFAULT_OPSET
from deploydcn.export.conversion import check_own_nodes, infer, read
from deploydcn.export.finish import IR_VERSION, check_model, deformable_operators, finish
from deploydcn.export.foreign import import_foreign
from deploydcn.export.portable import decompose
from deploydcn.export.standard import from_standard
from deploydcn.export.targets import TARGETS
from deploydcn.export.upgrade import upgrade
from deploydcn.files import replace_on_success
from deploydcn.ops import op_named
from deploydcn.quantization.data import ImageOptions, Samples, samples_of
from deploydcn.quantization.insertion import Scheme, insert
from deploydcn.quantization.ranges import METHODS, Observer
from deploydcn.quantization.report import Agreement, LayerChoice, OutputAgreement, QuantizeReport
from deploydcn.quantization.selection import Selection, select
from deploydcn.runners import Runner, load

Item = TypeVar("Item")
OLDEST_OPSET = 19
LITTLE_DB = 15.0
"""Signal to noise of an output, in decibels, below which a note says so: a sixth of it is noise."""
PLAIN = (op_named("GroupedConv2d"), op_named("SeparableConv2d"))
"""Our operators that are convolutions of ONNX's in other words."""


def run(
    source: Path,
    result: Path,
    calibration: Any,
    *,
    target: str,
    method: str,
    scheme: Scheme,
    exclude: Sequence[str],
    images: ImageOptions,
    limit: int | None,
    progress: bool,
) -> QuantizeReport:
    """See `deploydcn.quantize`."""
    start = time.perf_counter()
    model, notes = prepared(source)
    opset = model.opset_imports[""]
    selection = select(model, exclude)
    layers = tuple(
        LayerChoice(graph.node_name(node), graph.operator_name(node), selection.kept.get(node, ""))
        for node in model.graph.all_nodes()
        if node in selection.layers or node in selection.kept
    )
    if not selection.layers:
        reasons = "; ".join(f"{layer.node}: {layer.kept}" for layer in layers[:5]) or "it has no convolutions or matrix products"
        raise ExportError(f"{source} has no layer that could compute with 8 bits: {reasons}")
    with tempfile.TemporaryDirectory() as folder, replace_on_success(result) as temporary:
        reference = observable(model, selection, Path(folder) / "float.onnx")
        samples = samples_of(calibration, reference.inputs, images, limit)
        ranges = calibrate(reference, model, selection, samples, method, progress=progress)
        insert(model, selection, ranges, scheme)
        infer(model)
        notes += TARGETS[target].rewrite(model)
        model.ir_version = max(model.ir_version, IR_VERSION)
        finish(model, opset)
        graph.save(model, temporary)
        check_model(temporary)
        agreement = _compare(reference, temporary, samples, [value.name or "" for value in model.graph.outputs], progress=progress)
        notes += _doubts(agreement)
        size = sum(file.stat().st_size for file in temporary.parent.iterdir())
    return QuantizeReport(
        path=result,
        source=source,
        target=target,
        method=method,
        activations=scheme.activations,
        samples=len(samples),
        layers=layers,
        operators=dict(deformable_operators(model)),
        agreement=agreement,
        bytes=size,
        source_bytes=source.stat().st_size,
        seconds=time.perf_counter() - start,
        notes=tuple(notes),
    )


def prepared(source: Path) -> tuple[ir.Model, list[str]]:
    """The model with our deformable operators and ONNX's own convolutions, batch norms and activations fused as they run."""
    model = read(source)
    notes: list[str] = []
    if any(node.op_type in ("QuantizeLinear", "QLinearConv", "QLinearDeformConv2d") for node in model.graph.all_nodes()):
        raise InvalidArgument(f"{source} is quantized already; wanted a float32 file")
    import_foreign(model)
    if model.opset_imports.get("", 0) < OLDEST_OPSET:
        model, notes = upgrade(model, DEFAULT_OPSET)
    infer(model)
    from_standard(model)
    check_own_nodes(model)
    decompose(model, PLAIN)  # into Conv, which ONNX Runtime has in 8 bits
    infer(model)
    notes += [*graph.fold_batch_norm(model, standard=True), *graph.fuse_activations(model)]
    infer(model)
    finish(model, model.opset_imports[""])
    return model, notes


def observable(model: ir.Model, selection: Selection, path: Path) -> Runner:
    """The float32 model with every activation that needs a range as an output."""
    outputs = list(model.graph.outputs)
    known = set(outputs) | set(model.graph.inputs)
    model.graph.outputs.extend(value for value in _measured(selection) if value not in known)
    graph.save(model, path)
    model.graph.outputs[:] = outputs
    return load(path, "ort")


def _measured(selection: Selection) -> list[ir.Value]:
    return [value for value, shared in selection.activations.items() if shared is None and value.const_value is None]


def calibrate(
    reference: Runner, model: ir.Model, selection: Selection, samples: Samples, method: str, *, progress: bool
) -> dict[ir.Value, tuple[float, float]]:
    """The range of every activation that needs one, over all samples. reference: made by `observable`.

    Raises:
        InvalidArgument: an activation is not finite.
    """
    measured = {value.name or "": (value, Observer()) for value in _measured(selection)}
    for index, feeds in enumerate(tracked(samples, "calibrating", progress)):
        arrays = {**feeds, **reference.run(feeds)}
        for name, (value, observer) in measured.items():  # in the order of their computation: the first that is wrong is named
            array = arrays[name]
            if not np.all(np.isfinite(array)):
                producer = value.producer()
                where = f"node {graph.node_name(producer)!r}" if producer is not None else "an input"
                raise InvalidArgument(
                    f"activation {name!r} ({where}) is not finite on sample {index}; wanted finite values; "
                    "check the sample, or exclude the layers around it"
                )
            observer.observe(array, histogram=method != "minmax")
    return {value: METHODS[method](observer) for value, observer in measured.values()}


def _compare(reference: Runner, path: Path, samples: Samples, names: Sequence[str], *, progress: bool) -> tuple[OutputAgreement, ...]:
    try:
        candidate = load(path, "ort")
        sums = {name: Agreement(name) for name in names}
        for feeds in tracked(samples, "comparing", progress):
            wanted, got = reference.run(feeds), candidate.run(feeds)
            for name, total in sums.items():
                total.add(wanted[name], got[name])
    except RuntimeFailure as error:
        raise ExportError(f"the 8-bit file does not run where its source does: {error}") from error
    return tuple(total.result() for total in sums.values())


def _doubts(agreement: Sequence[OutputAgreement]) -> list[str]:
    """Notes on outputs that have little left of the float32 file's."""
    notes = [f"output {output.name!r} was not compared: {output.mismatch}" for output in agreement if output.mismatch]
    return notes + [
        f"output {output.name!r} keeps only {output.sqnr_db:.1f} dB of signal to noise; try another method, or exclude layers; where a "
        "model chooses among candidates (TopK, NonMaxSuppression), rows may have changed places"
        for output in agreement
        if not output.mismatch and output.sqnr_db < LITTLE_DB
    ]


def tracked(items: Iterable[Item], label: str, shown: bool) -> Iterable[Item]:
    """With a progress bar on standard error where that is wanted."""
    return track(items, label, transient=True, console=Console(stderr=True)) if shown else items
