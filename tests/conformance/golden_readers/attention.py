"""DCNv3, DCNv4 and multi-scale deformable attention: the kernels of InternImage, DCNv4 and Deformable-DETR."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.conformance.golden_readers.golden import Golden, Reader


def _window(published: Mapping[str, Any]) -> dict[str, Any]:
    pads = (published["pad_h"], published["pad_w"])
    return {
        "kernel_shape": (published["kernel_h"], published["kernel_w"]),
        "strides": (published["stride_h"], published["stride_w"]),
        "pads": pads + pads,
        "dilations": (published["dilation_h"], published["dilation_w"]),
        "group": published["group"],
        "offset_scale": published["offset_scale"],
        "remove_center": published["remove_center"],
    }


def dcnv3(case: str, arrays: Mapping[str, np.ndarray], published: Mapping[str, Any]) -> Golden:
    inputs = {name: arrays[f"in_{name}"] for name in ("input", "offset", "mask")}
    # out_pytorch, the published PyTorch version, is silently wrong where pads differ by axis (pad_asym_s4_silent).
    return Golden("DCNv3", inputs, _window(published), ((0, arrays["out_cuda"]),))


READERS: dict[str, Reader] = {"dcnv3": dcnv3}
