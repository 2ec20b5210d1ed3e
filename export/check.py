"""Run a written file against the model it came from, at the example's shapes and at others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from deploydcn.errors import ExportError, InvalidArgument, RuntimeFailure
from deploydcn.export.dynamic import DynamicAxis, resized, second_sizes
from deploydcn.export.report import ShapeCheck
from deploydcn.parity import OutputComparison, compare, default_tolerance
from deploydcn.parity.verify import PRECISION
from deploydcn.runners import Runner, load
from deploydcn.runners.base import as_array
from deploydcn.runners.torch_runner import TorchRunner

NOISE_FACTOR = 8
"""A file may be this many times further from PyTorch's float32 than that is from float64: models can amplify rounding."""

LARGEST_NOISE = 0.1
"""Beyond this, float32 itself is noise and no comparison means anything."""


def check_file(path: Path, reference: TorchRunner, axes: Sequence[DynamicAxis]) -> Iterator[ShapeCheck]:
    """Compare at the example's shapes, then at a second size of every dynamic axis: all at once, or each by itself where the
    model does not take them together.

    Raises:
        ExportError: outputs differ, or an axis is dynamic in name only; the message names it.
    """
    runner = load(path, "ort")
    example = reference.signature.tensors()
    yield _check("example", runner, reference, example)
    if not axes:
        return
    together = _proposal(reference, example, axes)
    if together is not None:
        label, tensors = together
        try:
            yield _check(label, runner, reference, tensors)
            return
        except ExportError:
            # Find the axis to name: one alone must fail too, else all together are at fault.
            for single in _groups(axes):
                alone = _proposal(reference, example, single)
                if alone is not None:
                    _check(alone[0], runner, reference, alone[1], axis=single[0])
            raise
    for single in _groups(axes):
        alone = _proposal(reference, example, single)
        if alone is None:
            raise ExportError(
                f"dynamic axis {single[0]} was asked for, but PyTorch itself runs the model at the example's size only (tried others); "
                "leave it static, or give a torch.export.Dim with the range it allows"
            )
        yield _check(alone[0], runner, reference, alone[1], axis=single[0])


def _groups(axes: Sequence[DynamicAxis]) -> list[list[DynamicAxis]]:
    groups: dict[str, list[DynamicAxis]] = {}
    for axis in axes:
        groups.setdefault(axis.name or str(axis), []).append(axis)
    return list(groups.values())


def _proposal(
    reference: TorchRunner, example: Mapping[str, torch.Tensor], axes: Sequence[DynamicAxis]
) -> tuple[str, dict[str, torch.Tensor]] | None:
    """Inputs of another size that PyTorch itself accepts."""
    for sizes in second_sizes(example, axes):
        tensors = resized(example, sizes)
        try:
            reference.call(tensors)
        except RuntimeFailure:
            continue
        return ", ".join(f"{axis}={size}" for axis, size in sizes.items()), tensors
    return None


def _check(
    label: str, runner: Runner, reference: TorchRunner, tensors: Mapping[str, torch.Tensor], axis: DynamicAxis | None = None
) -> ShapeCheck:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    arrays = {name: as_array(tensor) for name, tensor in tensors.items()}
    wanted = reference.run(arrays)
    blame = f"axis {axis} is dynamic in name only: " if axis else ""
    try:
        got = runner.run(arrays)
        outputs = compare(wanted, dict(zip(wanted, got.values(), strict=True)))
    except (InvalidArgument, RuntimeFailure) as error:
        advice = "no file was written; give another example, or check=False"
        raise ExportError(f"{blame}the file cannot be checked at {label} {shapes}: {error}; {advice}") from error
    dtypes = [array.dtype.name for array in (*wanted.values(), *arrays.values()) if array.dtype.name in PRECISION]
    tolerance = default_tolerance(min(dtypes, key=lambda name: PRECISION[name], default="float32")).relative
    note = ""
    if not _pass(outputs, tolerance):
        noise = _noise(reference, arrays, wanted)
        if noise is not None and noise <= LARGEST_NOISE and _pass(outputs, NOISE_FACTOR * noise):
            note = f"float32 alone differs from float64 by {noise:.2g} on this model: tolerance {NOISE_FACTOR} times that"
            tolerance = NOISE_FACTOR * noise
        else:
            raise ExportError(_mismatch(blame, label, outputs, tolerance, noise))
    return ShapeCheck(label, shapes, tuple(outputs), tolerance, note)


def _pass(outputs: Sequence[OutputComparison], tolerance: float) -> bool:
    return all(output.passes(tolerance) for output in outputs)


def _noise(reference: TorchRunner, arrays: Mapping[str, object], wanted: Mapping[str, object]) -> float | None:
    """How far PyTorch's own run is from float64; None where the model does not run in it."""
    try:
        double = reference.run_in_float64(arrays)
        return max(output.worst_channel for output in compare(double, wanted))  # type: ignore[arg-type]
    except (RuntimeFailure, InvalidArgument):
        return None


def _mismatch(blame: str, label: str, outputs: Sequence[OutputComparison], tolerance: float, noise: float | None) -> str:
    worst = max(outputs, key=lambda output: (bool(output.mismatch), output.worst_channel))
    what = worst.mismatch or f"{worst.worst_channel:.3g} of its scale (max abs {worst.max_abs:.3g}), allowed {tolerance:.3g}"
    rounding = "" if noise is None else f"; float32 rounding alone gives {noise:.2g}"
    if noise is not None and noise > LARGEST_NOISE:
        rounding += ": at this input the model turns rounding into other results; give an example it is stable on, or check=False"
    return f"{blame}at {label} the file's output {worst.name!r} differs from PyTorch: {what}{rounding}; no file was written"
