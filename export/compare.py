"""Run a converted file against its source in ONNX Runtime, on random inputs at two sizes of every dynamic axis."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploydcn.errors import ExportError, InvalidArgument, InvalidModel, RuntimeFailure, UserError
from deploydcn.export.report import ShapeCheck
from deploydcn.parity import OutputComparison, compare, default_tolerance, random_inputs
from deploydcn.runners import Runner, TensorInfo, load

GUESSES = ((2, 64), (2, 96), (1, 32), (1, 224), (1, 256), (1, 640), (1, 17))
"""(first axis, other axes) of dynamic inputs, in the order in which they are tried; the first two that the source takes are compared."""


QUANTIZED = "int8"
"""The precision of files with QuantizeLinear nodes."""

QUANTIZED_DB = 15.0
"""Signal to noise that a quantized file's outputs must have against its source's, in decibels. A value near .5 rounds to either neighbour,
in one layer after the other: single elements differ by several units of 8 bits, while whole outputs of ResNet-50 keep 31 to 42 dB. A wrong
zero point, scale or bias leaves less than 15."""


def compare_with_source(
    source: Path, result: Path, inputs: Mapping[str, Any] | None, shapes: Mapping[str, Sequence[int]] | None, precision: str
) -> tuple[str, tuple[ShapeCheck, ...], list[str]]:
    """What the file was compared with, the comparisons, and notes on what could not be compared.

    precision: the lowest one that the file computes in, which sets the tolerance; QUANTIZED sets another measure (see QUANTIZED_DB).

    Raises:
        ExportError: the outputs differ, or the file does not run.
        InvalidArgument: the given shapes do not fit.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            label, reference = _reference(source, Path(folder))
        except RuntimeFailure as error:
            reason = str(error).replace(f"{folder}/", "")
            return "", (), [f"not compared: onnxruntime runs neither the source nor its nodes as deploydcn's operators ({reason})"]
        checks = []
        problem = "no shape was tried"
        for feeds in [inputs] if inputs is not None else _random_inputs(reference.inputs, shapes):
            try:
                wanted = reference.run(feeds)
            except (RuntimeFailure, InvalidArgument) as error:
                if inputs is not None or shapes is not None:
                    raise InvalidArgument(f"the source does not run on the given inputs or shapes: {error}") from error
                problem = str(error).strip().splitlines()[0][:300]
                continue
            if all(array.size == 0 or (array == array.flat[0]).all() for array in wanted.values()):
                problem = "every output is constant, which proves nothing"
                continue
            checks.append(_check(result, feeds, wanted, precision))
            if len(checks) == 2:
                break
    notes = [] if checks else [f"not compared: random inputs do not tell ({problem}); give inputs, or their shapes"]
    return label, tuple(checks), notes


def _reference(source: Path, folder: Path) -> tuple[str, Runner]:
    for options in ({}, {"replace_standard": True}):
        try:
            return "the source", load(source, "ort", **options)
        except (RuntimeFailure, InvalidModel):
            continue
    return "the source with deploydcn's operators", load(_imported(source, folder), "ort")


def _imported(source: Path, folder: Path) -> Path:
    """The source, its foreign nodes read as ours and nothing else changed."""
    from deploydcn.export import conversion, graph
    from deploydcn.export.finish import finish
    from deploydcn.export.foreign import import_foreign

    model = conversion.read(source)
    import_foreign(model)
    finish(model, model.opset_imports[""])
    graph.save(model, folder / "imported.onnx")
    return folder / "imported.onnx"


def _random_inputs(infos: Sequence[TensorInfo], shapes: Mapping[str, Sequence[int]] | None) -> Iterator[dict[str, np.ndarray]]:
    fixed = all(info.shape is not None and all(isinstance(size, int) for size in info.shape) for info in infos)
    if fixed or shapes is not None:
        yield random_inputs(infos, shapes)
        return
    for guess in GUESSES:
        try:
            yield random_inputs(infos, {info.name: _guessed(info, *guess) for info in infos})
        except InvalidArgument:  # an input of unknown rank
            return


def _guessed(info: TensorInfo, first: int, other: int) -> tuple[int, ...]:
    if info.shape is None:
        raise InvalidArgument(f"input {info} has no known rank")
    return tuple(size if isinstance(size, int) else first if axis == 0 else other for axis, size in enumerate(info.shape))


def _check(result: Path, inputs: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray], precision: str) -> ShapeCheck:
    shapes = {name: tuple(array.shape) for name, array in inputs.items()}
    try:
        got = load(result, "ort").run(inputs)
    except UserError as error:
        raise ExportError(f"the converted file does not run where its source does: {error}; check=False writes it anyway") from error
    quantized = precision == QUANTIZED
    outputs = tuple(compare(_real(wanted), _real(got)) if quantized else compare(wanted, got))
    for output in outputs:
        if problem := _problem(output, precision):
            where = f"output {output.name!r} differs from the source's at {shapes}"
            raise ExportError(f"{where}: {problem}; no file was written; check=False writes it anyway")
    if quantized:
        note = "quantized: noise of whole outputs, relative to the signal"
        return ShapeCheck("inputs", shapes, outputs, 10 ** (-QUANTIZED_DB / 20), note)
    return ShapeCheck("inputs", shapes, outputs, default_tolerance(precision).relative)


def _problem(output: OutputComparison, precision: str) -> str:
    """What is wrong with an output, "" if nothing is."""
    if output.mismatch:
        return output.mismatch
    if precision == QUANTIZED:
        return "" if output.sqnr_db >= QUANTIZED_DB else f"{output.sqnr_db:.1f} dB of signal to noise, wanted {QUANTIZED_DB:.0f}"
    tolerance = default_tolerance(precision).relative
    if output.passes(tolerance):
        return ""
    return f"{output.worst_channel:.3g} of its scale (max abs {output.max_abs:.3g}), allowed {tolerance:.3g}"


def _real(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """8-bit data as numbers that may differ a little."""
    return {name: array.astype(np.float32) if array.dtype.name in ("uint8", "int8") else array for name, array in outputs.items()}
