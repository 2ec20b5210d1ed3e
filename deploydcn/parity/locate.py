"""The first layer that computes something else: by local errors, or by bisection where looking changes what is seen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from rich.progress import Progress, track

from deploydcn.parity.compare import OutputComparison, compare_arrays
from deploydcn.parity.location import Evidence, Finding, LayerComparison, Location, Verdict
from deploydcn.parity.search import Search
from deploydcn.parity.statistics import statistics
from deploydcn.parity.taps import Operator, taps_of
from deploydcn.runners import Runner

MEMORY_LIMIT = 1 << 30
"""Bytes of both sides' tensors held at a time, by default."""

NOISE_FACTOR = 16
"""A layer jumps when its local error is this many times the median of the others': their median is rounding, or a format's coarseness."""

DOUBT = 0.2
"""One layer rounds less than a network: where none exceeds the tolerance by itself, the worst beyond this part of it is blamed."""

CERTAIN = 0.3
"""A local error of this part of a channel's scale is a jump however noisy the other layers are."""

MANY_CHUNKS = 8
"""Beyond that many chunks, bisection by accumulated errors says where to look first."""

NEIGHBOURHOOD = 24
"""Tensors before the first bad one that are compared after a bisection: enough to know the noise."""

WALK = 16
"""Most tensors that are probed to find the border of what is fused."""


def locate(
    reference: Runner,
    candidate: Runner,
    feeds: Mapping[str, np.ndarray],
    candidate_feeds: Mapping[str, np.ndarray],
    *,
    label: str = "given",
    failed: bool = True,
    error: str = "",
    tolerance: float,
    precision: str | None = None,
    memory_limit: int = MEMORY_LIMIT,
    progress: bool = False,
) -> Location:
    """Find the first layer of the candidate that computes something else than the reference.

    Args:
        reference, candidate: of PyTorch models or ONNX graphs; of others, such as engines, only outputs can be compared.
        feeds, candidate_feeds: one set of inputs, by each model's names.
        label: of the inputs.
        failed: whether the outputs differ on these inputs. If not, the error along the network is told and no layer blamed.
        error: why the candidate does not run on these inputs; "" when it does.
        tolerance: for the outputs; relative to a channel's scale.
        precision: the lowest that either side computes in, where that is not the types of its tensors.
        memory_limit: bytes of both sides' tensors held at a time.
        progress: show a bar.
    """
    sides = taps_of(reference, feeds), taps_of(candidate, candidate_feeds)
    if sides[0] is None or sides[1] is None:
        closed = [runner.name for runner, side in zip((reference, candidate), sides, strict=True) if side is None]
        advice = "locate in the ONNX file that it was built from: if that agrees with the reference, the difference is the runtime's"
        return Location("outputs only", f"{' and '.join(closed)} shows no tensors but its outputs; {advice}", label)
    search = Search(sides[0], sides[1], tolerance, memory_limit, precision=precision, runs=not error)
    if len(search.matches) <= len(search.outputs):
        return Location(
            "outputs only", "no tensor but outputs could be matched: the two models share no names, modules or structure", label
        )
    chunks = list(search.chunks(list(search.matches)))
    bisected = failed and not error and search.outputs and len(chunks) > MANY_CHUNKS
    if bisected and (quick := _narrowed(search, label, progress)) is not None:
        return quick
    layers = []
    for chunk in track(chunks, "comparing layers", disable=not progress):
        layers += search.compare(chunk)
    candidates = [layer for layer in suspects(search, layers) if not layer.choice] or layers
    top = max(candidates, key=lambda layer: layer.local_error)
    largest = f"the largest local error is {top.local_error:.2g} at {_title(top)} (rounding explains {top.limit:.2g})"
    if not failed:
        return _result(search, layers, label, "agree", f"the outputs agree; {largest}")
    if search.healed and search.outputs:
        return _unobserved(search, layers, label, progress)
    first = first_jump(search, layers)
    if first is not None:
        return _found(search, layers, first, label)
    if error:
        explanation = f"the candidate does not run, though every layer that could be run by itself does: {error}; {largest}"
        return _result(search, layers, label, "does not run", explanation)
    explanation = f"no layer stands out: {largest}, the median {noise_of(layers):.2g}; small differences add up along the network"
    return _result(search, layers, label, "accumulated", explanation)


