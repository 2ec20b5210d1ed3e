"""What the page makes of outputs: every kind of detector and classifier by its shapes and values, anything else as numbers."""

from __future__ import annotations

import numpy as np
import pytest

from deploydcn.serving.page.results import describe_outputs, find_detections, find_probabilities
from deploydcn.visual.photo import Photo, read_photo

BOXES = np.array([[4, 6, 20, 30], [10, 10, 14, 18], [0, 0, 40, 20]], np.float32)
SCORES = np.array([0.5, 0.1, 0.9], np.float32)
LABELS = np.array([2, 0, 1])
SEEN = [2, 0]  # best first; the second is too unlikely


def photo() -> Photo:
    """Twice as large as the model's input, with grey above and below."""
    return read_photo(np.zeros((40, 96, 3), np.uint8), (32, 48))


def yolo(extra: int = 0, anchors: int = 20) -> np.ndarray:
    """BOXES as a head of three classes, (1, 4 + 3 + extra, anchors); extra: rows of masks or keypoints."""
    head = np.zeros((1, 7 + extra, anchors), np.float32)
    head[0, 0, :3], head[0, 1, :3] = (BOXES[:, 0] + BOXES[:, 2]) / 2, (BOXES[:, 1] + BOXES[:, 3]) / 2
    head[0, 2, :3], head[0, 3, :3] = BOXES[:, 2] - BOXES[:, 0], BOXES[:, 3] - BOXES[:, 1]
    head[0, 4 + LABELS, range(3)] = SCORES
    head[0, 7:] = 50 * np.random.default_rng(0).standard_normal((extra, anchors))
    return head


ROWS = np.concatenate([BOXES, SCORES[:, None], LABELS[:, None].astype(np.float32)], 1)[None]


def queries() -> tuple[np.ndarray, np.ndarray]:
    """BOXES as a DETR gives them: (1, queries, 4) of centres and sizes in parts of the input, and probabilities of three classes."""
    head = yolo()[0].T[None, :10]
    return head[..., :4] / np.array([48, 32, 48, 32], np.float32), head[..., 4:]


PLACES, CHANCES = queries()
DETECTORS = {
    "torchvision": {"boxes": BOXES, "labels": LABELS, "scores": SCORES},
    "batched": {"labels": LABELS[None], "boxes": BOXES[None], "scores": SCORES[None]},
    "tensorrt_nms": {
        "num_detections": np.array([[3]], np.int32),
        "detection_boxes": BOXES[None],
        "detection_scores": SCORES[None],
        "detection_classes": LABELS[None].astype(np.int32),
    },
    "mmdeploy": {"dets": np.concatenate([BOXES, SCORES[:, None]], 1)[None], "labels": LABELS[None]},
    "rows": {"output0": ROWS},
    "padded_rows": {"output0": np.concatenate([ROWS, np.zeros((1, 297, 6), np.float32)], 1)},
    "yolo": {"output": yolo()},
    "yolo_half": {"output": yolo().astype(np.float16)},
    "detr": {"logits": np.log((CHANCES + 1e-6) / (1 - CHANCES + 1e-6)), "pred_boxes": PLACES},
    "detr_in_one": {"output0": np.concatenate([PLACES, CHANCES], 2)},
    "yolo_masks": {"output0": yolo(extra=32, anchors=60), "output1": np.zeros((1, 32, 8, 12), np.float32)},
}


@pytest.mark.parametrize("kind", DETECTORS)
def test_detections(kind: str) -> None:
    answer = describe_outputs(DETECTORS[kind], photo(), {0: "cat", 1: "dog", 2: "cow"})
    rows = answer["detections"]
    assert "classes" not in answer
    assert [(row["class"], row["label"]) for row in rows] == [(1, "dog"), (2, "cow")]
    assert [row["score"] for row in rows] == pytest.approx(SCORES[SEEN], rel=1e-3)  # float16 rounds
    # The image is 96 x 40, the model sees it halved, 6 pixels further down.
    assert np.array([row["box"] for row in rows]) == pytest.approx(2 * (BOXES[SEEN] - [0, 6, 0, 6]), abs=1e-4)  # parts of the input round


