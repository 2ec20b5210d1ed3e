"""GroupedConv2d in float64 NumPy: the definition of a convolution, one tap at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deploydcn.ops.activations import activate
from deploydcn.ops.grouped_conv2d.spec import SPEC


def reference(inputs: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> list[np.ndarray]:
    """Compute [Y] in float64 from X (N, C, H, W), W (M, C/group, KH, KW) and optional B (M)."""
    attrs = SPEC.complete_attributes(attributes)
    a = SPEC.bind({name: value.shape for name, value in inputs.items()}, attributes)
    x, weight = inputs["X"].astype(np.float64), inputs["W"].astype(np.float64)
    padded = np.pad(x, ((0, 0), (0, 0), (a["PT"], a["PB"]), (a["PL"], a["PR"])))
    m_per_group, c_per_group = a["M"] // a["G"], a["C"] // a["G"]
    output = np.zeros((a["N"], a["M"], a["OH"], a["OW"]))
    for i in range(a["KH"]):
        for j in range(a["KW"]):
            top, left = i * a["DH"], j * a["DW"]
            bottom, right = top + (a["OH"] - 1) * a["SH"] + 1, left + (a["OW"] - 1) * a["SW"] + 1
            window = padded[:, :, top : bottom : a["SH"], left : right : a["SW"]]
            for g in range(a["G"]):
                outs, ins = slice(g * m_per_group, (g + 1) * m_per_group), slice(g * c_per_group, (g + 1) * c_per_group)
                output[:, outs] += np.einsum("mc,nchw->nmhw", weight[outs, :, i, j], window[:, ins])
    if "B" in inputs:
        output += inputs["B"].astype(np.float64)[None, :, None, None]
    return [activate(output, str(attrs["activation"]))]
