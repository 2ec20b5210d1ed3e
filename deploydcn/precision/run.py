"""The steps: choose what can be lowered, measure each rounding, predict, write the lowered file, measure it, propose."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploydcn.errors import ExportError, RuntimeFailure
from deploydcn.export.precision import half_dtype
from deploydcn.files import replace_on_success
from deploydcn.precision.half import HalfLowering
from deploydcn.precision.integer import IntegerLowering
from deploydcn.precision.lowering import Lowering
from deploydcn.precision.noise import Noise, decibels, measure
from deploydcn.precision.proposal import propose
from deploydcn.precision.report import DriftReport, LayerDrift, Proposal
from deploydcn.precision.switches import SwitchedModel, switched
from deploydcn.quantization.data import ImageOptions, Samples, samples_of
from deploydcn.quantization.report import Agreement
from deploydcn.quantization.run import tracked

ATTEMPTS = 5
"""Proposals that are written and measured; each allows for how far the one before fell short of its prediction."""
MARGIN_DB = 0.5


def run(
    source: Path,
    calibration: Any,
    *,
    dtype: str,
    target_db: float | None,
    output: Path | None,
    probes: int,
    target: str,
    method: str,
    images: ImageOptions,
    limit: int | None,
    progress: bool,
) -> DriftReport:
    """See `deploydcn.drift`."""
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        written = None if output is None else stack.enter_context(replace_on_success(output))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "lowered.onnx"
        lowering: Lowering
        if dtype == "int8":
            lowering = IntegerLowering(source, calibration, target=target, method=method, images=images, limit=limit, progress=progress)
        else:
            lowering = HalfLowering(source, half_dtype(dtype))
        model = switched(lowering)
        infos = [info for info in model.runner.inputs if info.name in {value.name for value in lowering.model.graph.inputs}]
        samples = samples_of(calibration, infos, images, limit)
        count, first = min(probes, len(samples)), next(iter(samples))
        noise = measure(lowering, model, tracked(list(itertools.islice(samples, count)), "rounding each layer", progress))

        def judged(exclude: Sequence[str]) -> Proposal:
            active = lowering.active(exclude)
            measured = _measured(lowering, model, samples, scratch, exclude, progress=progress)
            return Proposal(tuple(exclude), decibels(noise.together(active)), *measured)

        everything = judged(())
        proposal = None if target_db is None else _reach(lowering, noise, everything, target_db, judged)
        final = everything if target_db is None else proposal
        if written is not None and final is not None:
            lowering.write(written, final.exclude)
    return DriftReport(
        source=source,
        dtype=dtype,
        samples=len(samples),
        probes=count,
        layers=tuple(_layers(lowering, noise)),
        everything=everything,
        target_db=target_db,
        proposal=proposal,
        path=output if final is not None else None,
        how_measured=lowering.how_measured,
        free_shapes={
            info.name: first[info.name].shape
            for info in infos
            if info.shape is None or not all(isinstance(size, int) for size in info.shape[1:])
        },
        seconds=time.perf_counter() - start,
    )


def _reach(
    lowering: Lowering, noise: Noise, everything: Proposal, target_db: float, judged: Callable[[Sequence[str]], Proposal]
) -> Proposal | None:
    """The proposal that reaches the target, or the best there was; None where nothing would be left to lower."""
    best, last = everything, everything
    for _ in range(ATTEMPTS):
        if last.measured_db >= target_db:
            return last
        # What is optimistic about the prediction now will be so again.
        optimism = last.predicted_db - last.measured_db
        goal = target_db + (max(optimism, 0.0) if np.isfinite(optimism) else 0.0) + MARGIN_DB
        exclude = propose(lowering, noise, 10 ** (-goal / 10))
        if exclude is None or exclude == last.exclude:
            break
        last = judged(exclude)
        best = max(best, last, key=lambda proposal: proposal.measured_db)
    return best if best.measured_db >= target_db or best.exclude else None


def _measured(
    lowering: Lowering, model: SwitchedModel, samples: Samples, path: Path, exclude: Sequence[str], *, progress: bool
) -> tuple[float, str]:
    """Signal to noise of the worst output of the lowered model, over all samples; why an output cannot be compared, else ""."""
    lowering.write(path, exclude)
    try:
        lowered = lowering.load(path)
    except RuntimeFailure as error:
        raise ExportError(f"the lowered file does not run where its source does: {error}") from error
    sums = [Agreement(name) for name in model.outputs]
    for feeds in tracked(samples, "measuring", progress):
        wanted, got = model.run(feeds, ()), lowered.run(feeds)
        for total in sums:
            if wanted[total.name].dtype.kind == "f":
                total.add(wanted[total.name], got[total.name])
    found = [total.result() for total in sums if total.power or total.mismatch]
    for item in found:
        if item.mismatch:
            return -np.inf, f"output {item.name!r} cannot be compared: {item.mismatch}"
    return min((item.sqnr_db for item in found), default=np.inf), ""


def _layers(lowering: Lowering, noise: Noise) -> Iterator[LayerDrift]:
    total = sum(noise.together(layer.reads) for layer in lowering.layers if not layer.kept)
    for layer in lowering.layers:
        if layer.kept:
            yield LayerDrift(layer.node, layer.operator, layer.kept, np.inf, np.inf, 0.0, 0.0)
            continue
        output = noise.together(layer.reads)
        local = decibels(sum(noise.local[layer.node].values()))
        share = float(np.isinf(output)) if np.isinf(total) else output / total if total else 0.0
        yield LayerDrift(layer.node, layer.operator, "", local, decibels(output), noise.worst[layer.node], share)
