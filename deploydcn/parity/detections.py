"""Detections are a set: two runs that agree may list near-equal scores in another order."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from deploydcn.vision import Detections, match_detections

MATCH_IOU = 0.5


def align_detections(reference: Mapping[str, np.ndarray], candidate: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The candidate's outputs with the rows of every boxes/scores/labels triple put in the reference's order.

    A triple is three outputs named alike but for those words: (K, 4), (K,) and (K,), as torchvision's detectors return;
    outputs of the same K and prefix (masks) move along. Rows are paired by class and overlap; where one has no partner,
    nothing moves, and the comparison shows it.
    """
    aligned = dict(candidate)
    for name in reference:
        prefix = name.removesuffix("boxes")
        if prefix == name or not all(f"{prefix}{part}" in outputs for part in ("scores", "labels") for outputs in (reference, candidate)):
            continue
        expected, got = _detections(reference, prefix), _detections(candidate, prefix)
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


def _detections(outputs: Mapping[str, np.ndarray], prefix: str) -> Detections | None:
    boxes, scores, labels = (outputs[f"{prefix}{part}"] for part in ("boxes", "scores", "labels"))
    fits = boxes.ndim == 2 and boxes.shape[1] == 4 and scores.shape == labels.shape == boxes.shape[:1]
    return Detections(boxes, scores, labels) if fits else None
