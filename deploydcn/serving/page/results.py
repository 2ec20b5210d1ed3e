"""A model's outputs for one image, as far as their names, shapes and values tell what they are: boxes, classes, or just numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deploydcn.parity.detectors import read_detections
from deploydcn.serving.datatypes import NAMES
from deploydcn.vision import Detections, decode_detr, decode_yolo
from deploydcn.visual.photo import Photo

CONFIDENCE, MOST_BOXES = 0.25, 300
TOP = 5

Arrays = Mapping[str, np.ndarray]


def describe_outputs(outputs: Arrays, photo: Photo, names: Mapping[int, str]) -> dict[str, Any]:
    """Plain values, of a batch the first image's.

    "outputs": shapes and ranges. "detections" (boxes x1, y1, x2, y2 in pixels of the image that was sent) or "classes" (the TOP of them),
    best first, if the outputs hold them.
    """
    answer: dict[str, Any] = {"outputs": [_range(name, array) for name, array in outputs.items()]}
    single = {name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in outputs.items()}
    found = find_detections(single, photo.size, classes=len(names))
    if found is not None:
        found = photo.boxed.to_original(found)
        rows = zip(found.boxes.tolist(), found.scores.tolist(), found.classes.tolist(), strict=True)
        answer["detections"] = [{"box": box, "score": score, **_class(int(number), names)} for box, score, number in rows]
    elif (probabilities := find_probabilities(single)) is not None:
        top = np.argsort(-probabilities, kind="stable")[:TOP].tolist()
        answer["classes"] = [{"score": float(probabilities[number]), **_class(number, names)} for number in top]
    return answer


def find_detections(outputs: Arrays, size: tuple[int, int], *, classes: int = 0) -> Detections | None:
    """The first image's boxes, in pixels of the model's input; None where there are none to be found.

    Understood are outputs named boxes, scores and labels or classes, whatever stands before that (torchvision, TensorRT's NMS); dets
    (x1, y1, x2, y2, score) beside labels (mmdeploy); one output (N, boxes, 6) of x1, y1, x2, y2, score, class; the heads of YOLOs,
    (N, 4 + classes, anchors), and of DETRs: boxes and logits in two outputs, or, if classes are known, in one, (N, queries, 4 + classes).

    Args:
        size: (height, width) of the model's input.
        classes: how many there are, if that is known: what follows them in a YOLO's head (masks, keypoints) is left out.
    """
    for name, boxes in outputs.items():
        prefix = name.removesuffix("boxes")
        parts = [outputs.get(f"{prefix}{part}") for part in ("scores", "labels", "classes")]
        if prefix != name and parts[0] is not None and (labels := parts[1] if parts[1] is not None else parts[2]) is not None:
            return _confident(boxes, parts[0], labels)
        if name == "dets" and boxes.shape[-1] == 5 and "labels" in outputs:
            return _confident(boxes[..., :4], boxes[..., 4], outputs["labels"])
        if boxes.ndim == 3 and boxes.shape[2] == 6 and _are_rows(boxes):
            return _confident(boxes[..., :4], boxes[..., 4], boxes[..., 5])
        if boxes.ndim == 3 and boxes.dtype.kind == "f":
            head = boxes[:1, : 4 + classes] if classes else boxes[:1]
            if _is_yolo(head):
                return decode_yolo(head, confidence=CONFIDENCE, limit=MOST_BOXES)[0]
            if classes and boxes.shape[2] == 4 + classes and boxes.size and boxes.min() >= 0 and boxes.max() <= 1:
                return decode_detr(boxes[:1, :, :4], boxes[:1, :, 4:], np.array([size]), confidence=CONFIDENCE, limit=MOST_BOXES)[0]
    both = [(name, array, array) for name, array in outputs.items()]  # `verify` reads two sides; here they are one
    images = {"image": np.broadcast_to(np.float32(0), (1, 3, *size))}
    return next((found for _, image, found, _ in read_detections(both, "auto", images) if image == 0), None)


def find_probabilities(outputs: Arrays) -> np.ndarray | None:
    """The first image's, of a model whose only output is a number per class: itself if it sums to 1, else its softmax."""
    (array, *others) = outputs.values()
    if others or array.ndim < 2 or array.shape[1] < 2 or array.shape[0] < 1 or array[0].size != array.shape[1] or array.dtype.kind != "f":
        return None
    values = array[0].reshape(-1).astype(np.float64)
    if not np.isfinite(values).all():
        return None
    if values.min() >= 0 and abs(values.sum() - 1) < 0.01:
        return np.asarray(values)
    exponentials = np.exp(values - values.max())
    return np.asarray(exponentials / exponentials.sum())


def _confident(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> Detections | None:
    """Those of the first image that are worth showing; None where the shapes are others."""
    if boxes.ndim == 3 and len(boxes):
        boxes, scores, labels = boxes[0], scores[0], labels[0]
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not scores.shape == labels.shape == boxes.shape[:1]:
        return None
    order = np.argsort(-scores, kind="stable")
    kept = order[scores[order] >= CONFIDENCE][:MOST_BOXES]
    return Detections(boxes[kept], scores[kept], labels[kept])


def _are_rows(array: np.ndarray) -> bool:
    """Whether (N, boxes, 6) reads as corners in pixels, a probability and a class."""
    x1, y1, x2, y2, score, number = np.moveaxis(array, 2, 0)
    ordered = bool(np.all(x1 <= x2) and np.all(y1 <= y2) and np.all(number == np.round(number)) and np.all(number >= 0))
    return array.size > 0 and ordered and bool(np.all((score >= 0) & (score <= 1)) and array[..., :4].max() > 1)


def _is_yolo(head: np.ndarray) -> bool:
    """Whether (1, 4 + classes, anchors) reads as pixels above probabilities."""
    if not head.size or not 5 <= head.shape[1] < head.shape[2]:
        return False
    return bool(head[:, 4:].min() >= 0 and head[:, 4:].max() <= 1 and head[:, :4].max() > 1)


def _class(number: int, names: Mapping[int, str]) -> dict[str, Any]:
    return {"class": number, "label": names.get(number, f"class {number}")}


def _range(name: str, array: np.ndarray) -> dict[str, Any]:
    numbers = array.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    known = {"min": float(finite.min()), "mean": float(finite.mean()), "max": float(finite.max())} if finite.size else {}
    return {
        "name": name,
        "datatype": NAMES[array.dtype.name],
        "shape": list(array.shape),
        "not_finite": numbers.size - finite.size,
        **known,
    }
