"""QLinearDeformConv2d in float64 NumPy, written from the formula in the spec. It shares no code with any kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deploydcn.ops.activations import activate
from deploydcn.ops.bilinear import bilinear
from deploydcn.ops.qlinear_deform_conv2d.spec import SPEC


def reference(inputs: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> list[np.ndarray]:
    """Compute [Y], whole numbers in float64.

    Args:
        inputs: by the spec's names; X, x_zero_point and y_zero_point in uint8 or in int8.
        attributes: ONNX attributes of QLinearDeformConv2d; missing ones take their defaults.
    """
    attrs = SPEC.complete_attributes(attributes)
    a = SPEC.bind({name: value.shape for name, value in inputs.items()}, attributes)
    limits = np.iinfo(inputs["X"].dtype)
    wide = {name: value.astype(np.float64) for name, value in inputs.items()}
    image, offset, taps = wide["X"] - wide["x_zero_point"], wide["offset"], a["KH"] * a["KW"]
    mask = wide.get("mask", np.ones((a["N"], a["OG"] * taps, a["OH"], a["OW"])))
    mask = np.where(np.isfinite(mask), mask, 0.0)
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
                x = columns + j * a["DW"] + offset[n, q * 2 * taps + 2 * t + 1]
                sampled[n, channels, t] = mask[n, q * taps + t] * bilinear(image[n, channels], y, x)
    sampled = _rounded(sampled, limits, wide["x_zero_point"])

    m_per_group, c_per_group = a["M"] // a["G"], a["C"] // a["G"]
    total = np.zeros((a["N"], a["M"], a["OH"], a["OW"]))
    for g in range(a["G"]):
        outs, ins = slice(g * m_per_group, (g + 1) * m_per_group), slice(g * c_per_group, (g + 1) * c_per_group)
        total[:, outs] = np.einsum("mct,ncthw->nmhw", wide["W"][outs].reshape(m_per_group, c_per_group, taps), sampled[:, ins])
    if "B" in inputs:
        total += wide["B"][None, :, None, None]
    y = activate(total * (wide["x_scale"] * wide["w_scale"])[:, None, None], str(attrs["activation"]))
    with np.errstate(invalid="ignore", divide="ignore"):
        return [_rounded(y / wide["y_scale"], limits, wide["y_zero_point"]) + wide["y_zero_point"]]


def _rounded(values: np.ndarray, limits: Any, zero_point: np.ndarray) -> np.ndarray:
    """The nearest integers, half to even, that are in the type's range when the zero point is added; NaN becomes 0."""
    numbers = np.where(np.isnan(values), 0.0, values)
    return np.asarray(np.clip(np.rint(numbers), limits.min - zero_point, limits.max - zero_point))
