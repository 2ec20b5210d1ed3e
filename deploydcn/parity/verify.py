"""`verify`: run two models on the same inputs and judge the difference."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from rich.progress import track

from deploydcn.errors import InvalidArgument, UserError
from deploydcn.parity.compare import OutputComparison, compare_arrays, incomparable, pair_outputs, refuse_empty
from deploydcn.parity.detections import DetectionComparison, compare_detections
from deploydcn.parity.inputs import input_sets
from deploydcn.parity.locate import MEMORY_LIMIT
from deploydcn.parity.locate import locate as find_divergence
from deploydcn.parity.location import Location
from deploydcn.parity.tolerance import PRECISION, Tolerance, default_tolerance
from deploydcn.runners import Runner, load
from deploydcn.runners.base import has_members
from deploydcn.runners.tensorrt_api import ENGINE_SUFFIXES, engine_backend

NUMPY_FLOATS = ("float64", "float32", "float16")


@dataclass(frozen=True)
class ParityCase:
    """One set of inputs, by the reference's names and in its order, and every output compared; detections too where that was asked for."""

    label: str
    inputs: Mapping[str, np.ndarray] = field(repr=False, compare=False)
    outputs: tuple[OutputComparison, ...]
    detections: tuple[DetectionComparison, ...] = field(default=(), compare=False)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: array.shape for name, array in self.inputs.items()}


@dataclass(frozen=True)
class ParityReport:
    """The verdict on a candidate. `passed` needs every output of every case within tolerance, and at least one case. location: where the
    models part, when that was asked for. worst_tensors: the output of the largest error, the reference's and the candidate's; None where
    the candidate did not run."""

    reference: str
    candidate: str
    tolerance: Tolerance
    cases: tuple[ParityCase, ...]
    location: Location | None = None
    worst_tensors: tuple[np.ndarray, np.ndarray] | None = field(default=None, repr=False, compare=False)

    @property
    def passed(self) -> bool:
        return bool(self.cases) and all(output.passes(self.tolerance.relative) for case in self.cases for output in case.outputs)

    @property
    def worst(self) -> tuple[ParityCase, OutputComparison]:
        """The case and output with the largest error."""
        return max(((case, output) for case in self.cases for output in case.outputs), key=lambda pair: pair[1].worst_channel)

    def summary(self) -> str:
        """One line for logs."""
        case, output = self.worst
        verdict = "PASS" if self.passed else "FAIL"
        what = output.mismatch or f"{output.worst_channel:.3g} of its scale (max abs {output.max_abs:.3g})"
        return (
            f"{verdict}: {self.candidate} against {self.reference}, {len(self.cases)} inputs; worst output {output.name!r} "
            f"({case.label}): {what}; allowed {self.tolerance.relative:.3g}"
        )

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "passed": self.passed,
            "reference": self.reference,
            "candidate": self.candidate,
            "tolerance": {"relative": self.tolerance.relative, "reason": self.tolerance.reason},
            "cases": [
                {
                    "label": case.label,
                    "shapes": {name: list(shape) for name, shape in case.shapes.items()},
                    "outputs": [{**output.to_json(), "passed": output.passes(self.tolerance.relative)} for output in case.outputs],
                    "detections": [detections.to_json() for detections in case.detections],
                }
                for case in self.cases
            ],
            "location": None if self.location is None else self.location.to_json(),
        }