def suspects(search: Search, layers: Sequence[LayerComparison]) -> list[LayerComparison]:
    """The layers whose error reaches an output that differs; all, where no such output is among them."""
    by_name = {layer.name: layer for layer in layers}
    reached = {name for name in search.outputs if name in by_name and by_name[name].accumulated_error > search.tolerance}
    pending = list(reached or by_name)
    reached = set(pending)
    while pending:
        wrong = [by_name[name] for name in search.feeding(pending.pop()) if name in by_name and name not in reached]
        fresh = [layer.name for layer in wrong if layer.accumulated_error > min(search.tolerance, layer.limit) * DOUBT]
        reached.update(fresh)
        pending += fresh
    return [layer for layer in layers if layer.name in reached]


def first_jump(search: Search, layers: Sequence[LayerComparison]) -> LayerComparison | None:
    """The first suspect that, fed with the reference's tensors, gives others than rounding explains, and than what comes in explains:
    coarse numbers err everywhere, and no layer is the first. Between a layer's limit and DOUBT of it the worst counts, not the first."""
    errors = {layer.name: layer.accumulated_error for layer in layers}
    finite = {name: error for name, error in errors.items() if error < math.inf}
    reached = [
        layer
        for layer in suspects(search, layers)
        if layer.local_error > max((finite.get(source, 0.0) for source in layer.sources), default=0.0)
    ]
    first = next((layer for layer in reached if _jumps(layer, layers, 1)), None)
    doubtful = [layer for layer in reached if _jumps(layer, layers, DOUBT)]
    return first or max(doubtful, key=lambda layer: layer.local_error / layer.limit, default=None)


