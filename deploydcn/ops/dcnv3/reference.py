"""DCNv3 in float64 NumPy, written from the formula in the spec. It shares no code with any kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deploydcn.ops.bilinear import bilinear
from deploydcn.ops.dcnv3.spec import SPEC


def reference(inputs: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> list[np.ndarray]:
    """Compute [output] in float64.

    Args:
        inputs: input (N, H, W, C), offset (N, OH, OW, 2*G*P), mask (N, OH, OW, G*P).
        attributes: ONNX attributes of DCNv3; missing ones take their defaults.
    """
    scale = float(SPEC.complete_attributes(attributes)["offset_scale"])  # type: ignore[arg-type]
    a = SPEC.bind({name: value.shape for name, value in inputs.items()}, attributes)
    image, offset, mask = (inputs[name].astype(np.float64) for name in ("input", "offset", "mask"))
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
            for p, (i, j) in enumerate(taps):
                slot = g * a["P"] + p
                y = rows + (i * a["DH"] - reach_h) * scale + offset[n, :, :, 2 * slot + 1] * scale
                x = columns + (j * a["DW"] - reach_w) * scale + offset[n, :, :, 2 * slot] * scale
                output[n, :, :, channels] += (mask[n, :, :, slot] * bilinear(plane, y, x)).transpose(1, 2, 0)
    return [output]
