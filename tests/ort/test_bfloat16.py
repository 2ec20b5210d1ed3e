"""The session option that lets products round to bfloat16."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from deploydcn.libraries import BFLOAT16, BFLOAT16_ISAS, cpu_isa, ort_library_path
from deploydcn.ops import op_named
from deploydcn.runners import load
from tests.conformance.single_node import single_node_model


def test_sessions_with_and_without_live_side_by_side() -> None:
    rng = np.random.default_rng(0)
    shapes = {"X": (1, 64, 9, 9), "W": (64, 64, 3, 3), "offset": (1, 18, 9, 9)}
    inputs = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    model = single_node_model(op_named("DeformConv2d").spec, shapes, {"pads": (1, 1, 1, 1)}, {"T": "float32", "T1": "float32"})
    rounded, exact = load(model, "ort", bfloat16=True), load(model, "ort")
    difference = np.abs(rounded.run(inputs)["Y"] - exact.run(inputs)["Y"]).max() / np.abs(exact.run(inputs)["Y"]).max()
    if cpu_isa() in BFLOAT16_ISAS:
        assert 1e-4 < difference < 4e-3
    else:
        assert difference == 0


def test_another_value_is_refused() -> None:
    options = ort.SessionOptions()
    options.add_session_config_entry(BFLOAT16, "yes")
    with pytest.raises(Exception, match=r"deploydcn.bfloat16 is 'yes'; wanted 0 or 1"):
        options.register_custom_ops_library(str(ort_library_path()))
