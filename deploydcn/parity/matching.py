"""Which tensor of one model is which of another."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from deploydcn.parity.taps import Tap, Taps


@dataclass(frozen=True)
class Match:
    """Two taps that should hold the same numbers. by: "output", "name", "module" or "topology"."""

    reference: str
    candidate: str
    by: str


def match(reference: Taps, candidate: Taps) -> tuple[Match, ...]:
    """Pairs of taps, in the order in which the candidate computes them; no tap is in two.

    Outputs are paired by name, else in order. Then, surest first: values of one name that come from the same module or operator;
    the outputs of a module of one path, when it has as many on both sides, or of a shape that only one has; values that lie alike
    between what is paired already.
    """
    pairs = _Pairs(reference.taps, candidate.taps)
    expected, got = reference.outputs, candidate.outputs
    if len(expected) == len(got):
        partners = expected if set(expected) == set(got) else got
        for ours, partner in zip(expected.values(), partners, strict=True):
            pairs.add(ours, got[partner], "output")
    for name, tap in reference.taps.items():
        if name in candidate.taps and _may_be_one(tap, candidate.taps[name]):
            pairs.add(name, name, "name")
    ours_by_path, theirs_by_path = reference.module_outputs(), candidate.module_outputs()
    norms = _folded(reference.taps, theirs_by_path), _folded(candidate.taps, ours_by_path)
    for path, outputs in ours_by_path.items():
        for name, other in _same_module(pairs, outputs, theirs_by_path.get(path, [])):
            pairs.add(norms[0].get(name, name), norms[1].get(other, other), "module")
    for name, other in _alike(pairs):
        pairs.add(name, other, "topology")
    return pairs.in_order()


class _Pairs:
    def __init__(self, reference: Mapping[str, Tap], candidate: Mapping[str, Tap]) -> None:
        self.reference, self.candidate = reference, candidate
        self.of_reference: dict[str, str] = {}
        self.of_candidate: dict[str, tuple[str, str]] = {}

    def taps(self, ours: str, theirs: str) -> tuple[Tap, Tap]:
        return self.reference[ours], self.candidate[theirs]

    def add(self, ours: str, theirs: str, by: str) -> None:
        if ours not in self.of_reference and theirs not in self.of_candidate:
            self.of_reference[ours] = theirs
            self.of_candidate[theirs] = (ours, by)

    def in_order(self) -> tuple[Match, ...]:
        return tuple(
            Match(self.of_candidate[name][0], name, self.of_candidate[name][1]) for name in self.candidate if name in self.of_candidate
        )


def _may_be_one(ours: Tap, theirs: Tap) -> bool:
    """Whether a name that both sides have means the same: exporters number values, and the same number may mean another layer."""
    if ours.path and theirs.path:
        return ours.path == theirs.path
    return ours.kind == theirs.kind or ours.shape is None or theirs.shape is None or ours.shape == theirs.shape


def _folded(taps: Mapping[str, Tap], others: Collection[str]) -> dict[str, str]:
    """Outputs of convolutions -> those of the norms after them that the other side has no trace of: its convolution took the norm in."""
    norms = [tap for tap in taps.values() if "BatchNorm" in tap.kind and tap.path and tap.path not in others]
    return {tap.sources[0]: tap.name for tap in norms if len(tap.sources) == 1}


def _same_module(pairs: _Pairs, ours: Sequence[str], theirs: Sequence[str]) -> Iterable[tuple[str, str]]:
    shapes = [pairs.reference[name].shape for name in ours]
    others = [pairs.candidate[name].shape for name in theirs]
    reordered = shapes != others and None not in (*shapes, *others) and sorted(map(str, shapes)) == sorted(map(str, others))
    if len(shapes) == len(others) and (len(shapes) == 1 or not reordered):
        return zip(ours, theirs, strict=True)
    return [
        (name, theirs[others.index(shape)])
        for name, shape in zip(ours, shapes, strict=True)
        if shape is not None and shapes.count(shape) == others.count(shape) == 1
    ]


def _alike(pairs: _Pairs) -> Iterable[tuple[str, str]]:
    """Values of one operator at one place, seen from what they are computed from, or from what is computed of them; several of them
    in order. Weights and attributes do not count: those may be what differs."""
    for backwards in (False, True):
        ours = _places(pairs.reference, dict(pairs.of_reference), backwards)
        theirs = _places(pairs.candidate, {name: name for name in pairs.of_candidate}, backwards)
        for place, names in ours.items():
            others = theirs.get(place, [])
            if len(names) == len(others):
                yield from (pair for pair in zip(names, others, strict=True) if _may_be_one(*pairs.taps(*pair)))


def _places(taps: Mapping[str, Tap], known: Mapping[str, str], backwards: bool) -> dict[int, list[str]]:
    """Place -> the unpaired taps there; a paired tap's place is the name of its candidate, a model input's its position."""
    readers: dict[str, list[tuple[str, int]]] = {}
    inputs: dict[str, int] = {}
    for name, tap in taps.items():
        for position, source in enumerate(tap.sources):
            readers.setdefault(source, []).append((name, position))
            if source not in taps:
                inputs.setdefault(source, len(inputs))
    places: dict[str, int] = {source: hash(("input", position)) for source, position in inputs.items()}
    found: dict[int, list[str]] = {}
    for name in reversed(list(taps)) if backwards else taps:
        tap = taps[name]
        if name in known:
            places[name] = hash(known[name])
            continue
        if backwards:
            places[name] = hash((tap.kind, *sorted((places[reader], taps[reader].kind, at) for reader, at in readers.get(name, ()))))
        else:
            places[name] = hash((tap.kind, *(places[source] for source in tap.sources)))
        found.setdefault(places[name], []).append(name)
    return found
