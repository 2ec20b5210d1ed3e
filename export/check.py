"""Run a written file against the model it came from, at the example's shapes and at others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from deploydcn.errors import ExportError, InvalidArgument, RuntimeFailure
from deploydcn.export.dynamic import LARGEST_PROBE, PROBES, DynamicAxis, other_sizes, resized
from deploydcn.export.report import ShapeCheck
from deploydcn.parity import OutputComparison, compare, default_tolerance
from deploydcn.parity.tolerance import PRECISION
from deploydcn.runners import Runner, load
from deploydcn.runners.base import as_array
from deploydcn.runners.torch_runner import TorchRunner

NOISE_FACTOR = 8
"""A file may be this many times further from PyTorch's float32 than that is from float64: models can amplify rounding."""

LARGEST_TOLERANCE = 1e-2
"""However noisy a model is, a difference beyond this is not put down to rounding."""


def check_file(path: Path, reference: TorchRunner, axes: Sequence[DynamicAxis]) -> Iterator[ShapeCheck]:
    """Compare at the example's shapes, then at other sizes of every dynamic axis: all at once, or each by itself where the
    model does not take them together.

    Raises:
        ExportError: outputs differ, or an axis is dynamic in name only; the message names it.
    """
    runner = _load(path)
    example = reference.signature.tensors()
    _require_determinism(reference, example)
    yield _check("example", runner, reference, example)
    for kind in PROBES if axes else ():
        yield from _check_kind(kind, runner, reference, example, axes)


def _load(path: Path) -> Runner:
    """The file in ONNX Runtime; with our kernel for the standard DeformConv where the runtime has none."""
    try:
        return load(path, "ort")
    except RuntimeFailure as error:
        try:
            return load(path, "ort", replace_standard=True)
        except RuntimeFailure:
            raise ExportError(f"{error}; no file was written; another target, or check=False, may help") from error


def _check_kind(
    kind: str, runner: Runner, reference: TorchRunner, example: Mapping[str, torch.Tensor], axes: Sequence[DynamicAxis]
) -> Iterator[ShapeCheck]:
    together = _proposal(kind, reference, example, axes)
    if together is not None:
        try:
            yield _check(together[0], runner, reference, together[1])
        except ExportError:
            # Find the axis to name: one alone must fail too, else all together are at fault.
            for single in _groups(axes):
                alone = _proposal(kind, reference, example, single)
                if alone is not None:
                    _check(alone[0], runner, reference, alone[1], axis=single[0])
            raise
        return
    for single in _groups(axes) if kind == "larger" or len(_groups(axes)) > 1 else ():
        alone = _proposal(kind, reference, example, single)
        if alone is not None:
            yield _check(alone[0], runner, reference, alone[1], axis=single[0])
        elif kind == "larger":
            raise ExportError(
                f"dynamic axis {single[0]} was asked for, but PyTorch itself runs the model at the example's size only (tried others); "
                "leave it static; give axes that must be equal one name; or give a torch.export.Dim with the range it allows"
            )


def _require_determinism(reference: TorchRunner, example: Mapping[str, torch.Tensor]) -> None:
    arrays = {name: as_array(tensor) for name, tensor in example.items()}
    first, second = reference.run(arrays), reference.run(arrays)
    for output in compare(first, second) if any(array.size for array in first.values()) else ():
        if not output.passes(default_tolerance("float32").relative):
            raise ExportError(
                f"output {output.name!r} differs between two runs of the model itself on the same inputs: it draws random numbers or "
                "keeps state; an ONNX file does neither; remove that in eval mode, or export with check=False"
            )


def _groups(axes: Sequence[DynamicAxis]) -> list[list[DynamicAxis]]:
    groups: dict[str, list[DynamicAxis]] = {}
    for axis in axes:
        groups.setdefault(axis.group, []).append(axis)
    return list(groups.values())


def _proposal(
    kind: str, reference: TorchRunner, example: Mapping[str, torch.Tensor], axes: Sequence[DynamicAxis]
) -> tuple[str, dict[str, torch.Tensor]] | None:
    """Inputs of another size that PyTorch itself accepts."""
    for sizes in other_sizes(example, axes, kind):
        tensors = resized(example, sizes)
        if kind == "double" and max(tensor.numel() for tensor in tensors.values()) > LARGEST_PROBE:
            return None
        try:
            reference.call(tensors)
        except (InvalidArgument, RuntimeFailure):
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
    policy = default_tolerance(min(dtypes, key=lambda name: PRECISION[name], default="float32")).relative
    allowed = {output.name: policy for output in outputs}
    note = ""
    if not _pass(outputs, allowed):
        noise = _noise(reference, arrays, wanted)
        allowed = {name: max(policy, min(NOISE_FACTOR * noise.get(name, 0.0), LARGEST_TOLERANCE)) for name in allowed}
        if not _pass(outputs, allowed):
            raise ExportError(_mismatch(blame, label, outputs, allowed, noise))
        noisy = {name: level for name, level in noise.items() if allowed[name] > policy}
        levels = ", ".join(f"{name}: {level:.2g}" for name, level in noisy.items())
        note = f"float32 alone differs from float64 ({levels}): tolerance {NOISE_FACTOR} times that"
    return ShapeCheck(label, shapes, tuple(outputs), max(allowed.values()), note)


def _pass(outputs: Sequence[OutputComparison], allowed: Mapping[str, float]) -> bool:
    return all(output.passes(allowed[output.name]) for output in outputs)


def _noise(reference: TorchRunner, arrays: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> dict[str, float]:
    """How far each output of PyTorch's own run is from float64; empty where the model does not run in it."""
    try:
        return {output.name: output.worst_channel for output in compare(reference.run_in_float64(arrays), wanted)}
    except Exception:  # models that cannot be copied or run in double: the mismatch itself is what must be reported
        return {}


def _mismatch(blame: str, label: str, outputs: Sequence[OutputComparison], allowed: Mapping[str, float], noise: Mapping[str, float]) -> str:
    worst = max((output for output in outputs if not output.passes(allowed[output.name])), key=lambda output: output.worst_channel)
    limit, level = allowed[worst.name], noise.get(worst.name)
    what = worst.mismatch or f"{worst.worst_channel:.3g} of its scale (max abs {worst.max_abs:.3g}), allowed {limit:.3g}"
    rounding = "" if level is None else f"; float32 rounding alone gives {level:.2g}"
    if level is not None and NOISE_FACTOR * level > LARGEST_TOLERANCE:
        rounding += ": at this input the model turns rounding into other results; give an example it is stable on, or check=False"
    return f"{blame}at {label} the file's output {worst.name!r} differs from PyTorch: {what}{rounding}; no file was written"
