"""Comparing matched tensors of two models, within a limit on memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from deploydcn.errors import UserError
from deploydcn.parity.compare import CHANNEL_FLOOR, OutputComparison, compare_arrays, incomparable, pair_outputs
from deploydcn.parity.location import Evidence, LayerComparison
from deploydcn.parity.matching import match
from deploydcn.parity.taps import Operator, Taps, nearest
from deploydcn.parity.tolerance import POLICY, PRECISION

LAYER_FLOOR = 1e-2
"""The scale of a hidden layer's channel is at least this part of the whole tensor's: a channel that an activation all but closed holds
the rounding of the numbers that it closed."""


class Search:
    """Two models on one set of inputs, and their matched tensors, which go by the candidate's names.

    matches: in the order in which the candidate computes them. sources: what feeds each: matched tensors and inputs. outputs: those that
    are the model's outputs. precision: the lowest that either side computes in, where tensors do not tell. runs: whether the candidate
    runs at all on these inputs; its layers may still. peak_bytes: most that was held of both sides' tensors at a time. healed: whether
    the outputs agreed in a run in which more tensors were outputs.
    """

    def __init__(
        self, reference: Taps, candidate: Taps, tolerance: float, memory_limit: int, *, precision: str | None = None, runs: bool = True
    ) -> None:
        self.reference, self.candidate, self.runs = reference, candidate, runs
        self.tolerance, self.memory_limit, self.precision = tolerance, memory_limit, precision
        self.matches = {pair.candidate: pair for pair in match(reference, candidate)}
        self.sources = {name: nearest(candidate.taps, name, self.matches.__contains__) for name in self.matches}
        self.outputs = [name for name in candidate.outputs.values() if name in self.matches]
        self.peak_bytes = 0
        self.healed = False
        self._types = {name: dtype for name in self.matches if (dtype := candidate.taps[name].dtype) is not None}
        self._largest = max((size for tap in candidate.taps.values() if (size := tap.size) is not None), default=0)

    def feeding(self, name: str) -> list[str]:
        """The matched tensors that feed one."""
        return [source for source in self.sources[name] if source in self.matches]

    def upstream(self, name: str) -> set[str]:
        """All matched tensors that one depends on."""
        found: set[str] = set()
        pending = [name]
        while pending:
            fresh = [source for source in self.feeding(pending.pop()) if source not in found]
            found.update(fresh)
            pending += fresh
        return found

    def chunks(self, names: Sequence[str]) -> Iterator[list[str]]:
        """Consecutive tensors that fit into memory together: the reference's, those that feed them, and the candidate's."""
        chunk: list[str] = []
        held: set[str] = set()
        for name in names:
            together = held | {name, *self.feeding(name)}
            if chunk and sum(map(self._size, together)) + sum(map(self._size, [*chunk, name])) > self.memory_limit:
                yield chunk
                chunk, together = [], {name, *self.feeding(name)}
            chunk.append(name)
            held = together
        if chunk:
            yield chunk

    def compare(self, names: Sequence[str]) -> list[LayerComparison]:
        """Accumulated and local errors of some tensors, which are held all at once."""
        feeding = dict.fromkeys(source for name in names for source in self.feeding(name) if source not in names)
        expected, outputs = self._observe_reference([*feeding, *names])
        unknown = [name for name in feeding if name not in self._types]
        accumulated = self._accumulated(expected, outputs, [*unknown, *names])
        given = self._as_candidate(expected)
        local = self._local(given, expected, names)
        return [self._layer(name, accumulated.get(name), local[name], expected) for name in names]

    def probe(self, name: str) -> tuple[OutputComparison, bool]:
        """The accumulated error at one tensor while nothing else is observed, and whether the outputs agree then."""
        expected, wanted = self._observe_reference([name])
        outputs, got = self.candidate.observe([name])
        return self._compared(name, expected[name], got[name]), self._agree(wanted, outputs)

    def evidence(self, name: str, sources: Sequence[str]) -> Evidence:
        """The tensors of one layer, computed anew; nothing but its sources and it is observed."""
        feeding = [source for source in sources if source in self.matches]
        expected, _ = self._observe_reference([*feeding, name])
        if self.runs:
            self._types |= {part: array.dtype for part, array in self.candidate.observe(feeding)[1].items()}
        inputs = self._as_candidate({part: expected[part] for part in feeding})
        accumulated = self.candidate.observe([name])[1][name] if self.runs else None
        try:
            got = self.candidate.recompute(inputs, [name])[name]
        except UserError:  # it does not run on the reference's tensors
            got = None
        return Evidence(inputs, expected[name], got, accumulated, self.candidate.part(name, inputs))

    def layer(self, name: str, sources: Sequence[str], evidence: Evidence, accumulated: OutputComparison) -> LayerComparison:
        """One layer between sources that are not next to it: what lies between runs unobserved."""
        self.sources = {**self.sources, name: tuple(sources)}
        local = self._failed(name, evidence.expected) if evidence.got is None else self._compared(name, evidence.expected, evidence.got)
        return self._layer(name, accumulated, local, {name: evidence.expected, **evidence.inputs})

    def _observe_reference(self, names: Sequence[str]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The reference's tensors, by the candidate's names, and its outputs."""
        outputs, values = self.reference.observe([self.matches[name].reference for name in names])
        return {name: values[self.matches[name].reference] for name in names}, outputs

    def _accumulated(
        self, expected: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray], names: Sequence[str]
    ) -> dict[str, OutputComparison]:
        """By halves where the candidate cannot make all of these outputs: what no half can is left out."""
        if not self.runs:
            return {}
        try:
            outputs, got = self.candidate.observe(names)
        except UserError:
            if len(names) < 2:
                return {}
            middle = len(names) // 2
            return {**self._accumulated(expected, wanted, names[:middle]), **self._accumulated(expected, wanted, names[middle:])}
        self.healed |= self._agree(wanted, outputs)
        self._types |= {name: array.dtype for name, array in got.items()}
        self._count(expected, got)
        return {
            name: compare_arrays(name, expected[name], array, floor=CHANNEL_FLOOR if name in self.outputs else LAYER_FLOOR)
            for name, array in got.items()
        }

    def _local(
        self, given: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], names: Sequence[str]
    ) -> dict[str, OutputComparison]:
        """By halves where a layer does not run on the reference's tensors, which is a finding of its own."""
        try:
            got = self.candidate.recompute(given, names)
        except UserError as error:
            if len(names) < 2:
                return {name: self._failed(name, expected[name], error) for name in names}
            middle = len(names) // 2
            return {**self._local(given, expected, names[:middle]), **self._local(given, expected, names[middle:])}
        self._count(expected, got)
        return {name: self._compared(name, expected[name], array) for name, array in got.items()}

    def _layer(
        self, name: str, accumulated: OutputComparison | None, local: OutputComparison, expected: Mapping[str, np.ndarray]
    ) -> LayerComparison:
        pair, feeding = self.matches[name], self.feeding(name)
        parts = (name, *feeding)
        types = {expected[part].dtype.name for part in parts} | {self._types[part].name for part in parts if part in self._types}
        types |= {self.precision} if self.precision is not None else set()
        lowest = min(types & set(PRECISION), key=lambda kind: PRECISION[kind], default="float64")
        operators = self.candidate.operators(name, feeding)
        return LayerComparison(
            name=name,
            reference=pair.reference,
            path=_path(operators) or self.candidate.taps[name].path or self.reference.taps[pair.reference].path,
            matched_by=pair.by,
            accumulated=accumulated,
            local=local,
            limit=POLICY[lowest].relative,
            choice=expected[name].dtype.kind in "iub" and any(self._is_rounded(part, expected[part]) for part in feeding),
            sources=self.sources[name],
            operators=operators,
            reference_operators=self.reference.operators(pair.reference, [self.matches[part].reference for part in feeding]),
        )

    def _compared(self, name: str, expected: np.ndarray, got: np.ndarray) -> OutputComparison:
        return compare_arrays(name, expected, got, floor=LAYER_FLOOR)

    def _failed(self, name: str, expected: np.ndarray, error: object = "") -> OutputComparison:
        return incomparable(name, expected.shape, f"it does not run: {error}")

    def _is_rounded(self, name: str, array: np.ndarray) -> bool:
        kind = self._types.get(name, array.dtype)
        return kind != array.dtype and kind.name in PRECISION

    def _as_candidate(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """In the types of the candidate's own tensors."""
        return {name: array.astype(self._types.get(name, array.dtype), copy=False) for name, array in arrays.items()}

    def _agree(self, wanted: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> bool:
        return all(compare_arrays(*pair).passes(self.tolerance) for pair in pair_outputs(wanted, outputs))

    def _count(self, *sides: Mapping[str, np.ndarray]) -> None:
        self.peak_bytes = max(self.peak_bytes, sum(array.nbytes for side in sides for array in side.values()))

    def _size(self, name: str) -> int:
        """Bytes; a tensor of unknown size is taken for the largest."""
        size = self.candidate.taps[name].size
        if size is None:
            size = self.reference.taps[self.matches[name].reference].size
        return self._largest if size is None else size


def _path(operators: Sequence[Operator]) -> str:
    """The module of the first step with weights, else of the last."""
    weighted = [operator for operator in operators if operator.parameters]
    return (weighted[:1] or [*operators][-1:])[0].path if operators else ""
