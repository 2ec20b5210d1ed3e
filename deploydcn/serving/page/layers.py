"""Where a served model's deformable layers sample an image: the ONNX file runs once more, with their offsets as outputs."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from deploydcn.errors import UserError
from deploydcn.serving.model import ServedModel
from deploydcn.serving.page.pictures import ImageTask, read_picture
from deploydcn.serving.refusal import Refusal
from deploydcn.visual import Layer
from deploydcn.visual.photo import Photo
from deploydcn.visual.sources import Source
from deploydcn.visual.tracing import trace


class LayerWatcher:
    """The layers of one model on one image, kept for the clicks that follow: those last asked about. For one thread.

    A second copy of that model is in memory, of no other; what it computes depends on the size of its input, not of the image sent.
    """

    def __init__(self) -> None:
        self._model: weakref.ref[ServedModel] | None = None
        self._source: Source
        self._digest = b""
        self._seen: tuple[Photo, list[Layer]]

    def layers(self, model: ServedModel, body: bytes | bytearray) -> tuple[Photo, list[Layer]]:
        """The image as the model sees it, and its deformable layers in order.

        Raises:
            Refusal: an image or a model that cannot be used, or an engine, which does not tell.
        """
        digest = hashlib.sha256(body).digest()
        known = self._model is not None and self._model() is model
        if known and digest == self._digest:
            return self._seen
        photo, inputs = ImageTask.of(model.inputs, model.file_metadata).prepare(read_picture(body))
        self._digest = b""
        try:
            if not known:
                self._model = None
                self._source = Source.of(model.path)
            layers = self._source.watch(inputs)
        except UserError as error:
            self._model = None
            raise Refusal(f"the layers of model {model.name!r} cannot be watched: {error}") from error
        self._model, self._digest, self._seen = weakref.ref(model), digest, (photo, layers)
        return self._seen


def describe_layers(photo: Photo, layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """Plain values. output: (height, width), or (queries,). step: between output pixels, (y, x) in pixels of the image that was sent.
    exact: False where a layer's place over the image is guessed."""
    scales = [(photo.size[0] / 40, photo.size[1] / 40) if layer.is_attention else layer.output_grid.scale for layer in layers]
    return [
        {
            "name": layer.name,
            "operator": layer.operator,
            "groups": layer.groups,
            "output": list(layer.output_size),
            "attention": layer.is_attention,
            "exact": layer.is_attention or layer.grid.exact,
            "step": [side / photo.boxed.scale for side in scale],
        }
        for layer, scale in zip(layers, scales, strict=True)
    ]


def sampled_points(photo: Photo, layers: Sequence[Layer], index: int, place: tuple[float, float], group: int) -> dict[str, Any]:
    """Where the output pixel nearest to `place` samples the image, as plain values.

    Args:
        place: (y, x), like all places in the answer in pixels of the image that was sent, from its upper left corner.
        group: offset group, or head.

    Raises:
        Refusal: no such layer or group.
    """
    if not 0 <= index < len(layers):
        raise Refusal(f"layer is {index}; the model has {len(layers)} deformable layers, numbered from 0")
    layer = layers[index]
    if not 0 <= group < layer.groups:
        raise Refusal(f"group is {group}; layer {layer.name!r} has {layer.groups}, numbered from 0")
    corner = (photo.boxed.top, photo.boxed.left)
    # Layers count from the centre of the first pixel, as arrays do; the page from its corner, as drawings do.
    wanted = [at * photo.boxed.scale + start - 0.5 for at, start in zip(place, corner, strict=True)]
    centres = layer.centres()
    distance = np.hypot(centres[0] - wanted[0], centres[1] - wanted[1])
    site = int(np.argmin(np.nan_to_num(distance, nan=np.inf, posinf=np.inf)))
    (points,) = trace(layers, index, site, levels=1, group=group)
    columns = [*_to_image((points.y, points.x), photo), points.weight, points.share]
    kept = np.isfinite(np.stack(columns)).all(0)
    return {
        "pixel": [int(part) for part in np.unravel_index(site, layer.output_size)],
        "centre": [float(at) for at in _to_image((centres[0][site], centres[1][site]), photo)],
        "points": [dict(zip(("y", "x", "weight", "share"), row, strict=True)) for row in np.stack(columns, 1)[kept].tolist()],
        "not_finite": int(np.sum(~kept)),
    }


def _to_image(place: tuple[Any, Any], photo: Photo) -> tuple[np.ndarray, np.ndarray]:
    """(y, x) in the model's input, counted from pixel centres -> in the image, from its corner."""
    boxed = photo.boxed
    return np.asarray((place[0] + 0.5 - boxed.top) / boxed.scale), np.asarray((place[1] + 0.5 - boxed.left) / boxed.scale)
