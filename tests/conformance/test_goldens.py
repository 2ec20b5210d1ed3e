"""Published implementations' own outputs (goldens/README.md) against the reference and every backend."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deploydcn.ops import op_named
from deploydcn.testing import run_plugin
from tests.conformance.backends import BACKENDS
from tests.conformance.tolerances import relative_error

GOLDENS = sorted(Path(__file__).with_name("goldens").glob("*.npz"))
INPUT_NAMES = {"in_input": "X", "in_weight": "W", "in_offset": "offset", "in_bias": "B", "in_mask": "mask"}

# float32 sums without fused multiply-add on the published side; big_coord: 600 px in float32 coordinates there.
TOLERANCE, TOLERANCE_BIG_COORDINATES = 5e-6, 3e-5


def test_all_goldens_are_here() -> None:
    assert len(GOLDENS) == 30


EMULATED = [
    pytest.param(f"plugin_{engine}", marks=[pytest.mark.backend("emulation"), pytest.mark.slow]) for engine in ("source", "ptx75", "ptx80")
]


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem.partition("__")[2])
@pytest.mark.parametrize("backend", ["reference", *BACKENDS, *EMULATED])
def test_equals_published_output(path: Path, backend: str) -> None:
    with np.load(path, allow_pickle=False) as data:
        arrays = {name: data[name] for name in data.files}
    published = json.loads(str(arrays["attrs"]))
    inputs = {ours: arrays[theirs] for theirs, ours in INPUT_NAMES.items() if theirs in arrays}
    pad_h, pad_w = published["pad"]
    attributes = {
        "strides": tuple(published["stride"]),
        "pads": (pad_h, pad_w, pad_h, pad_w),
        "dilations": tuple(published["dilation"]),
        "group": published["group"],
        "offset_group": published["offset_group"],
    }
    op = op_named("DeformConv2d")
    if backend == "reference":
        got = op.reference(inputs, attributes)[0]
    elif backend.startswith("plugin_"):
        got = run_plugin("DeformConv2d", inputs, attributes, engine=backend.removeprefix("plugin_"))[0]  # type: ignore[arg-type]
    else:
        got = BACKENDS[backend](op, inputs, attributes, {"T": "float32", "T1": "float32"})[0]
    outputs = [name for name in arrays if name.startswith("out_")]
    assert outputs
    tolerance = TOLERANCE_BIG_COORDINATES if "big_coord" in path.stem else TOLERANCE
    for name in outputs:
        assert relative_error(got, arrays[name]) <= tolerance, name
