"""Detections are a set: two runs that agree may list near-equal scores in another order. What two detectors found, box by box."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploydcn.parity.detectors import Arrays, Pairs, prefixes, read_detections, triple
from deploydcn.vision import Detections, iou_matrix, match_detections

MATCH_IOU = 0.5


@dataclass(frozen=True)
class DetectionComparison:
    """One image's detections on both sides.

    output: what they were read from. image: its number in the batch, or among the outputs. pairs: (index in reference, index in
    candidate) of boxes of one class that overlap by MATCH_IOU or more. renamed: the same of the boxes left over, whose classes differ.
    """

    output: str
    image: int
    reference: Detections
    candidate: Detections
    pairs: tuple[tuple[int, int], ...]
    renamed: tuple[tuple[int, int], ...]

    @property
    def partners(self) -> tuple[tuple[int, int], ...]:
        """All pairs, whatever the class."""
        return self.pairs + self.renamed

    @property
    def missing(self) -> tuple[int, ...]:
        """The reference's boxes without a partner."""
        return tuple(sorted(set(range(len(self.reference))) - {a for a, _ in self.partners}))

    @property
    def extra(self) -> tuple[int, ...]:
        """The candidate's boxes without a partner."""
        return tuple(sorted(set(range(len(self.candidate))) - {b for _, b in self.partners}))

    @property
    def score_difference(self) -> float:
        """The largest of any pair; 0 without pairs, infinite where a score is not a number."""
        return max(map(self.score_change, self.partners), default=0.0)

    @property
    def smallest_iou(self) -> float:
        """Of any pair; 1 without pairs."""
        return min(map(self.iou, self.partners), default=1.0)

    @property
    def shift(self) -> float:
        """The most that a side of a box moved, in pixels; 0 without pairs."""
        moved = (np.abs(self.candidate.boxes[b].astype(np.float64) - self.reference.boxes[a]).max() for a, b in self.partners)
        return max(map(float, moved), default=0.0)

    @property
    def same(self) -> bool:
        """Whether every box has a partner of its class."""
        return len(self.pairs) == len(self.reference) == len(self.candidate)

    def score_change(self, pair: tuple[int, int]) -> float:
        """How far the scores of one pair are apart."""
        change = abs(float(self.candidate.scores[pair[1]]) - float(self.reference.scores[pair[0]]))
        return math.inf if math.isnan(change) else change

    def iou(self, pair: tuple[int, int]) -> float:
        """The overlap of one pair, over its union."""
        return float(iou_matrix(self.reference.boxes[pair[0]][None], self.candidate.boxes[pair[1]][None])[0, 0])

    def to_json(self) -> dict[str, Any]:
        """The numbers without the boxes, as plain values; an infinity becomes a string, since JSON has none."""
        return {
            "output": self.output,
            "image": self.image,
            "reference": len(self.reference),
            "candidate": len(self.candidate),
            "matched": len(self.pairs),
            "renamed": len(self.renamed),
            "missing": len(self.missing),
            "extra": len(self.extra),
            "score_difference": self.score_difference if math.isfinite(self.score_difference) else "inf",
            "smallest_iou": self.smallest_iou,
            "shift": self.shift,
        }


def compare_detections(pairs: Pairs, detector: str = "auto", inputs: Arrays | None = None) -> tuple[DetectionComparison, ...]:
    """Every image's detections on both sides.

    Args:
        pairs: (name, the reference's output, the candidate's), as `pair_outputs` gives them.
        detector: one of DETECTORS, which says how outputs are read.
        inputs: the reference's, whose images (N, 3, H, W) the boxes of a DETR are parts of; without them such boxes stay parts.

    Raises:
        InvalidArgument: no such detector, or the reference's outputs cannot be read as `detector` says.
    """
    found = read_detections(pairs, detector, inputs or {})
    return tuple(_matched(*item) for item in found)


def align_detections(reference: Mapping[str, np.ndarray], candidate: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The candidate's outputs with the rows of every boxes/scores/labels triple put in the reference's order.

    A triple is three outputs named alike but for those words: (K, 4), (K,) and (K,), as torchvision's detectors return;
    outputs of the same K and prefix (masks) move along. Rows are paired by class and overlap; where one has no partner,
    nothing moves, and the comparison shows it.
    """
    aligned = dict(candidate)
    for prefix in set(prefixes(reference)) & set(prefixes(candidate)):
        expected, got = triple(reference, prefix), triple(candidate, prefix)
        if expected is None or got is None or len(expected) != len(got):
            continue
        pairs = match_detections(expected, got, iou=MATCH_IOU)
        if len(pairs) != len(expected):
            continue
        order = np.array([j for _, j in sorted(pairs)], np.int64)
        for other, value in candidate.items():
            if other.startswith(prefix) and value.ndim and len(value) == len(order):
                aligned[other] = value[order]
    return aligned


def _matched(output: str, image: int, reference: Detections, candidate: Detections) -> DetectionComparison:
    pairs = match_detections(reference, candidate, iou=MATCH_IOU)
    ours, a = _without(reference, {a for a, _ in pairs})
    theirs, b = _without(candidate, {b for _, b in pairs})
    renamed = tuple((a[i], b[j]) for i, j in match_detections(ours, theirs, iou=MATCH_IOU))
    return DetectionComparison(output, image, reference, candidate, tuple(pairs), renamed)


def _without(side: Detections, taken: set[int]) -> tuple[Detections, list[int]]:
    """The boxes left over, all of one class, and which they are."""
    rows = sorted(set(range(len(side))) - taken)
    return Detections(side.boxes[rows], side.scores[rows], np.zeros(len(rows))), rows
