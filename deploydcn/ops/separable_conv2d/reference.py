"""SeparableConv2d in float64 NumPy: the definition, one tap at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deploydcn.ops.activations import activate
from deploydcn.ops.separable_conv2d.spec import SPEC


def reference(inputs: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> list[np.ndarray]:
    """Compute [Y] in float64 from X (N, C, H, W), depthwise_W (D, 1, KH, KW), pointwise_W (M, D, 1, 1) and optional biases."""
    attrs = SPEC.complete_attributes(attributes)
    a = SPEC.bind({name: value.shape for name, value in inputs.items()}, attributes)
    x, depthwise, pointwise = (inputs[name].astype(np.float64) for name in ("X", "depthwise_W", "pointwise_W"))
    padded = np.pad(x, ((0, 0), (0, 0), (a["PT"], a["PB"]), (a["PL"], a["PR"])))
    padded = np.repeat(padded, a["D"] // a["C"], axis=1)  # result d reads channel d // (D // C)
    between = np.zeros((a["N"], a["D"], a["OH"], a["OW"]))
    for i in range(a["KH"]):
        for j in range(a["KW"]):
            top, left = i * a["DH"], j * a["DW"]
            bottom, right = top + (a["OH"] - 1) * a["SH"] + 1, left + (a["OW"] - 1) * a["SW"] + 1
            between += depthwise[None, :, 0, i, j, None, None] * padded[:, :, top : bottom : a["SH"], left : right : a["SW"]]
    between = activate(between + _bias(inputs, "depthwise_B"), str(attrs["depthwise_activation"]))
    output = np.einsum("md,ndhw->nmhw", pointwise[:, :, 0, 0], between)
    return [activate(output + _bias(inputs, "pointwise_B"), str(attrs["activation"]))]


def _bias(inputs: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """(1, channels, 1, 1), or 0 where it is absent."""
    return inputs[name].astype(np.float64)[None, :, None, None] if name in inputs else np.zeros((1, 1, 1, 1))
