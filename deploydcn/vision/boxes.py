"""Boxes: decoding, non-maximum suppression, and matching two detectors' results."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deploydcn.errors import InvalidArgument


@dataclass(frozen=True)
class Detections:
    """Detected objects, best score first. boxes (K, 4): x1, y1, x2, y2 in pixels; scores (K,); classes (K,)."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)


def decode_yolo(output: np.ndarray, *, confidence: float = 0.25, iou: float = 0.5, limit: int = 300) -> list[Detections]:
    """An anchor-free YOLO head's output, decoded per image.

    Args:
        output: (N, 4 + classes, anchors): centre x, centre y, width, height in pixels, then class probabilities.
        confidence: smallest score kept. iou: overlap above which the weaker box of a class is dropped.
        limit: most boxes per image.

    Raises:
        InvalidArgument: output does not have three dimensions and at least one class.
    """
    if output.ndim != 3 or output.shape[1] < 5:
        raise InvalidArgument(f"YOLO output has shape {list(output.shape)}; wanted (images, 4 + classes, anchors)")
    return [_decode_one(image, confidence, iou, limit) for image in output]


def _decode_one(image: np.ndarray, confidence: float, iou: float, limit: int) -> Detections:
    probabilities = image[4:]
    classes, scores = probabilities.argmax(0), probabilities.max(0)
    kept = np.flatnonzero(scores >= confidence)
    x, y, w, h = image[:4, kept]
    boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
    chosen = nms(boxes, scores[kept], classes[kept], iou)[:limit]
    return Detections(boxes[chosen], scores[kept][chosen], classes[kept][chosen])


def decode_detr(
    boxes: np.ndarray, scores: np.ndarray, sizes: np.ndarray, *, confidence: float = 0.25, limit: int = 300
) -> list[Detections]:
    """A DETR's queries, decoded per image: every query is a box of its best class; nothing is suppressed, which such models learn not to
    need (Carion et al., End-to-End Object Detection with Transformers, 2020).

    Args:
        boxes: (N, queries, 4): centre x, centre y, width, height in parts of the image.
        scores: (N, queries, classes): probabilities.
        sizes: (N, 2): height and width of every image in pixels.
        confidence: smallest score kept. limit: most boxes per image.

    Raises:
        InvalidArgument: shapes that do not belong together.
    """
    fits = boxes.ndim == scores.ndim == 3 and boxes.shape[2] == 4 and scores.shape[:2] == boxes.shape[:2] and scores.shape[2]
    if not fits or sizes.shape != (len(boxes), 2):
        raise InvalidArgument(
            f"boxes {list(boxes.shape)}, scores {list(scores.shape)} and sizes {list(sizes.shape)} are no DETR's; "
            "wanted (N, queries, 4), (N, queries, classes) and (N, 2)"
        )
    found = []
    for places, probabilities, (height, width) in zip(boxes, scores, sizes, strict=True):
        best = probabilities.max(1)
        order = np.argsort(-best, kind="stable")
        kept = order[best[order] >= confidence][:limit]
        (x, y, w, h), classes = places[kept].T, probabilities[kept].argmax(1)
        corners = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1) * np.array([width, height, width, height])
        found.append(Detections(corners, best[kept], classes))
    return found


def nms(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, iou: float) -> np.ndarray:
    """Indices of the boxes that no better box of the same class overlaps by more than `iou`, best first."""
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    alive = np.ones(len(order), bool)
    for position, index in enumerate(order):
        if not alive[position]:
            continue
        kept.append(int(index))
        rest = order[position + 1 :]
        same = classes[rest] == classes[index]
        alive[position + 1 :] &= ~(same & (iou_matrix(boxes[index : index + 1], boxes[rest])[0] > iou))
    return np.array(kept, np.int64)


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every box of a (A, 4) with every box of b (B, 4): (A, B); 0 for empty boxes."""
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = np.prod(np.clip(bottom_right - top_left, 0, None), axis=2)
    areas = [np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None, :] - overlap
    return np.asarray(np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0))


def match_detections(a: Detections, b: Detections, *, iou: float = 0.9) -> list[tuple[int, int]]:
    """Pairs of boxes of one class that overlap by at least `iou`, each used once, best overlaps first."""
    overlap = iou_matrix(a.boxes, b.boxes) * (a.classes[:, None] == b.classes[None, :])
    pairs: list[tuple[int, int]] = []
    while overlap.size and overlap.max() >= iou:
        i, j = np.unravel_index(overlap.argmax(), overlap.shape)
        pairs.append((int(i), int(j)))
        overlap[i, :] = overlap[:, j] = -1
    return pairs
