"""DCNv4 in float64 NumPy, written from the formula in the spec. It shares no code with any kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deploydcn.ops.bilinear import bilinear
from deploydcn.ops.dcnv4.spec import SPEC


def reference(inputs: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> list[np.ndarray]:
    """Compute [output] in float64.

    Args:
        inputs: input (N, H, W, C), offset_mask (N, OH, OW, 3*G*P rounded up to a multiple of 8).
        attributes: ONNX attributes of DCNv4; missing ones take their defaults.
    """
    attrs = SPEC.complete_attributes(attributes)
    scale = float(attrs["offset_scale"])  # type: ignore[arg-type]
    a = SPEC.bind({name: value.shape for name, value in inputs.items()}, attributes)
    image, offset_mask = (inputs[name].astype(np.float64) for name in ("input", "offset_mask"))
    reach_h, reach_w = a["DH"] * (a["KH"] - 1) // 2, a["DW"] * (a["KW"] - 1) // 2
    rows = np.arange(a["OH"])[:, None] * a["SH"] - a["PT"] + reach_h
    columns = np.arange(a["OW"])[None, :] * a["SW"] - a["PL"] + reach_w
    taps = [(i, j) for j in range(a["KW"]) for i in range(a["KH"]) if not (a["RC"] and (i, j) == (a["KH"] // 2, a["KW"] // 2))]
    per_group = a["C"] // a["G"]

    output = np.zeros((a["N"], a["OH"], a["OW"], a["C"]))
    for n in range(a["N"]):
        for g in range(a["G"]):
            channels = slice(g * per_group, (g + 1) * per_group)
            plane = image[n, :, :, channels].transpose(2, 0, 1)
            first = 3 * g * a["P"]
            offset = offset_mask[n, :, :, first : first + 2 * a["P"]]
            mask = offset_mask[n, :, :, first + 2 * a["P"] : first + 3 * a["P"]]
            if attrs["softmax"]:
                mask = np.exp(mask - mask.max(axis=-1, keepdims=True))
                mask = mask / mask.sum(axis=-1, keepdims=True)
            for p, (i, j) in enumerate(taps):
                y = rows + (i * a["DH"] - reach_h) * scale + offset[..., 2 * p + 1] * scale
                x = columns + (j * a["DW"] - reach_w) * scale + offset[..., 2 * p] * scale
                output[n, :, :, channels] += (mask[..., p] * bilinear(plane, y, x)).transpose(1, 2, 0)
    return [output]