def test_unnamed_classes_are_numbered() -> None:
    labels = [row["label"] for row in describe_outputs(DETECTORS["yolo"], photo(), {})["detections"]]
    assert labels == ["class 1", "class 2"]


def test_a_detector_that_finds_nothing_is_still_one() -> None:
    nothing = {"boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, np.int64), "scores": np.zeros(0, np.float32)}
    assert describe_outputs(nothing, photo(), {})["detections"] == []


@pytest.mark.parametrize(
    "array",
    [
        np.full((1, 6, 20), -1, np.float32),
        np.full((1, 6, 20), np.nan, np.float32),
        np.zeros((1, 3, 20), np.float32),
        np.zeros((1, 6, 0), np.float32),
        np.zeros((0, 6, 20), np.float32),
        np.zeros((1, 0, 6), np.float32),
        np.random.default_rng(0).random((1, 100, 6), np.float32),
        np.zeros((1, 6, 20), np.int64),
        np.float32(3),
    ],
    ids=["negative", "nan", "no-classes", "no-anchors", "no-images", "no-rows", "shares", "integers", "scalar"],
)
def test_other_outputs_are_no_detections(array: np.ndarray) -> None:
    assert find_detections({"output": np.asarray(array)}, (32, 48)) is None


@pytest.mark.parametrize("shapes", [((3, 4), (2,), (3,)), ((3, 5), (3,), (3,)), ((1, 3, 4), (1, 2), (1, 3))])
def test_triples_of_other_shapes_are_no_detections(shapes: tuple[tuple[int, ...], ...]) -> None:
    boxes, scores, labels = (np.zeros(shape, np.float32) for shape in shapes)
    assert find_detections({"boxes": boxes, "scores": scores, "labels": labels}, (32, 48)) is None


LOGITS = np.array([[1.0, 3.0, 2.0, -1.0, 0.0, 0.5, -9.0]], np.float32)


@pytest.mark.parametrize("shape", [(1, 7), (1, 7, 1, 1)])
def test_classes_by_logits(shape: tuple[int, ...]) -> None:
    rows = describe_outputs({"output": LOGITS.reshape(shape)}, photo(), {1: "dog"})["classes"]
    assert [row["class"] for row in rows] == [1, 2, 0, 5, 4]
    assert rows[0]["label"] == "dog"
    assert rows[0]["score"] == pytest.approx(np.exp(3) / np.exp(LOGITS).sum())


def test_probabilities_stay_as_they_are() -> None:
    given = np.array([[0.25, 0.75]], np.float16)
    assert [row["score"] for row in describe_outputs({"output": given}, photo(), {})["classes"]] == [0.75, 0.25]


@pytest.mark.parametrize(
    "outputs",
    [
        {"a": LOGITS, "b": LOGITS},
        {"a": np.full((1, 7), np.nan, np.float32)},
        {"a": np.zeros((1, 1), np.float32)},
        {"a": np.zeros((0, 7), np.float32)},
        {"a": np.zeros(7, np.float32)},
        {"a": np.zeros((1, 7), np.int64)},
        {"a": np.zeros((1, 7, 8, 8), np.float32)},
    ],
    ids=["two", "nan", "one-class", "no-images", "flat", "integers", "map"],
)
def test_other_outputs_are_no_classes(outputs: dict[str, np.ndarray]) -> None:
    assert find_probabilities(outputs) is None


def test_anything_else_is_told_by_its_range() -> None:
    numbers = np.array([[[1.0, np.nan, 3.0, np.inf]]], np.float32)
    answer = describe_outputs({"map": numbers, "flags": np.array([True, False]), "none": np.zeros((0, 2))}, photo(), {})
    assert answer == {
        "outputs": [
            {"name": "map", "datatype": "FP32", "shape": [1, 1, 4], "not_finite": 2, "min": 1.0, "mean": 2.0, "max": 3.0},
            {"name": "flags", "datatype": "BOOL", "shape": [2], "not_finite": 0, "min": 0.0, "mean": 0.5, "max": 1.0},
            {"name": "none", "datatype": "FP64", "shape": [0, 2], "not_finite": 0},
        ]
    }
