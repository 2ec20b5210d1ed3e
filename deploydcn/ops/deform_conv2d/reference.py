"""DeformConv2d in float64 NumPy, written from the formula in the spec. It shares no code with any kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deploydcn.ops.activations import activate
from deploydcn.ops.bilinear import bilinear
from deploydcn.ops.deform_conv2d.spec import SPEC


def reference(inputs: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> list[np.ndarray]:
    """Compute [Y] in float64.

    Args:
        inputs: X (N, C, H, W), W (M, C/group, KH, KW), offset (N, 2*OG*KH*KW, OH, OW), optional B (M), optional mask.
        attributes: ONNX attributes of DeformConv2d; missing ones take their defaults.
    """
    attrs = SPEC.complete_attributes(attributes)
    a = SPEC.bind({name: value.shape for name, value in inputs.items()}, attributes)
    x, weight, offset = (inputs[name].astype(np.float64) for name in ("X", "W", "offset"))
    taps = a["KH"] * a["KW"]
    mask = inputs["mask"].astype(np.float64) if "mask" in inputs else np.ones((a["N"], a["OG"] * taps, a["OH"], a["OW"]))
    rows = np.arange(a["OH"])[:, None] * a["SH"] - a["PT"]
    columns = np.arange(a["OW"])[None, :] * a["SW"] - a["PL"]
    group_channels = a["C"] // a["OG"]

    sampled = np.zeros((a["N"], a["C"], taps, a["OH"], a["OW"]))
    for n in range(a["N"]):
        for q in range(a["OG"]):
            channels = slice(q * group_channels, (q + 1) * group_channels)
            for t in range(taps):
                i, j = divmod(t, a["KW"])
                y = rows + i * a["DH"] + offset[n, q * 2 * taps + 2 * t]
                x_ = columns + j * a["DW"] + offset[n, q * 2 * taps + 2 * t + 1]
                sampled[n, channels, t] = mask[n, q * taps + t] * bilinear(x[n, channels], y, x_)

    m_per_group, c_per_group = a["M"] // a["G"], a["C"] // a["G"]
    output = np.zeros((a["N"], a["M"], a["OH"], a["OW"]))
    for g in range(a["G"]):
        outs, ins = slice(g * m_per_group, (g + 1) * m_per_group), slice(g * c_per_group, (g + 1) * c_per_group)
        output[:, outs] = np.einsum("mct,ncthw->nmhw", weight[outs].reshape(m_per_group, c_per_group, taps), sampled[:, ins])
    if "B" in inputs:
        output += inputs["B"].astype(np.float64)[None, :, None, None]
    return [activate(output, str(attrs["activation"]))]
