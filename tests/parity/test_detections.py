"""Two detectors, box by box: what has a partner, what changed its class, what is missing; and how outputs are recognised."""

from __future__ import annotations

import numpy as np
import pytest

from deploydcn.errors import InvalidArgument
from deploydcn.parity import compare_detections

BOXES = np.array([[0, 0, 10, 10], [20, 0, 40, 10], [0, 30, 10, 60], [50, 50, 90, 90]], np.float32)
SCORES = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
LABELS = np.array([1, 2, 1, 3])
Pairs = list[tuple[str, np.ndarray, np.ndarray]]


def triples(boxes: np.ndarray = BOXES, scores: np.ndarray = SCORES, labels: np.ndarray = LABELS) -> Pairs:
    return [("boxes", BOXES, boxes), ("scores", SCORES, scores), ("labels", LABELS, labels)]


def yolo_head(anchors: int = 40) -> np.ndarray:
    """(1, 4 + 3, anchors): an object of class 2 around (50, 40), seen by two anchors, and one of class 0 around (20, 20)."""
    head = np.full((1, 7, anchors), 0.01, np.float32)
    head[0, :4, :] = 5.0
    for anchor, box, kind, score in ((3, (50, 40, 20, 10), 2, 0.9), (4, (51, 40, 20, 10), 2, 0.8), (9, (20, 20, 10, 10), 0, 0.6)):
        head[0, :4, anchor] = box
        head[0, 4 + kind, anchor] = score
    return head


def test_the_same_boxes_in_another_order_are_the_same() -> None:
    order = [2, 0, 3, 1]
    (found,) = compare_detections(triples(BOXES[order], SCORES[order], LABELS[order]))
    assert found.same
    assert (found.missing, found.extra, found.renamed) == ((), (), ())
    assert (found.shift, found.score_difference, found.smallest_iou) == (0.0, 0.0, 1.0)


def test_every_kind_of_difference_is_told_apart() -> None:
    boxes, scores, labels = BOXES.copy(), SCORES.copy(), LABELS.copy()
    boxes[0] += 1  # moved: 81 of 119 pixels are shared
    scores[1] -= 0.25
    labels[2] = 7
    boxes[3] += 300
    (found,) = compare_detections(triples(boxes, scores, labels))
    assert sorted(found.pairs) == [(0, 0), (1, 1)]
    assert found.renamed == ((2, 2),)
    assert (found.missing, found.extra) == ((3,), (3,))
    assert found.shift == pytest.approx(1)
    assert found.score_difference == pytest.approx(0.25)
    assert found.smallest_iou == pytest.approx(81 / 119)
    assert not found.same


@pytest.mark.parametrize("count", [0, 2])
def test_fewer_boxes_are_no_error(count: int) -> None:
    (found,) = compare_detections(triples(BOXES[:count], SCORES[:count], LABELS[:count]))
    assert len(found.missing) == 4 - count
    assert not found.same


def test_a_box_that_is_not_a_number_costs_only_itself() -> None:
    boxes = BOXES.copy()
    boxes[0] = np.nan
    (found,) = compare_detections(triples(boxes))
    assert sorted(found.pairs) == [(1, 1), (2, 2), (3, 3)]


def test_a_score_that_is_not_a_number_is_not_hidden() -> None:
    scores = SCORES.copy()
    scores[2] = np.nan
    (found,) = compare_detections(triples(scores=scores))
    assert found.score_difference == np.inf
    assert found.to_json()["score_difference"] == "inf"


def test_a_yolo_head_is_recognised_and_decoded() -> None:
    head, other = yolo_head(), yolo_head()
    other[0, 4:, 9] = [0.1, 0.55, 0.1]  # the class of the small object
    (found,) = compare_detections([("output0", head, other)])
    assert (len(found.reference), len(found.candidate)) == (2, 2)
    assert len(found.pairs) == len(found.renamed) == 1
    assert found.score_difference == pytest.approx(0.05, abs=1e-6)


CENTRES = np.array([[0.5, 0.5, 0.2, 0.4], [0.25, 0.75, 0.1, 0.1], [0.5, 0.5, 1.0, 1.0]], np.float32)
"""Of 100 x 200 pixels: (80, 30, 120, 70), (40, 70, 60, 80), and the whole image."""
LOGITS = np.array([[-5, 3, -5], [2, -5, -5], [-5, -4, -5]], np.float32)
"""Two objects, of classes 1 and 0, and a query that found none."""
IMAGE = {"pixel_values": np.zeros((1, 3, 100, 200), np.float32)}


