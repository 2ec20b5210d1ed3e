"""The convolution layers that the benchmark runs, in the field's own terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from deploydcn.errors import InvalidArgument

_KEYS = {
    "n": "batch",
    "c": "channels",
    "h": "height",
    "w": "width",
    "m": "outputs",
    "k": "kernel",
    "s": "stride",
    "d": "dilation",
    "g": "groups",
    "og": "offset_groups",
}


@dataclass(frozen=True)
class ConvLayer:
    """A square convolution, deformable or plain, padded so that stride 1 keeps the image's size.

    Attributes:
        channels, height, width, outputs: of the image (batch, channels, height, width) and the result.
        offset_groups, mask: of a deformable layer; a mask makes it version 2.
        deformable: DeformConv2d, or GroupedConv2d where False.
    """

    channels: int
    height: int
    width: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    offset_groups: int = 1
    mask: bool = True
    batch: int = 1
    deformable: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value < 1 and field.type == "int":
                raise InvalidArgument(f"layer {self}: {field.name} is {value}; wanted 1 or more")
        for name, value, divisor in (
            ("channels", self.channels, self.groups),
            ("outputs", self.outputs, self.groups),
            ("channels", self.channels, self.offset_groups if self.deformable else 1),
        ):
            if value % divisor:
                raise InvalidArgument(f"layer {self}: {name} is {value}; wanted a multiple of {divisor}, its number of groups")
        if min(self.out_size) < 1:
            raise InvalidArgument(f"layer {self}: the window does not fit the image; wanted a larger image or a smaller kernel")

    @property
    def padding(self) -> int:
        """Pixels on every side."""
        return self.dilation * (self.kernel - 1) // 2

    @property
    def out_size(self) -> tuple[int, int]:
        """Height and width of the result."""
        reach = self.dilation * (self.kernel - 1) + 1
        height, width = ((size + 2 * self.padding - reach) // self.stride + 1 for size in (self.height, self.width))
        return height, width

    @property
    def flops(self) -> int:
        """Of the products and sums of the convolution proper: two per weight and output pixel, sampling not counted."""
        height, width = self.out_size
        return 2 * self.batch * self.outputs * height * width * self.channels // self.groups * self.kernel**2

    @property
    def attributes(self) -> dict[str, Any]:
        """As ONNX's Conv takes them."""
        return {
            "kernel_shape": [self.kernel] * 2,
            "strides": [self.stride] * 2,
            "dilations": [self.dilation] * 2,
            "pads": [self.padding] * 4,
            "group": self.groups,
        }

    def arrays(self, offset_scale: float, seed: int = 0) -> dict[str, np.ndarray]:
        """Random float32 inputs: X, W, B and, of a deformable layer, offset (normal, times offset_scale pixels) and mask (uniform)."""
        rng = np.random.default_rng(seed)
        depth = self.channels // self.groups
        points = (self.batch, self.offset_groups * self.kernel**2, *self.out_size)
        arrays = {
            "X": rng.standard_normal((self.batch, self.channels, self.height, self.width)),
            "W": rng.standard_normal((self.outputs, depth, self.kernel, self.kernel)) / (depth * self.kernel**2) ** 0.5,
            "B": rng.standard_normal(self.outputs),
        }
        if self.deformable:
            arrays["offset"] = offset_scale * rng.standard_normal((points[0], 2 * points[1], *points[2:]))
            if self.mask:
                arrays["mask"] = rng.random(points)
        return {name: array.astype(np.float32) for name, array in arrays.items()}

    def __str__(self) -> str:
        text = (
            f"{self.batch}x" * (self.batch > 1)
            + f"{self.channels}x{self.height}x{self.width} to {self.outputs}, {self.kernel}x{self.kernel}"
        )
        for name, value in (("stride", self.stride), ("dilation", self.dilation), ("groups", self.groups)):
            text += f", {name} {value}" * (value > 1)
        if self.deformable:
            text += f", {self.offset_groups} offset groups" * (self.offset_groups > 1) + ", no mask" * (not self.mask)
        return text


def parse_layer(text: str) -> ConvLayer:
    """ "c=128,h=56,w=56,m=128,k=3" -> ConvLayer; also n, s, d, g, og, and the words nomask and plain.

    Raises:
        InvalidArgument: an unknown or missing key, a value that is no number, or sizes that do not fit each other.
    """
    values: dict[str, Any] = {}
    for part in text.replace(" ", "").split(","):
        if part in ("nomask", "plain"):
            values["mask" if part == "nomask" else "deformable"] = False
            continue
        key, separator, number = part.partition("=")
        if not separator or key not in _KEYS or not (number.isascii() and number.isdecimal()):
            raise InvalidArgument(
                f"layer {text!r}: {part!r} is not understood; wanted {', '.join(f'{key}={name}' for key, name in _KEYS.items())}, "
                "nomask or plain, as in c=128,h=56,w=56,m=128,k=3,s=1"
            )
        values[_KEYS[key]] = int(number)
    missing = [key for key in "chwm" if _KEYS[key] not in values]
    if missing:
        raise InvalidArgument(f"layer {text!r} has no {', '.join(missing)}; wanted at least c, h, w and m, as in c=128,h=56,w=56,m=128")
    return ConvLayer(**values)


LAYERS: Mapping[str, ConvLayer] = {
    "ResNet conv3": ConvLayer(128, 56, 56, 128),
    "ResNet conv4": ConvLayer(256, 28, 28, 256),
    "ResNet conv5": ConvLayer(512, 14, 14, 512),
    "stride 2": ConvLayer(64, 112, 112, 128, stride=2),
    "version 1": ConvLayer(128, 56, 56, 128, mask=False),
    "4 offset groups": ConvLayer(128, 56, 56, 128, offset_groups=4),
    "dilation 2": ConvLayer(256, 28, 28, 256, dilation=2),
    "YOLO P3": ConvLayer(64, 80, 80, 64),
    "BiRefNet 7x7": ConvLayer(64, 64, 64, 64, kernel=7),
    "batch 8": ConvLayer(256, 14, 14, 256, batch=8),
    "odd channels": ConvLayer(100, 40, 40, 75),
    "ResNeXt": ConvLayer(256, 28, 28, 256, groups=32),
    "depthwise 64": ConvLayer(64, 64, 64, 64, groups=64),
    "depthwise 256": ConvLayer(256, 64, 64, 256, groups=256),
    "plain, 32 groups of 4": ConvLayer(128, 56, 56, 128, groups=32, deformable=False),
    "plain, 32 groups of 8": ConvLayer(256, 28, 28, 256, groups=32, deformable=False),
    "plain, depthwise 3x3": ConvLayer(256, 56, 56, 256, groups=256, deformable=False),
    "plain, depthwise 5x5": ConvLayer(256, 28, 28, 256, kernel=5, groups=256, deformable=False),
    "plain, depthwise 7x7": ConvLayer(96, 56, 56, 96, kernel=7, groups=96, deformable=False),
}
