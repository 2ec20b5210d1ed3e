"""Calibration data of every kind, and what is said of data that does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploydcn.errors import InvalidArgument
from deploydcn.quantization.data import ImageOptions, samples_of
from deploydcn.runners import TensorInfo

IMAGE = (TensorInfo("x", "float32", ("n", 3, 8, 12)),)
TWO = (TensorInfo("x", "float32", ("n", 3)), TensorInfo("k", "int64", (2,)))
DEFAULT = ImageOptions()


def pictures(folder: Path, count: int, size: tuple[int, int] = (30, 20)) -> Path:
    pillow = pytest.importorskip("PIL.Image")
    folder.mkdir()
    for index in range(count):
        image = np.random.default_rng(index).integers(0, 256, (*size, 3)).astype(np.uint8)
        pillow.fromarray(image).save(folder / f"{index}.png")
    (folder / "notes.txt").write_text("no image")
    return folder


def test_arrays_with_an_axis_of_samples_or_along_the_batch(tmp_path: Path) -> None:
    x, k = np.zeros((4, 1, 3), np.float32), np.zeros((4, 2), np.int64)
    np.savez(tmp_path / "a.npz", x=x, k=k)
    runs = list(samples_of(tmp_path / "a.npz", TWO, DEFAULT, None))
    assert [run["x"].shape for run in runs] == [(1, 3)] * 4
    assert [run["k"].shape for run in runs] == [(2,)] * 4
    assert len(samples_of({"x": np.zeros((5, 3, 8, 12), np.float32)}, IMAGE, DEFAULT, 3)) == 3
    fixed = (TensorInfo("x", "float32", (2, 3)),)
    assert [run["x"].shape for run in samples_of({"x": np.zeros((6, 3), np.float32)}, fixed, DEFAULT, None)] == [(2, 3)] * 3


def test_data_can_be_run_through_twice(tmp_path: Path) -> None:
    """Once to calibrate, once to compare."""
    for data in (samples_of([{"x": np.zeros(3)}], TWO, DEFAULT, None), samples_of(pictures(tmp_path / "p", 2), IMAGE, DEFAULT, None)):
        assert len(list(data)) == len(list(data)) == len(data) > 0


def test_images_fill_the_models_input(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "p", 3)
    (first, *_) = samples_of(folder, IMAGE, DEFAULT, None)
    assert first["x"].shape == (1, 3, 8, 12)
    assert first["x"].dtype == np.float32
    assert first["x"][0, 0, 0, 0] == np.float32(114 / 255)  # grey beside a picture that is higher than wide
    (stretched, *_) = samples_of(folder, IMAGE, ImageOptions(fit="stretch", mean=(0.5, 0.5, 0.5), std=(0.25,)), None)
    assert -2 <= stretched["x"].min() < 0 < stretched["x"].max() <= 2
    dynamic = (TensorInfo("x", "float32", (2, 1, "h", "w")),)
    (grey,) = samples_of(folder, dynamic, ImageOptions(size=(16, 16)), None)
    assert grey["x"].shape == (2, 1, 16, 16)  # the third picture fills no batch


ARRAYS: list[tuple[Any, str]] = [
    ({"x": np.zeros((4, 3))}, "has arrays x; wanted one per input: x: float32[nx3], k: int64[2]"),
    ({"x": np.zeros((4, 1, 3)), "k": np.zeros((5, 2))}, "different numbers of samples: {'x': 4, 'k': 5}"),
    (
        {"x": np.zeros((4, 1, 1, 3)), "k": np.zeros((4, 2))},
        "'x' has shape [4, 1, 1, 3]; wanted an axis of samples before x: float32[nx3]",
    ),
    ({"x": np.zeros((0, 1, 3)), "k": np.zeros((0, 2))}, "hold no samples"),
    (7, "calibration data is int; wanted a folder"),
    ([], "calibration data is list; wanted a folder"),
    ("none.npz", "none.npz does not exist; wanted a folder of images, or an .npz file"),
]


@pytest.mark.parametrize(("data", "message"), ARRAYS)
def test_arrays_that_do_not_fit(data: Any, message: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        samples_of(data, TWO, DEFAULT, None)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("infos", "options", "message"),
    [
        (TWO, DEFAULT, "images fit a model with one float32 input"),
        ((TensorInfo("x", "float32", (1, 8, 8, 3)),), DEFAULT, "images fit a model with one float32 input"),
        ((TensorInfo("x", "float32", (1, 3, "h", "w")),), DEFAULT, "wanted a size to bring the images to, as in --size 640x640"),
        (IMAGE, ImageOptions(size=(8, 13)), "size is 8x13; wanted one that fits input x: float32[nx3x8x12]"),
        (IMAGE, ImageOptions(fit="crop"), "fit is 'crop'; wanted one of letterbox, stretch"),
        (IMAGE, ImageOptions(std=(0.0,)), "std is [0.0]; wanted positive, one value, or 3"),
        (IMAGE, ImageOptions(mean=(0.0, 1.0)), "mean is [0.0, 1.0]; wanted one value, or 3"),
        ((TensorInfo("x", "float32", (4, 3, 8, 8)),), DEFAULT, "holds 2 images; the model takes 4 at a time"),
    ],
)
def test_images_that_do_not_fit(tmp_path: Path, infos: tuple[TensorInfo, ...], options: ImageOptions, message: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        samples_of(pictures(tmp_path / "p", 2), infos, options, None)
    assert message in str(raised.value)


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "p", 1)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(InvalidArgument, match=r"broken\.jpg is not a readable image"):
        list(samples_of(folder, IMAGE, DEFAULT, None))


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="holds no images"):
        samples_of(tmp_path, IMAGE, DEFAULT, None)
    with pytest.raises(InvalidArgument, match="limit is 0; wanted at least 1"):
        samples_of(tmp_path, IMAGE, DEFAULT, 0)
