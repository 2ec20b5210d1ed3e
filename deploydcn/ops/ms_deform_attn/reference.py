"""MSDeformAttn in float64 NumPy, written from the formula in the spec. It shares no code with any kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deploydcn.ops.bilinear import bilinear
from deploydcn.ops.ms_deform_attn.spec import SPEC, check_levels


def reference(inputs: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> list[np.ndarray]:
    """Compute [output] in float64.

    Args:
        inputs: value (N, S, M, D), spatial_shapes (L, 2), level_start_index (L), sampling_locations (N, Q, M, L, P, 2),
            attention_weights (N, Q, M, L, P).
        attributes: none.

    Raises:
        InvalidArgument: a level does not lie in value.
    """
    a = SPEC.bind({name: value.shape for name, value in inputs.items()}, attributes)
    shapes, starts = inputs["spatial_shapes"].tolist(), inputs["level_start_index"].tolist()
    check_levels(shapes, starts, a["S"])
    value, locations, weights = (inputs[name].astype(np.float64) for name in ("value", "sampling_locations", "attention_weights"))
    output = np.zeros((a["N"], a["Q"], a["M"], a["D"]))
    for n in range(a["N"]):
        for m in range(a["M"]):
            for level, ((height, width), start) in enumerate(zip(shapes, starts, strict=True)):
                image = value[n, start : start + height * width, m].reshape(height, width, a["D"]).transpose(2, 0, 1)
                for p in range(a["P"]):
                    x = locations[n, :, m, level, p, 0] * width - 0.5
                    y = locations[n, :, m, level, p, 1] * height - 0.5
                    output[n, :, m] += weights[n, :, m, level, p, None] * bilinear(image, y, x).T
    return [output.reshape(a["N"], a["Q"], a["M"] * a["D"])]