def noise_of(layers: Sequence[LayerComparison]) -> float:
    """The (lower) median local error of the layers that have one; 0 where few have, which are then faults and no noise."""
    errors = sorted(layer.local_error for layer in layers if 0 < layer.local_error < math.inf)
    return errors[(len(errors) - 1) // 2] if 4 * len(errors) > len(layers) else 0.0


def _jumps(layer: LayerComparison, layers: Sequence[LayerComparison], share: float) -> bool:
    noise = noise_of([other for other in layers if other is not layer])
    return not layer.choice and layer.local_error > max(share * layer.limit, min(NOISE_FACTOR * noise, CERTAIN))


def _found(search: Search, layers: Sequence[LayerComparison], layer: LayerComparison, label: str) -> Location:
    finding = _finding(search, layer, {other.name: other.accumulated_error for other in layers})
    before = max((error for error in finding.before.values()), default=0.0)
    explained = f"it differs by {layer.local_error:.3g} of its scale (rounding explains {layer.limit:.2g})"
    mismatch = "" if layer.local is None else layer.local.mismatch
    what = f": {mismatch}" if mismatch else f" {explained}"
    after = "" if layer.accumulated is None else f", {layer.accumulated_error:.2g} after"
    explanation = (
        f"{_title(layer)} is the first layer that computes something else: fed with the reference's tensors{what}; "
        f"accumulated error {before:.2g} before it{after}"
    )
    return _result(search, layers, label, "layer", explanation, finding)


def _unobserved(search: Search, layers: Sequence[LayerComparison], label: str, progress: bool) -> Location:
    """The outputs agree once tensors inside are outputs too: observe one at a time."""
    calm = {layer.name: max(layer.limit, 10 * layer.accumulated_error) for layer in layers}
    bad, error, healing = bisect(search, calm, progress=progress)
    inside: set[str] = set()
    border: dict[str, None] = {}
    pending = search.feeding(bad)
    while pending:
        name = pending.pop(0)
        if name in inside or name in border:
            continue
        if name not in healing and len(healing) < WALK:
            healing[name] = search.probe(name)[1]
        if healing.get(name):
            inside.add(name)
            pending += search.feeding(name)
        else:
            border[name] = None
    sources = [source for name in (bad, *inside) for source in search.sources[name] if source not in inside]
    sources = list(dict.fromkeys(sources))
    evidence = search.evidence(bad, sources)
    layer = search.layer(bad, sources, evidence, error)
    fused = ", ".join(str(operator) for operator in layer.operators)
    proof = (
        f"run by themselves with nothing inside observed, these give {layer.local_error:.3g} of the scale"
        if layer.local_error > layer.limit
        else "run by themselves these agree: the fault needs more of the model around it"
    )
    explanation = (
        "the difference vanishes when tensors inside the model are outputs too: the runtime then cannot fuse operators. "
        f"Observing one tensor at a time, {bad!r} is the first that differs, and {fused} lie between it and the last that agree; {proof}"
    )
    known = {other.name: other.accumulated_error for other in layers}
    return _result(search, layers, label, "unobserved", explanation, _finding(search, layer, known, evidence))


def bisect(search: Search, limits: Mapping[str, float], *, progress: bool = False) -> tuple[str, OutputComparison, dict[str, bool]]:
    """The first tensor whose accumulated error exceeds its limit, by observing one at a time. Its comparison, and for every tensor that
    was observed whether the outputs agreed then. What a good tensor depends on counts as good."""
    order = list(search.matches)
    healing: dict[str, bool] = {}
    errors = {name: search.probe(name)[0] for name in search.outputs}
    bad = max(search.outputs, key=lambda name: errors[name].worst_channel)
    open_questions = search.upstream(bad)
    with Progress(disable=not progress) as bar:
        task = bar.add_task("bisecting", total=len(open_questions))
        while open_questions:
            ranked = sorted(open_questions, key=order.index)
            middle = ranked[len(ranked) // 2]
            errors[middle], healing[middle] = search.probe(middle)
            if errors[middle].worst_channel > limits[middle]:
                bad, open_questions = middle, open_questions & search.upstream(middle)
            else:
                open_questions -= {middle, *search.upstream(middle)}
            bar.advance(task, len(ranked) - len(open_questions))
    return bad, errors[bad], healing


def _narrowed(search: Search, label: str, progress: bool) -> Location | None:
    """Bisection by accumulated errors, then local errors where it ends; None where that does not settle it."""
    bad, _, healing = bisect(search, dict.fromkeys(search.matches, search.tolerance), progress=progress)
    if any(healing.values()):
        return None
    order = list(search.matches)
    near = search.upstream(bad) | {bad}
    names = [name for name in order[: order.index(bad) + 1] if name in near][-NEIGHBOURHOOD:]
    layers = [layer for chunk in search.chunks(names) for layer in search.compare(chunk)]
    first = first_jump(search, layers)
    return None if first is None or search.healed else _found(search, layers, first, label)


def _finding(search: Search, layer: LayerComparison, errors: Mapping[str, float], evidence: Evidence | None = None) -> Finding:
    tensors = evidence or search.evidence(layer.name, layer.sources)
    described = {"expected": tensors.expected, "got": tensors.got, "accumulated": tensors.accumulated}
    return Finding(
        layer,
        {source: errors.get(source, 0.0) for source in layer.sources},
        tuple(_differences(search, layer)),
        {name: statistics(array) for name, array in described.items() if array is not None},
        tensors,
    )


def _differences(search: Search, layer: LayerComparison) -> Iterator[str]:
    """Attributes and weights that differ, where both sides have the same operators; else which operators each side has."""
    ours, theirs = layer.reference_operators, layer.operators
    if [step.type for step in ours] != [step.type for step in theirs]:
        yield f"{_steps(theirs)} against {_steps(ours)}"
        return
    for expected, got in zip(ours, theirs, strict=True):
        for name in sorted({*expected.attributes, *got.attributes}):
            wanted, found = expected.attributes.get(name), got.attributes.get(name)
            if wanted != found:
                yield f"{got.name}: {name} is {found}, in the reference {wanted}"
        for wanted, found in zip(expected.parameters, got.parameters, strict=False):
            weight, other = search.reference.parameter(wanted), search.candidate.parameter(found)
            if weight is not None and other is not None:
                result = compare_arrays(found, weight, other)
                if result.max_abs:
                    yield f"{got.name}: {found} has {result.mismatch or f'numbers up to {result.max_abs:.3g} off'}"


def _title(layer: LayerComparison) -> str:
    """ "layer1.0.conv2: node_Conv_7 (Conv)"."""
    return f"{layer.path or layer.name}: {_steps(layer.operators) or layer.name}"


def _steps(operators: Sequence[Operator]) -> str:
    """The last three, which are the nearest to the tensor."""
    more = len(operators) - 3
    return f"{', '.join(map(str, operators[-3:]))}{f' after {more} more' if more > 0 else ''}"


def _result(
    search: Search, layers: Sequence[LayerComparison], label: str, verdict: Verdict, explanation: str, finding: Finding | None = None
) -> Location:
    unmatched = sum(name not in search.matches for name in search.candidate.taps)
    noise = noise_of([layer for layer in layers if finding is None or layer.name != finding.layer.name])
    return Location(verdict, explanation, label, finding, tuple(layers), noise, unmatched, search.peak_bytes)
