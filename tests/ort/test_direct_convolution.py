"""Plain convolutions of few channels per group against torch, at sizes that conformance rows are too small for."""

from __future__ import annotations

import numpy as np
import pytest

import deploydcn
from tests.conformance.single_node import single_node_model

pytestmark = pytest.mark.backend("ort")

# (N, C, H, W), M, groups, kernel, strides, pads, dilations
LAYERS = {
    "several bands": ((1, 16, 150, 133), 16, 2, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "several bands, depthwise": ((2, 3, 301, 302), 3, 3, (7, 7), (1, 1), (3, 3, 3, 3), (1, 1)),
    "odd sizes, stride 3, kernel 9x8, depthwise": ((1, 3, 64, 77), 3, 3, (9, 8), (3, 3), (4, 3, 4, 4), (1, 1)),
    "stride 2 of dilation 3, depthwise": ((1, 5, 61, 75), 5, 5, (5, 4), (2, 2), (6, 4, 6, 5), (3, 2)),
    "stride 2 of dilation 4, narrow, depthwise": ((1, 5, 75, 13), 5, 5, (6, 3), (2, 1), (9, 2, 9, 2), (4, 2)),
    "dilation 2, narrow, depthwise": ((2, 5, 71, 11), 5, 5, (3, 5), (1, 1), (2, 4, 2, 4), (2, 2)),
    "kernel 8x1 and one of ten rows, depthwise": ((1, 5, 17, 300), 5, 5, (8, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    "kernel 2x11, depthwise": ((1, 5, 23, 49), 5, 5, (2, 11), (1, 1), (1, 5, 0, 5), (1, 1)),
    "several bands, stride 2": ((1, 8, 260, 255), 8, 1, (3, 5), (2, 2), (1, 2, 1, 2), (1, 1)),
    "dilation beyond the image": ((1, 4, 40, 30), 4, 4, (3, 3), (1, 1), (50, 40, 50, 40), (50, 40)),
    "stride 2, more padding than kernel": ((1, 4, 41, 43), 4, 4, (3, 3), (2, 2), (7, 6, 5, 4), (1, 1)),
    "one row": ((1, 6, 1, 900), 6, 6, (1, 9), (1, 2), (0, 4, 0, 4), (1, 1)),
    "one column": ((1, 6, 900, 1), 6, 6, (9, 1), (2, 1), (4, 0, 4, 0), (1, 1)),
    "fifteen outputs": ((1, 6, 33, 35), 45, 3, (2, 2), (1, 1), (0, 0, 1, 1), (2, 1)),
    "more groups than tasks": ((1, 2000, 21, 20), 2000, 2000, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", LAYERS)
def test_equals_torch(name: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    from deploydcn.ops.grouped_conv2d.spec import SPEC

    shape, outputs, groups, kernel, strides, pads, dilations = LAYERS[name]
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(dtype)
    weight = rng.standard_normal((outputs, shape[1] // groups, *kernel)).astype(dtype)
    bias = rng.standard_normal(outputs).astype(dtype)
    attributes = {"kernel_shape": kernel, "strides": strides, "pads": pads, "dilations": dilations, "group": groups, "activation": "relu"}
    shapes = {"X": shape, "W": weight.shape, "B": bias.shape}
    model = single_node_model(SPEC, shapes, attributes, {"T": dtype}, constants={"W": weight, "B": bias})
    (got,) = deploydcn.load(model, threads=2).run({"X": x}).values()
    top, left, bottom, right = pads
    padded = torch.nn.functional.pad(torch.from_numpy(x).double(), (left, right, top, bottom))
    values = [torch.from_numpy(array).double() for array in (weight, bias)]
    wanted = torch.relu(torch.nn.functional.conv2d(padded, *values, strides, 0, dilations, groups)).numpy()
    scale = np.abs(wanted).max()
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() / scale < (1e-6 if dtype == "float32" else 6e-4)  # sums in float32, then one rounding
