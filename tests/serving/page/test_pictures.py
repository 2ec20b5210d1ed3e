"""Images from strangers: what is read, what is refused, and what a model's file says about how it wants them."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from deploydcn.runners import TensorInfo
from deploydcn.serving.page.pictures import FORMATS, MOST_PIXELS, ImageTask, read_picture
from deploydcn.serving.refusal import Refusal
from deploydcn.vision import letterbox
from tests.serving.page.models import picture

IMAGE = TensorInfo("image", "float32", ("n", 3, "h", "w"))


def png_header(height: int, width: int) -> bytes:
    """A file of a few bytes that promises as many pixels as one likes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read(kind: str) -> None:
    assert read_picture(picture(20, 30, kind=kind)).shape == (20, 30, 3)


def test_colours_are_kept() -> None:
    wanted = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    assert np.array_equal(read_picture(picture(20, 30)), wanted)


def test_a_photograph_is_turned_as_browsers_show_it() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees clockwise
    plain, turned = (read_picture(picture(20, 30, **options)) for options in ({}, {"exif": exif}))
    assert np.array_equal(turned, np.rot90(plain, -1))


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "no image|cannot be read"),
        (b"hello, this is text", 400, "no image|cannot be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", 400, "no image|cannot be read"),  # Pillow would start Ghostscript
        (picture(kind="TIFF"), 400, "no image|cannot be read"),
        (picture()[:200], 400, "cannot be read"),
        (picture(kind="JPEG")[:-400], 400, "cannot be read"),
        (picture()[:100] + b"\0\0\0\0" + picture()[104:], 400, "cannot be read"),
        (png_header(1, MOST_PIXELS + 1), 413, "40000001x1 pixels"),
        (png_header(9000, 9000), 413, "9000x9000 pixels"),
        (png_header(20000, 20000), 413, "too many pixels"),
        (png_header(2**31 - 1, 2**31 - 1), 413, "too many pixels"),
        (png_header(0, 0), 400, "no image|cannot be read"),
    ],
    ids=["empty", "text", "postscript", "tiff", "cut-png", "cut-jpeg", "damaged", "line", "large", "bomb", "largest-bomb", "no-pixels"],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_no_image_is_refused(body: bytes, status: int, message: str) -> None:
    with pytest.raises(Refusal, match=message) as caught:
        read_picture(body)
    assert caught.value.status == status


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_damage_anywhere_is_survived(kind: str) -> None:
    """Single bytes and whole stretches changed, left out or cut off: an image or a refusal, no other exception."""
    rng = np.random.default_rng(0)
    whole = np.frombuffer(picture(24, 24, kind=kind), np.uint8)
    refused = 0
    for _ in range(300):
        body = whole.copy()
        start = int(rng.integers(0, len(body) if rng.random() < 0.5 else 80))  # headers are where it hurts
        length = int(rng.choice([1, 4, 40]))
        body[start : start + length] = rng.integers(0, 256, len(body[start : start + length]))
        if rng.random() < 0.3:
            body = np.delete(body, slice(start, start + length))
        if rng.random() < 0.2:
            body = body[: rng.integers(0, len(body))]
        try:
            assert read_picture(body.tobytes()).shape[2] == 3
        except Refusal:
            refused += 1
    assert refused > 30


def test_the_model_gets_what_letterbox_gives() -> None:
    image = read_picture(picture(100, 75))
    photo, inputs = ImageTask.of([IMAGE], {}).prepare(image)
    assert np.array_equal(inputs["image"], letterbox(image, (640, 640)).tensor)
    assert photo.boxed.scale == 6.4


@pytest.mark.parametrize(
    ("shape", "metadata", "size"),
    [
        ((1, 3, "h", "w"), {}, (640, 640)),
        ((1, 3, "h", "w"), {"imgsz": "[480, 320]"}, (480, 320)),
        ((1, 3, None, None), {"imgsz": "256"}, (256, 256)),
        ((1, 3, 96, "w"), {"imgsz": "(64, 128)"}, (96, 128)),
        (("n", 1, 28, 28), {"imgsz": "[640, 640]"}, (28, 28)),
        ((3, 64, 48), {}, (64, 48)),
    ],
)
def test_the_size_of_the_input(shape: tuple[int | str | None, ...], metadata: dict[str, str], size: tuple[int, int]) -> None:
    task = ImageTask.of([TensorInfo("x", "float32", shape)], metadata)
    photo, inputs = task.prepare(read_picture(picture(40, 40)))
    assert task.size == photo.size == inputs["x"].shape[-2:] == size
    assert inputs["x"].ndim == len(shape)


@pytest.mark.parametrize("sides", [(2000, 1), (1, 2000)])
def test_a_line_is_an_image(sides: tuple[int, int]) -> None:
    _, inputs = ImageTask.of([IMAGE], {}).prepare(np.zeros((*sides, 3), np.uint8))
    assert (inputs["image"] == 0).any(axis=(0, 1)).sum() == 640


def test_mean_and_std_and_names_come_from_the_file() -> None:
    metadata = {"names": "{0: 'cat', 1: \"dog's\"}", "mean": "[0.5, 0.25, 0]", "std": "2"}
    task = ImageTask.of([IMAGE], metadata)
    assert task.names == {0: "cat", 1: "dog's"}
    image = np.full((640, 640, 3), 255, np.uint8)
    assert task.prepare(image)[1]["image"][0, :, 0, 0].tolist() == [0.25, 0.375, 0.5]
    assert ImageTask.of([IMAGE], {"names": '["cat", "dog"]'}).names == ImageTask.of([IMAGE], {"names": '{"0": "cat", "1": "dog"}'}).names


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"names": "__import__('os').getcwd()"}, "names = __import__"),
        ({"names": "{'cat': 0}"}, "wanted names of classes"),
        ({"names": "7"}, "wanted names of classes"),
        ({"imgsz": "[640, 100000]"}, "wanted a height and a width"),
        ({"imgsz": "[640]"}, "wanted a height and a width"),
        ({"mean": "'a lot'"}, "wanted numbers"),
        ({"mean": "[1, 2]"}, "mean has 2 numbers"),
        ({"std": "0"}, "std is"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_unreadable_metadata_is_told(metadata: dict[str, str], message: str) -> None:
    with pytest.raises(Refusal, match=message):
        ImageTask.of([IMAGE], metadata).prepare(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([TensorInfo("ids", "int64", (1, 128))], "no input takes an image"),
        ([TensorInfo("x", "float32", (1, 8, 64, 64))], "no input takes an image"),
        ([IMAGE, TensorInfo("mask", "int64", (1, 8))], "one image and nothing else"),
        ([TensorInfo("x", "float32", None)], "no input takes an image"),
    ],
    ids=["text", "features", "two", "unknown"],
)
def test_models_of_other_inputs_are_told(inputs: list[TensorInfo], message: str) -> None:
    with pytest.raises(Refusal, match=message):
        ImageTask.of(inputs, {})
