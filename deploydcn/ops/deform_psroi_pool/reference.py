"""DeformPSRoIPool in NumPy: positions in float32, as the spec says, values in float64. It shares no code with any kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deploydcn.ops.deform_psroi_pool.spec import SPEC
from deploydcn.ops.rois import images_of

HALF, ONE, SHORTEST = np.float32(0.5), np.float32(1), np.float32(0.1)


def reference(inputs: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> list[np.ndarray]:
    """Compute [output, count] in float64 from input (N, OD*GS*GS, H, W), rois (R, 5) and optional offset (R, 2*CLS, PT, PT).

    Raises:
        InvalidArgument: a box names no image of the batch.
    """
    attrs: dict[str, Any] = SPEC.complete_attributes(attributes)
    a = SPEC.bind({name: value.shape for name, value in inputs.items()}, attributes)
    features, rois = inputs["input"].astype(np.float64), inputs["rois"].astype(np.float32)
    offset = inputs["offset"].astype(np.float32) if "offset" in inputs else np.zeros((a["R"], 2 * a["CLS"], a["PT"], a["PT"]), np.float32)
    scale, strength = np.float32(attrs["spatial_scale"]), np.float32(attrs["trans_std"])
    samples = np.arange(attrs["sample_per_part"], dtype=np.float32)
    bins, groups = np.float32(a["PS"]), np.float32(a["GS"])
    output, count = (np.zeros((a["R"], a["OD"], a["PS"], a["PS"])) for _ in range(2))
    with np.errstate(over="ignore", invalid="ignore"):
        for r, image in enumerate(images_of(SPEC.name, rois, a["N"])):
            left, top, right, bottom = _round(rois[r, 1:])
            left, top = left * scale - HALF, top * scale - HALF
            right, bottom = (right + ONE) * scale - HALF, (bottom + ONE) * scale - HALF
            width, height = _at_least(right - left), _at_least(bottom - top)
            for o, ph, pw in np.ndindex(a["OD"], a["PS"], a["PS"]):
                k = o // (a["OD"] // a["CLS"])
                i, j = (int(np.float32(bin) / bins * np.float32(a["PT"])) for bin in (ph, pw))
                gh, gw = (min(int(np.float32(bin) * groups / bins), a["GS"] - 1) for bin in (ph, pw))
                x = _positions(left, width, pw, bins, offset[r, 2 * k, i, j] * strength, samples)
                y = _positions(top, height, ph, bins, offset[r, 2 * k + 1, i, j] * strength, samples)
                y = y[(y >= -HALF) & (y <= np.float32(a["H"]) - HALF)]  # False for NaN
                x = x[(x >= -HALF) & (x <= np.float32(a["W"]) - HALF)]
                count[r, o, ph, pw] = valid = y.size * x.size
                if valid:
                    channel = features[image, (o * a["GS"] + gh) * a["GS"] + gw]
                    output[r, o, ph, pw] = _bilinear(channel, y, x).sum() / valid
    return [output, count]


def _round(values: np.ndarray) -> np.ndarray:
    """C's round: to the nearest integer, halves away from zero."""
    exact = values.astype(np.float64)
    return np.trunc(exact + np.copysign(0.5, exact)).astype(np.float32)


def _at_least(side: np.float32) -> np.float32:
    """A box has a least extent; NaN stays NaN."""
    return SHORTEST if side < SHORTEST else side


def _positions(start: np.float32, side: np.float32, index: int, bins: np.float32, move: np.float32, samples: np.ndarray) -> np.ndarray:
    """Where the samples of bin `index` lie along one axis, in float32."""
    bin_side = side / bins
    part = bin_side / np.float32(samples.size)
    return np.asarray((np.float32(index) * bin_side + start) + move * side + samples * part)


def _bilinear(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Sample image (H, W), edges extended, at all pairs of rows y (P) and columns x (Q) -> (P, Q)."""
    height, width = image.shape
    y, x = np.clip(y.astype(np.float64), 0, height - 1), np.clip(x.astype(np.float64), 0, width - 1)
    y0, x0 = y.astype(np.int64), x.astype(np.int64)
    y1, x1 = np.minimum(y0 + 1, height - 1), np.minimum(x0 + 1, width - 1)
    wy, wx = (y - y0)[:, None], (x - x0)[None, :]
    upper = image[y0[:, None], x0] * (1 - wx) + image[y0[:, None], x1] * wx
    lower = image[y1[:, None], x0] * (1 - wx) + image[y1[:, None], x1] * wx
    return np.asarray(upper * (1 - wy) + lower * wy)
