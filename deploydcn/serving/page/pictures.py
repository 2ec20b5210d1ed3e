"""Images that strangers send, as a model takes them."""

from __future__ import annotations

import ast
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploydcn._lazy import lazy_import
from deploydcn.errors import InvalidArgument
from deploydcn.runners import TensorInfo
from deploydcn.serving.refusal import Refusal
from deploydcn.visual.photo import Photo, image_array, image_input, read_photo

MOST_PIXELS = 40_000_000
"""Of an image; 120 MB in memory. What a file says of itself is checked before anything is decompressed."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")
"""What browsers show. Pillow reads more, some of it by starting other programs."""

SIDE, LARGEST_SIDE = 640, 4096
"""Of the model's input where the model leaves it open, and at most where its file's metadata says it."""


def read_picture(body: bytes | bytearray) -> np.ndarray:
    """An image file's content as (H, W, 3) uint8, RGB, turned as its EXIF data says, which is how browsers show it.

    Raises:
        Refusal: no image, a damaged one, or one of more than MOST_PIXELS.
    """
    pillow = lazy_import("PIL.Image", extra="serve", package="pillow")
    operations = lazy_import("PIL.ImageOps", extra="serve", package="pillow")
    try:
        with pillow.open(io.BytesIO(body), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise _too_many(f"{image.width}x{image.height} pixels")
            return np.asarray(operations.exif_transpose(image).convert("RGB"))
    except Refusal:
        raise
    except pillow.DecompressionBombError as error:
        raise _too_many("far too many pixels") from error
    except pillow.UnidentifiedImageError as error:
        raise Refusal(f"the body is no image; wanted {', '.join(FORMATS)}") from error
    except Exception as error:  # whatever Pillow's readers meet in a damaged file
        raise Refusal(f"the image cannot be read: {error}") from error


def _too_many(got: str) -> Refusal:
    return Refusal(f"the image has {got}; wanted at most {MOST_PIXELS}; send a smaller one", 413)


@dataclass(frozen=True)
class ImageTask:
    """How a model is given an image.

    info: its only input. size: (height, width) that images are letterboxed into. names: of classes by number. mean, std: one for all
    channels or one for each, of pixels in [0, 1]: the model gets (pixels - mean) / std.
    """

    info: TensorInfo
    size: tuple[int, int]
    names: Mapping[int, str]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, inputs: Sequence[TensorInfo], metadata: Mapping[str, str]) -> ImageTask:
        """What a model's signature and its file's metadata say: `names` and, for open sizes, `imgsz`, as ultralytics writes them, `mean`
        and `std`, each in JSON or Python's notation.

        Raises:
            Refusal: the model does not take one image and nothing else, or its metadata cannot be read.
        """
        try:
            name = image_input(inputs, {info.name: info.shape or () for info in inputs})
        except InvalidArgument as error:
            raise Refusal(f"the page cannot use this model: {error}") from error
        if len(inputs) != 1:
            listed = ", ".join(map(str, inputs))
            raise Refusal(f"the page cannot use this model: it takes {listed}; wanted one image and nothing else")
        (info,) = inputs
        said = {key: _literal(key, metadata[key]) for key in ("names", "imgsz", "mean", "std") if key in metadata}
        own = (info.shape or ())[-2:]
        size = tuple(side if isinstance(side, int) else usual for side, usual in zip(own, _size(said.get("imgsz", SIDE)), strict=True))
        mean, std = _numbers("mean", said.get("mean", 0.0)), _numbers("std", said.get("std", 1.0))
        assert name == info.name
        return cls(info, (size[0], size[1]), _names(said.get("names", {})), mean, std)

    def prepare(self, image: np.ndarray) -> tuple[Photo, dict[str, np.ndarray]]:
        """The image letterboxed, and the model's inputs by name.

        Raises:
            Refusal: the metadata's mean and std do not fit the model.
        """
        photo = read_photo(image, self.size)
        try:
            return photo, {self.info.name: image_array(photo, self.info, self.info.shape or (), self.mean, self.std)}
        except InvalidArgument as error:
            raise Refusal(f"the model's metadata: {error}") from error


def _literal(key: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise _unreadable(key, text) from error


def _size(value: Any) -> tuple[int, int]:
    """One number, or (height, width)."""
    sides = [value] * 2 if isinstance(value, int) else value
    if not isinstance(sides, list | tuple) or len(sides) != 2 or not all(isinstance(s, int) and 1 <= s <= LARGEST_SIDE for s in sides):
        raise _unreadable("imgsz", value)
    return sides[0], sides[1]


def _numbers(key: str, value: Any) -> tuple[float, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    if not values or not all(isinstance(number, int | float) for number in values):
        raise _unreadable(key, value)
    return tuple(map(float, values))


def _names(value: Any) -> dict[int, str]:
    """A list, or a dict by number."""
    if not isinstance(value, list | tuple | dict):
        raise _unreadable("names", value)
    try:
        return {int(number): str(name) for number, name in (value.items() if isinstance(value, dict) else enumerate(value))}
    except (TypeError, ValueError) as error:
        raise _unreadable("names", value) from error


def _unreadable(key: str, value: Any) -> Refusal:
    wanted = {
        "names": 'names of classes, as in {"0": "person"}',
        "imgsz": f"a height and a width of 1 to {LARGEST_SIDE}, as in [640, 640]",
        "mean": "numbers, as in [0.485, 0.456, 0.406]",
        "std": "numbers, as in [0.229, 0.224, 0.225]",
    }
    return Refusal(f"the model's metadata has {key} = {str(value)[:80]}; wanted {wanted[key]}")
