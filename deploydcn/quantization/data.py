"""Calibration data: arrays, .npz files and folders of images, as a sequence of inputs that can be run through more than once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deploydcn.errors import InvalidArgument
from deploydcn.files import read_npz
from deploydcn.runners import TensorInfo
from deploydcn.vision import letterbox, read_image, stretch

IMAGES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))
FITS = ("letterbox", "stretch")


@dataclass(frozen=True)
class ImageOptions:
    """How an image becomes an input. size: (height, width), the model's own when None. fit: "letterbox" keeps proportions, with grey
    around; "stretch" does not. mean, std: per channel, of values in [0, 1]; the input is (value - mean) / std."""

    size: tuple[int, int] | None = None
    fit: str = "letterbox"
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)


class Samples(Protocol):
    """Inputs by name, one run of the model at a time; as often as one likes."""

    def __len__(self) -> int:
        """Runs of the model."""

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """The inputs of each."""


def samples_of(source: Any, infos: Sequence[TensorInfo], images: ImageOptions, limit: int | None) -> Samples:
    """Calibration data of any kind for a model's inputs.

    Args:
        source: a folder of images (subfolders too); an .npz file or a mapping of arrays by input name, each with an axis of samples
            before the input's own, or with the samples along the input's first axis; or a list of mappings, each the inputs of a run.
        limit: the first so many only.

    Raises:
        InvalidArgument: no such file or folder, nothing in it, or arrays that do not fit the inputs.
    """
    if limit is not None and limit < 1:
        raise InvalidArgument(f"limit is {limit}; wanted at least 1")
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if not path.exists():
            raise InvalidArgument(f"{path} does not exist; wanted a folder of images, or an .npz file with one array per input")
        if path.is_dir():
            return _Images(path, infos, images, limit)
        source = read_npz(path)
    if isinstance(source, Mapping):
        return _Runs(_split(source, infos), limit)
    if isinstance(source, Sequence) and source and all(isinstance(item, Mapping) for item in source):
        return _Runs([{name: np.asarray(value) for name, value in item.items()} for item in source], limit)
    raise InvalidArgument(f"calibration data is {type(source).__name__}; wanted a folder, an .npz file, arrays by name, or a list of these")


class _Runs:
    def __init__(self, runs: Sequence[dict[str, np.ndarray]], limit: int | None) -> None:
        self.runs = runs[:limit]

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for number, run in enumerate(self.runs):
            for name, array in run.items():
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    raise InvalidArgument(f"calibration sample {number} of input {name!r} holds NaN or infinity; wanted finite numbers")
            yield run


def _split(arrays: Mapping[str, Any], infos: Sequence[TensorInfo]) -> list[dict[str, np.ndarray]]:
    """Arrays of all samples as one mapping per run."""
    wanted = {info.name: info for info in infos}
    if set(arrays) != set(wanted):
        raise InvalidArgument(
            f"calibration data has arrays {', '.join(sorted(arrays)) or 'none'}; wanted one per input: {', '.join(map(str, infos))}"
        )
    parts: dict[str, list[np.ndarray]] = {}
    for name, info in wanted.items():
        array = np.asarray(arrays[name])
        rank = array.ndim if info.shape is None else len(info.shape)
        if array.ndim == rank + 1:
            parts[name] = list(array)
        elif array.ndim == rank:
            first = info.shape[0] if info.shape else None
            step = first if isinstance(first, int) else 1
            if array.ndim and len(array) % step:
                raise InvalidArgument(f"calibration array {name!r} has {len(array)} samples; wanted a multiple of the batch size {step}")
            parts[name] = [array[at : at + step] for at in range(0, len(array), step)] if array.ndim else [array]
        else:
            raise InvalidArgument(f"calibration array {name!r} has shape {list(array.shape)}; wanted an axis of samples before {info}")
    counts = {name: len(items) for name, items in parts.items()}
    if len(set(counts.values())) != 1:
        raise InvalidArgument(f"calibration arrays hold different numbers of samples: {counts}; wanted as many of each input")
    if not next(iter(counts.values())):
        raise InvalidArgument("calibration arrays hold no samples; wanted some, typically 50 to 500")
    return [dict(zip(parts, items, strict=True)) for items in zip(*parts.values(), strict=True)]


class _Images:
    def __init__(self, folder: Path, infos: Sequence[TensorInfo], options: ImageOptions, limit: int | None) -> None:
        found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES and path.is_file())
        if not found:
            raise InvalidArgument(f"{folder} holds no images ({', '.join(sorted(IMAGES))}); wanted some, typically 50 to 500")
        shape = infos[0].shape if len(infos) == 1 else None
        if shape is None or len(shape) != 4 or shape[1] not in (1, 3) or infos[0].dtype != "float32":
            raise InvalidArgument(
                "images fit a model with one float32 input (N, 3 or 1, H, W); "
                f"this one takes {', '.join(map(str, infos))}; give an .npz file"
            )
        self.info, self.options = infos[0], options
        self.batch = shape[0] if isinstance(shape[0], int) else 1
        self.channels = int(shape[1])
        self.size = _image_size(self.info, options)
        if options.fit not in FITS:
            raise InvalidArgument(f"fit is {options.fit!r}; wanted one of {', '.join(FITS)}")
        for name, values in (("mean", options.mean), ("std", options.std)):
            if len(values) not in (1, self.channels) or (name == "std" and not all(value > 0 for value in values)):
                what = "positive, " if name == "std" else ""
                raise InvalidArgument(f"{name} is {list(values)}; wanted {what}one value, or {self.channels}")
        self.paths = found[: len(found) // self.batch * self.batch][: None if limit is None else limit * self.batch]
        if not self.paths:
            raise InvalidArgument(f"{folder} holds {len(found)} images; the model takes {self.batch} at a time; wanted at least as many")

    def __len__(self) -> int:
        return len(self.paths) // self.batch

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for at in range(0, len(self.paths), self.batch):
            yield {self.info.name: np.concatenate([self._tensor(path) for path in self.paths[at : at + self.batch]])}

    def _tensor(self, path: Path) -> np.ndarray:
        """(1, C, H, W) float32."""
        image = read_image(path)
        tensor = stretch(image, self.size) if self.options.fit == "stretch" else letterbox(image, self.size).tensor
        if self.channels == 1:
            tensor = _grey(tensor)
        mean, std = (np.asarray(values, np.float32).reshape(1, -1, 1, 1) for values in (self.options.mean, self.options.std))
        return np.asarray((tensor - mean) / std, np.float32)


def _grey(tensor: np.ndarray) -> np.ndarray:
    """RGB (1, 3, H, W) -> (1, 1, H, W), by ITU-R BT.601's weights."""
    weights = np.array([0.299, 0.587, 0.114], np.float32).reshape(1, 3, 1, 1)
    return np.asarray((tensor * weights).sum(axis=1, keepdims=True))


def _image_size(info: TensorInfo, options: ImageOptions) -> tuple[int, int]:
    own = (info.shape or ())[2:]
    if options.size is None:
        if not all(isinstance(size, int) for size in own):
            raise InvalidArgument(f"input {info} has no fixed height and width; wanted a size to bring the images to, as in --size 640x640")
        return int(own[0]), int(own[1])  # type: ignore[arg-type]
    for size, wanted in zip(options.size, own, strict=True):
        if size < 1 or (isinstance(wanted, int) and wanted != size):
            raise InvalidArgument(f"size is {options.size[0]}x{options.size[1]}; wanted one that fits input {info}")
    return options.size
