"""How far a backend may be from the float64 reference, and why: relative to the largest reference value, or in units of an integer type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deploydcn.ops import Op

TOLERANCE = {
    # Sums of up to about 1200 products in float32: sqrt(1200) * 2^-24 is 2e-6; positions are exact.
    "float32": 5e-6,
    # The same sums in float64: sqrt(1200) * 2^-53, with room for another order of additions.
    "float64": 1e-13,
    # Computed in float32, rounded once on output: half an ulp, 2^-11, of a value up to the largest.
    "float16": 6e-4,
    # The same with 8 significant bits: 2^-8.
    "bfloat16": 4.5e-3,
    # Units. A sample is a sum in float32: near .5 it may round to the other neighbour, which moves the output by less than one unit.
    "uint8": 1,
    "int8": 1,
}

# Of all outputs of 8-bit integers, as many may be off: samples near .5 are rare, and then an output lies near .5 itself. Two always may.
OFF_BY_ONE = 0.01

# torchvision adds base and offset in float32: 900 px * 2^-24 = 5.4e-5 px at the right edge, times a slope of about 1 per px.
TORCHVISION_COORDINATES = 6e-5


def gpu_tolerance(op: Op, types: Mapping[str, str]) -> float:
    """On a GPU the terms of a product are rounded to T, for the tensor cores. Where these are results themselves (between the two
    stages of a separable convolution) that adds up to half an ulp of each to the rounding of the output."""
    stages = 2 if op.spec.name == "SeparableConv2d" and types["T"] in ("float16", "bfloat16") else 1
    return stages * TOLERANCE[types["T"]]


def allowed(types: Mapping[str, str], attributes: Mapping[str, Any]) -> float:
    """The tolerance of any drawn case: a clamp can shrink the largest output, which errors of real numbers are relative to."""
    clamped = attributes.get("activation") and "float" in types["T"]
    return TOLERANCE[types["T"]] * (4 if clamped else 1)


def largest_error(got: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float:
    """The largest error of an operator's outputs: relative, or of integers in units."""
    arrays = [np.asarray(array) for array in got]
    return max((units_off if a.dtype.kind in "iu" else relative_error)(a, b) for a, b in zip(arrays, wanted, strict=True))


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    """max |got - wanted| / max |wanted|. NaN is compared by place: a NaN where the other has a number is an infinite error,
    except that a NaN of the reference (a zero-weight corner on a NaN pixel) allows either."""
    assert got.shape == wanted.shape, (got.shape, wanted.shape)
    got, wanted = got.astype(np.float64), wanted.astype(np.float64)
    defined = ~np.isnan(wanted)
    if not defined.any():
        return 0.0
    scale = float(np.max(np.abs(wanted[defined]), initial=1e-30))
    error = np.abs(got[defined] - wanted[defined])
    return float(np.max(np.where(np.isnan(error), np.inf, error), initial=0.0)) / scale


def units_off(got: np.ndarray, wanted: np.ndarray) -> float:
    """max |got - wanted|; infinite where more elements differ than OFF_BY_ONE allows."""
    assert got.shape == wanted.shape, (got.shape, wanted.shape)
    error = np.abs(got.astype(np.float64) - wanted)
    return float("inf") if np.count_nonzero(error) > max(2, OFF_BY_ONE * error.size) else float(np.max(error, initial=0.0))
