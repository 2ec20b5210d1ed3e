"""What models are compared on: an example, seeded random numbers, zeros, large numbers, photographs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploydcn.errors import InvalidArgument
from deploydcn.parity.tolerance import PRECISION
from deploydcn.runners import Runner, TensorInfo
from deploydcn.runners.base import as_array
from deploydcn.vision import letterbox, read_image

Shapes = Mapping[str, Sequence[int]]

KINDS = ("zeros", "large")
"""Sets on request. zeros: where activations, norms and ties show what they do. large: random numbers times LARGE: the offsets that a
deformable layer predicts grow with the features that it predicts them from, until samples leave the image. No part of the default, since
a sound model may amplify rounding there, or choose among equals."""

LARGE = 10.0

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def random_inputs(infos: Sequence[TensorInfo], shapes: Shapes | None = None, *, seed: int = 0, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Seeded inputs: normal with standard deviation `scale` for floating point, 0 or 1 for integers and booleans.

    Raises:
        InvalidArgument: a dynamic size without a shape for its input.
    """
    if not isinstance(seed, int) or seed < 0:
        raise InvalidArgument(f"seed is {seed!r}; wanted a whole number, 0 or more")
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, (dtype, sizes) in _fixed(infos, shapes).items():
        if dtype in PRECISION:
            arrays[name] = (scale * rng.standard_normal(sizes)).astype(dtype)
        else:
            arrays[name] = rng.integers(0, 2, sizes).astype(dtype)
    return arrays


def image_inputs(folder: str | os.PathLike[str], infos: Sequence[TensorInfo], shapes: Shapes | None = None) -> Iterator[tuple[str, Any]]:
    """(file name, inputs) for every image of a folder, letterboxed to the model's size: RGB in [0, 1].

    Raises:
        InvalidArgument: no folder, no images in it, an unreadable one, or a model that does not take one image.
    """
    path = Path(folder)
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES) if path.is_dir() else []
    if not files:
        state = "holds no images" if path.is_dir() else "is not a folder"
        raise InvalidArgument(f"{path} {state}; wanted a folder of {', '.join(IMAGE_SUFFIXES)} files")
    fixed = _fixed(infos, shapes)
    takes_image = [name for name, (dtype, sizes) in fixed.items() if dtype in PRECISION and len(sizes) == 4 and sizes[1] == 3]
    if len(fixed) != 1 or len(takes_image) != 1:
        raise InvalidArgument(f"the model takes {', '.join(map(str, infos))}; images are for models of one input (N, 3, H, W)")
    dtype, sizes = fixed[takes_image[0]]
    for file in files:
        image = letterbox(read_image(file), (sizes[2], sizes[3])).tensor
        yield file.name, {takes_image[0]: np.repeat(image, sizes[0], 0).astype(dtype)}


def input_sets(
    reference: Runner,
    candidate: Runner,
    inputs: Mapping[str, Any] | Sequence[Any] | None,
    *,
    shapes: Shapes | None,
    seed: int,
    seeds: int,
    kinds: Iterable[str],
    images: str | os.PathLike[str] | None,
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """(label, inputs by the reference's names); see `verify` for the arguments."""
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise InvalidArgument(f"no kind of inputs is called {', '.join(map(repr, unknown))}; wanted {', '.join(KINDS)}")
    if not isinstance(seeds, int) or seeds < 0:
        raise InvalidArgument(f"seeds is {seeds!r}; wanted a whole number, 0 or more")
    infos = reference.inputs
    if inputs is not None:
        given = list(_given(infos, inputs))
        yield from given
        shapes = {name: array.shape for name, array in given[0][1].items()}
    elif shapes is None:
        example = getattr(reference, "example", None) or getattr(candidate, "example", None)
        if example is not None:
            example = dict(zip((info.name for info in infos), example.values(), strict=True))
            yield "example", example
            shapes = {name: array.shape for name, array in example.items()}
    for number in range(seed, seed + (seeds if inputs is None else 0)):
        yield f"seed {number}", random_inputs(infos, shapes, seed=number)
    if "zeros" in kinds:
        yield "zeros", {name: np.zeros(sizes, dtype) for name, (dtype, sizes) in _fixed(infos, shapes).items()}
    if "large" in kinds:
        yield "large", random_inputs(infos, shapes, seed=seed, scale=LARGE)
    if images is not None:
        yield from image_inputs(images, infos, shapes)


def _given(infos: Sequence[TensorInfo], inputs: Mapping[str, Any] | Sequence[Any]) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    if hasattr(inputs, "shape") or not hasattr(inputs, "__len__"):
        raise InvalidArgument("inputs is one array or an iterator; wanted a dict by name, a list of arrays, or a list of dicts")
    if isinstance(inputs, Mapping):
        yield "given", {name: as_array(value) for name, value in inputs.items()}
    elif inputs and all(isinstance(item, Mapping) for item in inputs):
        for index, item in enumerate(inputs):
            yield f"set {index}", {name: as_array(value) for name, value in item.items()}
    else:
        names = [info.name for info in infos]
        if len(inputs) != len(names):
            raise InvalidArgument(f"got {len(inputs)} inputs; wanted {len(names)}: {', '.join(map(str, infos))}")
        yield "given", {name: as_array(value) for name, value in zip(names, inputs, strict=True)}


def _fixed(infos: Sequence[TensorInfo], shapes: Shapes | None) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and sizes of every input; dynamic ones from `shapes`."""
    shapes = shapes or {}
    unknown = set(shapes) - {info.name for info in infos}
    if unknown:
        raise InvalidArgument(f"no input named {', '.join(sorted(map(repr, unknown)))}; the model takes {', '.join(map(str, infos))}")
    fixed = {}
    for info in infos:
        shape = shapes.get(info.name, info.shape)
        if shape is None or not all(isinstance(size, int) for size in shape):
            raise InvalidArgument(f"input {info} has dynamic sizes; give its shape, as in --shape {info.name}=1x3x640x640")
        fixed[info.name] = info.dtype, tuple(int(size) for size in shape if size is not None)
    return fixed
