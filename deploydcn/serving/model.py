"""One version of a model, ready to answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deploydcn.errors import InvalidArgument, InvalidModel, RuntimeFailure, UserError
from deploydcn.parity import compare, default_tolerance, random_inputs, verify
from deploydcn.parity.golden import Golden, GoldenRunner, read_golden
from deploydcn.parity.verify import feeds_like
from deploydcn.runners import Runner, TensorInfo, load
from deploydcn.runners.base import arrays_for
from deploydcn.runners.engine_runner import EngineRunner
from deploydcn.runners.tensorrt_api import engine_backend
from deploydcn.serving.batcher import Arrays, Batcher
from deploydcn.serving.datatypes import NAMES
from deploydcn.serving.options import ModelOptions
from deploydcn.serving.refusal import Refusal
from deploydcn.serving.request import InferRequest
from deploydcn.serving.statistics import Statistics

ENGINE_SUFFIXES = (".engine", ".plan")
SUFFIXES = (".onnx", *ENGINE_SUFFIXES)

log = logging.getLogger("deploydcn.serving")


@dataclass(frozen=True)
class Platform:
    """What runs a file, in Triton's words."""

    name: str
    backend: str


ONNX = Platform("onnxruntime_onnx", "onnxruntime")
ENGINE = Platform("tensorrt_plan", "tensorrt")


