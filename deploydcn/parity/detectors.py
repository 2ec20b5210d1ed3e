"""How a detector's outputs are read as boxes, scores and classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from deploydcn.errors import InvalidArgument
from deploydcn.vision import Detections, decode_detr, decode_yolo, looks_like_images

DETECTORS = ("auto", "boxes", "yolo", "detr")
"""boxes: triples of outputs named boxes, scores and labels: (K, 4), (K,) and (K,), as torchvision's detectors return. yolo: an anchor-free
head's (N, 4 + classes, anchors). detr: boxes (N, queries, 4) and logits (N, queries, classes), a sigmoid each, in two outputs or, boxes
and probabilities side by side, in one. auto: the first of these that names, shapes and values fit, else none."""

Arrays = Mapping[str, np.ndarray]
Pairs = Sequence[tuple[str, np.ndarray, np.ndarray]]
Found = Iterator[tuple[str, int, Detections, Detections]]


Decoder = Callable[[Arrays], "list[Detections] | None"]
"""A side's outputs -> its images' detections; None where they are no such thing."""

Heads = Callable[..., Iterator[tuple[str, Decoder]]]
"""The reference's outputs -> (name, how it is decoded), for each that can be read so; certain: the caller says that it is one."""


def read_detections(pairs: Pairs, detector: str, inputs: Arrays) -> Found:
    """(output, image, the reference's detections, the candidate's); see `compare_detections` for what is raised."""
    if detector not in DETECTORS:
        raise InvalidArgument(f"no detector is called {detector!r}; wanted {', '.join(DETECTORS)}")
    ours, theirs = {name: expected for name, expected, _ in pairs}, {name: got for name, _, got in pairs}
    kinds: dict[str, Heads] = {"boxes": _triples, "yolo": _yolo_heads, "detr": partial(_detr_heads, sizes=_image_sizes(inputs))}
    for kind in kinds if detector == "auto" else (detector,):
        heads = list(kinds[kind](ours, certain=detector != "auto"))
        for number, (name, decode) in enumerate(heads):
            expected, got = decode(ours), decode(theirs)
            if expected is not None and got is not None and len(expected) == len(got):
                first = number if kind == "boxes" else 0  # a triple is one image, other heads have a batch
                for image, (reference, candidate) in enumerate(zip(expected, got, strict=True), first):
                    yield name, image, reference, candidate
        if heads:
            return
    if detector != "auto":
        wanted = {
            "boxes": "boxes (K, 4), scores (K,) and labels (K,)",
            "yolo": "one of (N, 4 + classes, anchors)",
            "detr": "boxes (N, queries, 4) in [0, 1] and logits (N, queries, classes), or both in one of (N, queries, 4 + classes)",
        }
        listed = ", ".join(f"{name}[{'x'.join(map(str, array.shape))}]" for name, array in ours.items())
        raise InvalidArgument(f"detector {detector!r}: the model's outputs are {listed}; wanted {wanted[detector]}")


def prefixes(outputs: Arrays) -> Iterator[str]:
    """What stands before "boxes", "scores" and "labels" in the names of every triple."""
    for name in outputs:
        prefix = name.removesuffix("boxes")
        if prefix != name and all(f"{prefix}{part}" in outputs for part in ("scores", "labels")):
            yield prefix


def triple(outputs: Arrays, prefix: str) -> Detections | None:
    """The detections of one triple; None where the shapes are others."""
    boxes, scores, labels = (outputs[f"{prefix}{part}"] for part in ("boxes", "scores", "labels"))
    fits = boxes.ndim == 2 and boxes.shape[1] == 4 and scores.shape == labels.shape == boxes.shape[:1]
    return Detections(boxes, scores, labels) if fits else None


def _triples(outputs: Arrays, *, certain: bool) -> Iterator[tuple[str, Decoder]]:
    for prefix in prefixes(outputs):
        yield f"{prefix}boxes", partial(_decoded_triple, prefix=prefix)


def _decoded_triple(outputs: Arrays, *, prefix: str) -> list[Detections] | None:
    found = triple(outputs, prefix)
    return None if found is None else [found]


def _yolo_heads(outputs: Arrays, *, certain: bool) -> Iterator[tuple[str, Decoder]]:
    """If not certain, pixels above, probabilities below, and more anchors than classes."""
    for name, output in outputs.items():
        if output.ndim != 3 or output.shape[1] < 5 or not output.size or output.dtype.kind != "f":
            continue
        looks = output.shape[2] > output.shape[1] and _is_share(output[:, 4:]) and output[:, :4].max() > 1
        if certain or looks:
            yield name, partial(_decoded_yolo, name=name, shape=output.shape)


def _decoded_yolo(outputs: Arrays, *, name: str, shape: tuple[int, ...]) -> list[Detections] | None:
    return decode_yolo(outputs[name]) if outputs[name].shape == shape else None


def _detr_heads(outputs: Arrays, *, certain: bool, sizes: np.ndarray | None) -> Iterator[tuple[str, Decoder]]:
    """Boxes and logits that belong together by name (pred_boxes beside pred_logits or logits), else the only two that fit; auxiliary
    outputs of other decoder layers have other names."""
    rows = {name: array for name, array in outputs.items() if array.ndim == 3 and array.size and array.dtype.kind == "f"}
    boxes = [name for name, array in rows.items() if array.shape[2] == 4 and _is_share(array)]
    for name in boxes:
        stem = name.removesuffix("boxes")
        named = [other for other in (f"{stem}logits", f"{stem.removesuffix('pred_')}logits") if other in rows and stem != name]
        alike = [other for other in rows if other != name and rows[other].shape[:2] == rows[name].shape[:2]]
        logits = named or (alike if len(boxes) == len(alike) == 1 else [])
        if logits and rows[logits[0]].shape[:2] == rows[name].shape[:2]:
            yield name, partial(_decoded_detr, boxes=name, logits=logits[0], sizes=sizes)
    if certain and not boxes:
        for name, array in rows.items():
            if array.shape[2] > 4 and _is_share(array):
                yield name, partial(_decoded_detr, boxes=name, logits=None, sizes=sizes)


def _decoded_detr(outputs: Arrays, *, boxes: str, logits: str | None, sizes: np.ndarray | None) -> list[Detections] | None:
    places = outputs[boxes]
    if places.ndim != 3:
        return None
    with np.errstate(over="ignore"):
        scores = places[..., 4:] if logits is None else 1 / (1 + np.exp(-outputs[logits].astype(np.float64)))
    if scores.shape[:2] != places.shape[:2] or scores.shape[2:] == (0,):
        return None
    return decode_detr(places[..., :4], scores, np.ones((len(places), 2)) if sizes is None else sizes)


def _is_share(array: np.ndarray) -> bool:
    """Whether all numbers lie in [0, 1]."""
    return bool(array.min() >= 0 and array.max() <= 1)


def _image_sizes(inputs: Arrays) -> np.ndarray | None:
    """Height and width of every image (N, 2): what a mask of the same size says is image, as transformers' pixel_mask does, else all of
    it. None without images."""
    images = next((array for array in inputs.values() if array.ndim == 4 and looks_like_images(array)), None)
    if images is None:
        return None
    sizes = np.tile(np.array(images.shape[2:]), (len(images), 1))
    for mask in inputs.values():
        if mask.shape == (len(images), *images.shape[2:]) and mask.dtype.kind in "iub":
            held = mask != 0
            sizes = np.stack([held.any(axis=2).sum(axis=1), held.any(axis=1).sum(axis=1)], axis=1)
    return sizes
