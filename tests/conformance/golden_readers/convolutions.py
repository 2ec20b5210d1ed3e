"""DeformConv2d: six published implementations, which agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.conformance.golden_readers.golden import Golden, Reader

NAMES = {"in_input": "X", "in_weight": "W", "in_offset": "offset", "in_bias": "B", "in_mask": "mask"}


def deform_conv2d(case: str, arrays: Mapping[str, np.ndarray], published: Mapping[str, Any]) -> Golden:
    pad_h, pad_w = published["pad"]
    attributes = {
        "strides": tuple(published["stride"]),
        "pads": (pad_h, pad_w, pad_h, pad_w),
        "dilations": tuple(published["dilation"]),
        "group": published["group"],
        "offset_group": published["offset_group"],
    }
    inputs = {ours: arrays[theirs] for theirs, ours in NAMES.items() if theirs in arrays}
    wanted = tuple((0, array) for name, array in arrays.items() if name.startswith("out_"))
    # big_coord: 600 px in float32 coordinates on the published side.
    return Golden("DeformConv2d", inputs, attributes, wanted, 3e-5 if case == "big_coord" else 5e-6)


READERS: dict[str, Reader] = {"deform_conv2d": deform_conv2d}
