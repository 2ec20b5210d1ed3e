"""The activations a convolution may fuse, as the specs declare them and as the references compute them."""

from __future__ import annotations

import numpy as np

from deploydcn.spec import Attr

ACTIVATION = Attr(
    "activation",
    "string",
    default="",
    choices=("", "relu", "relu6", "silu"),
    python_name="activation",
    doc="applied to the output: empty (none), relu, relu6 = min(max(y, 0), 6) or silu = y * sigmoid(y)",
)


def activate(y: np.ndarray, activation: str) -> np.ndarray:
    """Apply a named activation in float64. NaN stays NaN."""
    if activation == "relu":
        return np.asarray(np.maximum(y, 0.0))
    if activation == "relu6":
        return np.asarray(np.clip(y, 0.0, 6.0))
    if activation == "silu":
        with np.errstate(over="ignore"):
            return np.asarray(y / (1.0 + np.exp(-y)))
    return y
