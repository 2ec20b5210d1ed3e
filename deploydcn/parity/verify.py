"""`verify`: run two models on the same inputs and judge the difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from deploydcn.errors import InvalidArgument
from deploydcn.parity.compare import OutputComparison, compare
from deploydcn.parity.tolerance import Tolerance, default_tolerance
from deploydcn.runners import Runner, load
from deploydcn.runners.base import TensorInfo, as_array
from deploydcn.runners.tensorrt_api import ENGINE_SUFFIXES, engine_backend

PRECISION = {"float64": 3, "float32": 2, "float16": 1, "bfloat16": 0}


@dataclass(frozen=True)
class ParityCase:
    """One set of inputs: their shapes, and every output compared."""

    label: str
    shapes: Mapping[str, tuple[int, ...]]
    outputs: tuple[OutputComparison, ...]


@dataclass(frozen=True)
class ParityReport:
    """The verdict on a candidate. `passed` needs every output of every case within tolerance, and at least one case."""

    reference: str
    candidate: str
    tolerance: Tolerance
    cases: tuple[ParityCase, ...]

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
                }
                for case in self.cases
            ],
        }


def verify(
    reference: Any,
    candidate: Any,
    inputs: Mapping[str, Any] | Sequence[Any] | None = None,
    *,
    tolerance: float | Tolerance | None = None,
    dtype: str | None = None,
    seed: int = 0,
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
        seed: of the random inputs.
        progress: show a progress bar when there are several sets.

    Raises:
        InvalidArgument: inputs do not fit, or there is nothing to compare.
    """
    if isinstance(tolerance, int | float) and not tolerance >= 0:
        raise InvalidArgument(f"tolerance is {tolerance}; wanted 0 or more, relative to a channel's scale")
    if inputs is not None and (hasattr(inputs, "shape") or not hasattr(inputs, "__len__")):
        raise InvalidArgument("inputs is one array or an iterator; wanted a dict by name, a list of arrays, or a list of dicts")
    expected, got = as_runner(reference), as_runner(candidate)
    cases = []
    dtypes: set[str] = set()
    sets = list(_input_sets(expected, got, inputs, seed))
    for label, arrays in track(sets, "comparing", disable=not progress or len(sets) < 2):
        wanted, actual = expected.run(arrays), _run_like(expected, got, arrays)
        dtypes |= {array.dtype.name for array in (*wanted.values(), *actual.values(), *arrays.values()) if array.dtype.name in PRECISION}
        shapes = {name: array.shape for name, array in arrays.items()}
        cases.append(ParityCase(label, shapes, tuple(compare(wanted, actual))))
    if not isinstance(tolerance, Tolerance):
        lowest = dtype or min(dtypes, key=lambda name: PRECISION[name], default="float32")
        policy = default_tolerance(lowest)
        tolerance = policy if tolerance is None else Tolerance(tolerance, "given by the caller")
    return ParityReport(expected.name, got.name, tolerance, tuple(cases))


def random_inputs(
    infos: Sequence[TensorInfo], shapes: Mapping[str, Sequence[int]] | None = None, *, seed: int = 0
) -> dict[str, np.ndarray]:
    """Seeded inputs: standard normal for floating point, 0 or 1 for integers and booleans.

    Raises:
        InvalidArgument: a dynamic size without a shape for its input.
    """
    if not isinstance(seed, int) or seed < 0:
        raise InvalidArgument(f"seed is {seed!r}; wanted a whole number, 0 or more")
    rng = np.random.default_rng(seed)
    shapes = shapes or {}
    unknown = set(shapes) - {info.name for info in infos}
    if unknown:
        raise InvalidArgument(f"no input named {', '.join(sorted(map(repr, unknown)))}; the model takes {', '.join(map(str, infos))}")
    arrays = {}
    for info in infos:
        shape = shapes.get(info.name, info.shape)
        if shape is None or not all(isinstance(size, int) for size in shape):
            raise InvalidArgument(f"input {info} has dynamic sizes; give its shape, as in --shape {info.name}=1x3x640x640")
        sizes = tuple(int(size) for size in shape if size is not None)
        if info.dtype in PRECISION:
            arrays[info.name] = rng.standard_normal(sizes).astype(info.dtype)
        else:
            arrays[info.name] = rng.integers(0, 2, sizes).astype(info.dtype)
    return arrays


def as_runner(model: Any) -> Runner:
    """A Runner as it is; otherwise ONNX models through ONNX Runtime, engine files through TensorRT, everything else through torch."""
    if isinstance(model, Runner):
        return model
    if isinstance(model, str | Path) and str(model).endswith(ENGINE_SUFFIXES):
        return load(str(model), engine_backend(Path(model)))
    if isinstance(model, str | Path) and str(model).endswith(".onnx"):
        return load(str(model), "ort")
    if type(model).__name__ == "ModelProto" or isinstance(model, bytes):
        return load(model, "ort")
    return load(model, "torch")


def _input_sets(
    expected: Runner, got: Runner, inputs: Mapping[str, Any] | Sequence[Any] | None, seed: int
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    names = [info.name for info in expected.inputs]
    if inputs is None:
        example = getattr(expected, "example", None) or getattr(got, "example", None)
        if example is not None:
            yield "example", example
        shapes = {name: array.shape for name, array in example.items()} if example else None
        yield f"seed {seed}", random_inputs(expected.inputs, shapes, seed=seed)
    elif isinstance(inputs, Mapping):
        yield "given", {name: as_array(value) for name, value in inputs.items()}
    elif inputs and all(isinstance(item, Mapping) for item in inputs):
        for index, item in enumerate(inputs):
            yield f"set {index}", {name: as_array(value) for name, value in item.items()}
    else:
        if len(inputs) != len(names):
            raise InvalidArgument(f"got {len(inputs)} inputs; wanted {len(names)}: {', '.join(map(str, expected.inputs))}")
        yield "given", {name: as_array(value) for name, value in zip(names, inputs, strict=True)}


def _run_like(reference: Runner, runner: Runner, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Feed the candidate what the reference got: by name where the names agree, else in the reference's order."""
    names = [info.name for info in reference.inputs]
    if {info.name for info in runner.inputs} == set(names):
        return runner.run(arrays)
    return runner.run([arrays[name] for name in names])