def verify(
    reference: Any,
    candidate: Any,
    inputs: Mapping[str, Any] | Sequence[Any] | None = None,
    *,
    tolerance: float | Tolerance | None = None,
    dtype: str | None = None,
    seed: int = 0,
    seeds: int = 2,
    kinds: Sequence[str] = (),
    images: str | os.PathLike[str] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    detector: str | None = None,
    locate: bool = False,
    memory_limit: int = MEMORY_LIMIT,
    progress: bool = False,
) -> ParityReport:
    """Run both models on the same inputs and compare every output.

    Args:
        reference, candidate: a Runner, the path of an .onnx or .engine file, an onnx.ModelProto, a torch module, (module, example),
            or a factory's name.
        inputs: one set (by name, or arrays in order), or a list of sets by name. None: the torch side's example inputs, and
            seeded random ones of the same shapes.
        tolerance: allowed error relative to a channel's scale; the policy of `dtype` when None.
        dtype: the lowest precision either side computes in; read from the outputs and inputs when None.
        seed, seeds: the first seed of the random inputs, and how many there are; none when inputs are given.
        kinds: further inputs of the same shapes: "zeros", "large" (see deploydcn.parity.inputs).
        images: a folder of photographs to compare on too.
        shapes: of the random inputs, instead of the example and its shapes.
        detector: compare detections box by box as well: "boxes", "yolo" or "detr" says how outputs are read, "auto" finds out; see
            deploydcn.parity.detectors. They do not change the verdict, which every output must pass.
        locate: compare tensors inside the models as well, on the inputs of the largest error, and find the first layer that computes
            something else: `ParityReport.location`.
        memory_limit: bytes of both sides' tensors that `locate` holds at a time.
        progress: show progress bars.

    Raises:
        InvalidArgument: inputs do not fit, or there is nothing to compare.
        RuntimeFailure: a model does not run; when it is the candidate, `locate` finds the layer instead.
    """
    if isinstance(tolerance, int | float) and not 0 <= tolerance < math.inf:
        raise InvalidArgument(f"tolerance is {tolerance}; wanted 0 or more and finite, relative to a channel's scale")
    expected, got = as_runner(reference), as_runner(candidate)
    cases: list[ParityCase] = []
    broken: dict[str, str] = {}
    worst, worst_tensors = -1.0, None
    dtypes: set[str] = set()
    sets = list(input_sets(expected, got, inputs, shapes=shapes, seed=seed, seeds=seeds, kinds=kinds, images=images))
    if not sets:
        raise InvalidArgument("there is nothing to compare: no inputs were asked for; give inputs, seeds, kinds or images")
    for label, arrays in track(sets, "comparing", disable=not progress or len(sets) < 2):
        wanted, feeds, actual = expected.run(arrays), feeds_like(expected, got, arrays), {}
        detections: tuple[DetectionComparison, ...] = ()
        try:
            actual = got.run(feeds)
        except UserError as error:
            if not locate:
                raise
            broken[label] = str(error)
            outputs = tuple(incomparable(name, array.shape, f"the candidate does not run: {error}") for name, array in wanted.items())
            worst, worst_tensors = math.inf, worst_tensors if worst == math.inf else None
        else:
            pairs = pair_outputs(wanted, actual)
            outputs = tuple(compare_arrays(*pair) for pair in pairs)
            detections = () if detector is None else compare_detections(pairs, detector, arrays)
            for output, (_, *tensors) in zip(outputs, pairs, strict=True):
                if output.worst_channel > worst:
                    worst, worst_tensors = output.worst_channel, (tensors[0], tensors[1])
        dtypes |= {array.dtype.name for array in (*wanted.values(), *actual.values(), *arrays.values()) if array.dtype.name in PRECISION}
        ordered = {info.name: arrays[info.name] for info in expected.inputs}
        cases.append(ParityCase(label, ordered, outputs, detections))
    refuse_empty(output for case in cases for output in case.outputs)
    if not isinstance(tolerance, Tolerance):
        lowest = dtype or min(dtypes, key=lambda name: PRECISION[name], default="float32")
        policy = default_tolerance(lowest)
        tolerance = policy if tolerance is None else Tolerance(tolerance, "given by the caller")
    report = ParityReport(expected.name, got.name, tolerance, tuple(cases), worst_tensors=worst_tensors)
    if not locate:
        return report
    label, arrays = sets[cases.index(report.worst[0])]
    location = find_divergence(
        expected,
        got,
        arrays,
        feeds_like(expected, got, arrays),
        label=label,
        failed=not report.passed,
        error=broken.get(label, ""),
        tolerance=tolerance.relative,
        precision=dtype,
        memory_limit=memory_limit,
        progress=progress,
    )
    return replace(report, location=location)


def as_runner(model: Any) -> Runner:
    """A Runner as it is; otherwise ONNX models through ONNX Runtime, engine files through TensorRT, everything else through torch."""
    if has_members(model, "name", "inputs", "outputs", "run"):
        return cast(Runner, model)
    if isinstance(model, str | Path) and str(model).endswith(ENGINE_SUFFIXES):
        return load(str(model), engine_backend(Path(model)))
    if isinstance(model, str | Path) and str(model).endswith(".onnx"):
        return load(str(model), "ort")
    if type(model).__name__ == "ModelProto" or isinstance(model, bytes):
        return load(model, "ort")
    return load(model, "torch")


def feeds_like(reference: Runner, runner: Runner, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The reference's inputs by the other's names, the same ones or in order, and in its floating-point types: a file in half precision is
    compared on the rounded numbers, which are part of what it costs."""
    ordered = [arrays[info.name] for info in reference.inputs]
    names = [info.name for info in runner.inputs]
    if len(ordered) != len(names):
        taken = [", ".join(map(str, side.inputs)) for side in (reference, runner)]
        raise InvalidArgument(f"the reference takes {taken[0]}; the candidate {taken[1]}; wanted as many")
    feeds = dict(arrays) if set(names) == set(arrays) else dict(zip(names, ordered, strict=True))
    wanted = {info.name: info.dtype for info in runner.inputs if info.dtype in NUMPY_FLOATS}
    return {name: _as_float(array, wanted.get(name, array.dtype.name)) for name, array in feeds.items()}


def _as_float(array: np.ndarray, dtype: str) -> np.ndarray:
    return array.astype(dtype, copy=False) if array.dtype.name in NUMPY_FLOATS else array