class ServedModel:
    """A loaded file behind a queue.

    Args:
        name, version: as clients see them.
        path: the file.
        options: how it is run.

    Raises:
        UserError: the file cannot be loaded or served, or computes other numbers than its golden.
    """

    def __init__(self, name: str, version: int, path: Path, options: ModelOptions) -> None:
        self.name, self.version, self.path = name, version, path
        self.platform = ENGINE if path.suffix in ENGINE_SUFFIXES else ONNX
        self._runner = _open(path, options)
        for info in (*self._runner.inputs, *self._runner.outputs):
            if info.dtype not in NAMES:
                raise InvalidModel(f"{path}: tensor {info} is of a type that is not served; wanted one of {', '.join(NAMES)}")
        if not self._runner.inputs:
            raise InvalidModel(f"{path} has no inputs; wanted a model that answers requests")
        self.inputs, self.outputs = self._runner.inputs, self._runner.outputs
        self.file_metadata: Mapping[str, str] = getattr(self._runner, "metadata", {})  # engines hold none
        beside = _golden_path(path)
        golden = read_golden(beside) if options.self_check and beside.is_file() else None
        if golden is not None:
            _self_check(self._runner, golden, beside.name)
        self._known = _warm_up(self._runner, golden)
        self.max_batch = _largest_batch(self._runner, self._known, options.batch.size)
        self.statistics = Statistics()
        self._batcher = Batcher(self._run, replace(options.batch, size=self.max_batch), self.statistics, runners=options.instances)
        self._untried = self.max_batch > 0 and self._known is None
        self._batcher.joins = self.max_batch > 0 and not self._untried

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return self._batcher.depth

    async def infer(self, request: InferRequest, limit: float) -> Arrays:
        """The outputs asked for. limit: seconds it may take.

        Raises:
            Refusal: inputs that do not fit the model, or what `Batcher.infer` raises.
        """
        known = {info.name for info in self.outputs}
        unknown = [name for name in request.outputs if name not in known]
        if unknown:
            raise Refusal(f"model {self.name!r} has no output {', '.join(map(repr, unknown))}; it has {', '.join(sorted(known))}")
        outputs = await self._batcher.infer(self._checked(request.inputs), request.timeout(limit))
        return {name: outputs[name] for name in request.outputs} if request.outputs else outputs

    async def close(self) -> None:
        """Answer what is in the queue, then let go of the model."""
        await self._batcher.drain()
        if isinstance(self._runner, EngineRunner):
            self._runner.close()

    def metadata(self) -> dict[str, Any]:
        """The protocol's model metadata, without versions."""
        return {
            "name": self.name,
            "platform": self.platform.name,
            "inputs": [_tensor_json(info) for info in self.inputs],
            "outputs": [_tensor_json(info) for info in self.outputs],
        }

    def config(self) -> dict[str, Any]:
        """Triton's model configuration, as far as it says something about this server."""
        skipped = 1 if self.max_batch else 0  # Triton leaves the batch axis out of dims
        tensors = {
            kind: [{"name": info.name, "data_type": f"TYPE_{NAMES[info.dtype]}", "dims": _sizes(info)[skipped:]} for info in infos]
            for kind, infos in (("input", self.inputs), ("output", self.outputs))
        }
        return {
            "name": self.name,
            "platform": self.platform.name,
            "backend": self.platform.backend,
            "max_batch_size": self.max_batch,
            **tensors,
            "default_model_filename": self.path.name,
            **({"dynamic_batching": {}} if self.max_batch else {}),
        }

    def _checked(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            arrays = arrays_for(self.inputs, inputs)
        except InvalidArgument as error:
            raise Refusal(str(error)) from error
        if self.max_batch:
            sizes = {array.shape[0] for array in arrays.values()}
            if len(sizes) > 1 or not 1 <= min(sizes) <= self.max_batch:
                got = " and ".join(map(str, sorted(sizes)))
                raise Refusal(f"the batch (first axis) is {got}; model {self.name!r} takes 1 to {self.max_batch}, the same for every input")
        return arrays

    def _run(self, inputs: Arrays) -> Arrays:
        """On a runner's thread."""
        try:
            outputs = self._runner.run(inputs)
        except UserError as error:
            # Whose fault it is: a model that still runs on inputs known to work was given others that it cannot take.
            if self._known is None or _runs(self._runner, self._known):
                raise Refusal(f"model {self.name!r} does not run on these inputs: {error}") from error
            raise
        if self._untried:
            self._try_batch(inputs)
        return outputs

    def _try_batch(self, inputs: Arrays) -> None:
        """The first request tells the sizes that the file leaves open; its values may be zeros or all the same, so others are made up."""
        self._untried = False
        known = random_inputs(self.inputs, {name: (1, *array.shape[1:]) for name, array in inputs.items()})
        self._batcher.joins = _rows_are_apart(self._runner, known)


def is_model_file(path: Path) -> bool:
    """Whether a file's name says that it can be served."""
    return path.suffix in SUFFIXES and not path.name.startswith(".")


def _open(path: Path, options: ModelOptions) -> Runner:
    if path.suffix in ENGINE_SUFFIXES:
        return load(path, engine_backend(path), contexts=options.instances)
    return load(path, "ort", threads=options.threads, bfloat16=options.bfloat16, precise=options.precise)


def _golden_path(path: Path) -> Path:
    """What the model is compared with when it is loaded, if it is there: `deploydcn verify --record` writes it."""
    return path.with_suffix(".golden.npz")


def _self_check(runner: Runner, golden: Golden, name: str) -> None:
    report = verify(GoldenRunner(golden, name), runner, [case.inputs for case in golden.cases], tolerance=golden.tolerance)
    if not report.passed:
        raise RuntimeFailure(report.summary())
    log.info(report.summary())


def _warm_up(runner: Runner, golden: Golden | None) -> dict[str, np.ndarray] | None:
    """Run once; gives the inputs that did: the golden's, or made up. None where the model leaves sizes open and nothing tells them."""
    if golden is not None:
        inputs = feeds_like(GoldenRunner(golden, ""), runner, golden.cases[0].inputs)
    else:
        shapes = {info.name: _likely_shape(runner, info) for info in runner.inputs}
        if any(shape is None for shape in shapes.values()):
            log.info("%s: sizes are open, so the first request warms it up", runner.name)
            return None
        inputs = random_inputs(runner.inputs, {name: shape for name, shape in shapes.items() if shape is not None})
    begin = time.perf_counter()
    runner.run(inputs)
    log.info("%s ran first in %.1f ms", runner.name, 1e3 * (time.perf_counter() - begin))
    return inputs


def _likely_shape(runner: Runner, info: TensorInfo) -> tuple[int, ...] | None:
    """An engine's optimal shape; else the declared one, with 1 for an open first size. None where others are open."""
    if isinstance(runner, EngineRunner) and info.name in runner.profiles[0]:
        return runner.profiles[0][info.name][1]
    if info.shape is None or any(not isinstance(size, int) for size in info.shape[1:]):
        return None
    return tuple(size if isinstance(size, int) else 1 for size in info.shape)


def _largest_batch(runner: Runner, known: Mapping[str, np.ndarray] | None, wanted: int) -> int:
    """`wanted` if the rows of a batch do not touch each other, else 0.

    The signature must leave the first size of all tensors open, under one name; where there are inputs to run, they must pass
    `_rows_are_apart`.
    """
    infos = (*runner.inputs, *runner.outputs)
    first = {info.shape[0] if info.shape else 0 for info in infos}
    if isinstance(runner, EngineRunner):
        built_for = (min((shapes[2][0] for shapes in profile.values()), default=0) for profile in runner.profiles)
        wanted = min(wanted, max(built_for, default=0))
    if wanted < 2 or len(first) != 1 or isinstance(first.pop(), int):
        return 0
    return wanted if known is None or _rows_are_apart(runner, known) else 0


def _rows_are_apart(runner: Runner, known: Arrays) -> bool:
    """Whether a batch of two different rows computes what each does alone. The second row is the first one moved along and, where it is no
    integers, halved: sums and means over a batch would be the same for rows that are only moved."""
    rows = [{name: array[:1] for name, array in known.items()}]
    rows.append({name: np.roll(row, 1, -1) * row.dtype.type(0.5 if row.dtype.kind == "f" else 1) for name, row in rows[0].items()})
    try:
        both = runner.run({name: np.concatenate([row[name] for row in rows]) for name in known})
        alone = [runner.run(row) for row in rows]
    except UserError as error:
        log.warning("%s does not run on a batch of two, so requests run one by one: %s", runner.name, error)
        return False
    dtype = next((info.dtype for info in runner.outputs if info.dtype.startswith("float")), "float32")
    for name, array in both.items():
        expected = [row[name] for row in alone]
        if array.shape != (2, *expected[0].shape[1:]) or not _same(np.concatenate(expected), array, default_tolerance(dtype).relative):
            log.warning("%s: rows of a batch change output %r, so requests run one by one", runner.name, name)
            return False
    return True


def _same(expected: np.ndarray, got: np.ndarray, tolerance: float) -> bool:
    return all(output.passes(tolerance) for output in compare({"": expected}, {"": got}))


def _runs(runner: Runner, inputs: Arrays) -> bool:
    try:
        runner.run(inputs)
    except UserError:
        return False
    return True


def _tensor_json(info: TensorInfo) -> dict[str, Any]:
    return {"name": info.name, "datatype": NAMES[info.dtype], "shape": _sizes(info)}


def _sizes(info: TensorInfo) -> Sequence[int]:
    return [size if isinstance(size, int) else -1 for size in info.shape or ()]