@pytest.mark.parametrize("names", [("logits", "pred_boxes"), ("pred_logits", "pred_boxes"), ("output_0", "output_1")], ids="-".join)
@pytest.mark.parametrize("detector", ["auto", "detr"])
def test_a_detrs_queries_are_boxes_of_the_image(names: tuple[str, str], detector: str) -> None:
    moved = CENTRES + np.array([0.01, 0, 0, 0], np.float32)
    pairs = [(names[0], LOGITS[None], LOGITS[None]), (names[1], CENTRES[None], moved[None])]
    (found,) = compare_detections(pairs, detector, IMAGE)
    assert (found.output, found.image) == (names[1], 0)
    np.testing.assert_allclose(found.reference.boxes, [[80, 30, 120, 70], [40, 70, 60, 80]], rtol=1e-5)
    np.testing.assert_array_equal(found.reference.classes, [1, 0])
    np.testing.assert_allclose(found.reference.scores, 1 / (1 + np.exp([-3.0, -2.0])))
    assert sorted(found.pairs) == [(0, 0), (1, 1)]
    assert found.shift == pytest.approx(2, rel=1e-4)


def test_a_detrs_boxes_are_parts_of_what_the_mask_leaves_of_a_padded_image() -> None:
    mask = np.zeros((1, 100, 200), np.int64)
    mask[:, :50, :100] = 1
    pairs = [("logits", LOGITS[None], LOGITS[None]), ("pred_boxes", CENTRES[None], CENTRES[None])]
    (found,) = compare_detections(pairs, "auto", {**IMAGE, "pixel_mask": mask})
    np.testing.assert_allclose(found.reference.boxes[0], [40, 15, 60, 35], rtol=1e-5)
    (found,) = compare_detections(pairs)
    np.testing.assert_allclose(found.reference.boxes[0], [0.4, 0.3, 0.6, 0.7], rtol=1e-5)


def test_a_detrs_auxiliary_outputs_are_told_apart_by_name() -> None:
    aside = np.zeros_like(LOGITS)[None]
    pairs = [
        ("logits", LOGITS[None], LOGITS[None]),
        ("aux_logits", aside, aside),
        ("pred_boxes", CENTRES[None], CENTRES[None]),
        ("features", np.full((1, 3, 4), -2.0), np.full((1, 3, 4), -2.0)),
    ]
    (found,) = compare_detections(pairs)
    assert len(found.reference) == 2


def test_boxes_and_probabilities_in_one_output_are_read_on_request() -> None:
    both = np.concatenate([CENTRES, 1 / (1 + np.exp(-LOGITS))], 1)[None]
    assert compare_detections([("output0", both, both)]) == ()
    (found,) = compare_detections([("output0", both, both)], "detr")
    assert len(found.pairs) == 2


def test_logits_that_are_not_numbers_are_missing_boxes() -> None:
    broken = LOGITS.copy()
    broken[0] = np.nan
    (found,) = compare_detections([("logits", LOGITS[None], broken[None]), ("pred_boxes", CENTRES[None], CENTRES[None])])
    assert (len(found.pairs), found.missing) == (1, (0,))


@pytest.mark.parametrize(
    "output",
    [np.ones((1, 1000)), np.random.default_rng(0).standard_normal((1, 7, 40)), np.full((1, 7, 40), 0.5), np.zeros((1, 7, 0))],
    ids=["logits", "negative", "no pixels", "empty"],
)
def test_other_outputs_are_no_detections(output: np.ndarray) -> None:
    assert compare_detections([("y", output, output)]) == ()


def test_what_was_asked_for_must_be_there() -> None:
    with pytest.raises(InvalidArgument, match=r"detector 'boxes': the model's outputs are y\[1x7x40\]; wanted boxes \(K, 4\)"):
        compare_detections([("y", yolo_head(), yolo_head())], "boxes")
    with pytest.raises(InvalidArgument, match="wanted one of"):
        compare_detections(triples(), "yolo")
    with pytest.raises(InvalidArgument, match=r"detector 'detr': .* wanted boxes \(N, queries, 4\) in \[0, 1\]"):
        compare_detections(triples(), "detr")
    with pytest.raises(InvalidArgument, match="no detector is called 'ssd'; wanted auto, boxes, yolo, detr"):
        compare_detections(triples(), "ssd")
