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


def dcnv4(case: str, arrays: Mapping[str, np.ndarray], published: Mapping[str, Any]) -> Golden:
    inputs = {name: arrays[f"in_{name}"] for name in ("input", "offset_mask")}
    attributes = {**_window(published), "softmax": int(published["softmax"])}
    # What the published kernel writes where it mixes images of a batch must not come out.
    wrong = tuple((0, arrays[name]) for name in ("out_published_wrong",) if name in arrays)
    return Golden("DCNv4", inputs, attributes, ((0, arrays["out_output"]),), wrong=wrong)


def _levels(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: arrays[f"in_{name}"] for name in ("value", "spatial_shapes", "level_start_index")}


def ms_deform_attn(case: str, arrays: Mapping[str, np.ndarray], published: Mapping[str, Any]) -> Golden:
    points = {name: arrays[f"in_{name}"] for name in ("sampling_locations", "attention_weights")}
    wanted = tuple((0, arrays[name]) for name in ("out_cuda", "out_pytorch"))
    return Golden("MSDeformAttn", {**_levels(arrays), **points}, {}, wanted)


def flash_deform_attn(case: str, arrays: Mapping[str, np.ndarray], published: Mapping[str, Any]) -> Golden:
    """Locations and logits in one tensor; taken apart here as nn.functional.flash_deform_attn does."""
    sampling, levels = arrays["in_sampling_loc_attn"], len(arrays["in_level_start_index"])
    count = levels * published["K"]
    shape = (*sampling.shape[:3], levels, published["K"])
    logits = np.exp(sampling[..., 2 * count :].astype(np.float64))
    weights = (logits / logits.sum(axis=-1, keepdims=True)).astype(np.float32)
    points = {"sampling_locations": sampling[..., : 2 * count].reshape(*shape, 2), "attention_weights": weights.reshape(shape)}
    wanted = arrays["out_output"]
    return Golden("MSDeformAttn", {**_levels(arrays), **points}, {}, ((0, wanted.reshape(*wanted.shape[:2], -1)),))


READERS: dict[str, Reader] = {
    "dcnv3": dcnv3,
    "dcnv4": dcnv4,
    "ms_deform_attn": ms_deform_attn,
    "flash_deform_attn": flash_deform_attn,
}
