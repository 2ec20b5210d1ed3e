"""The operators' conformance tables in core ONNX operators of opset 16, run by onnxruntime as it comes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from deploydcn.export.targets import TARGETS
from deploydcn.onnx_schema import register_schemas
from deploydcn.ops import OPS, Op, op_named
from deploydcn.ops.case import Case
from tests.conformance.single_node import is_constant, single_node_model
from tests.conformance.test_conformance import inputs_of
from tests.conformance.test_random import random_configuration
from tests.conformance.tolerances import TOLERANCE, largest_error

pytestmark = pytest.mark.backend("ort")

OPSET = 16
NOT_RUN_BY_ORT = {"grouped_conv2d": {"float64"}, "separable_conv2d": {"float64"}}  # its CPU provider has no Conv in float64


# QLinearDeformConv2d rounds its samples, its form with Q and DQ nodes does not: every sample off by up to a half makes a unit or two of
# the output's scale in these rows (see `scale_of_input`), in a good part of the elements. Samples that saturate are another thing.
UNROUNDED_SAMPLES = 3.0
SATURATING = {"mask_large", "mask_not_finite"}

# ONNX Runtime's MatMul adds up the 65025 samples of a bin in one float32.
ITS_OWN_SUM = {"many_samples": 1e-3}

FAST_CASES = 10  # of every operator, in float32


def portable(op: Op, inputs: Mapping[str, np.ndarray], attributes: Mapping[str, Any], types: Mapping[str, str]) -> list[np.ndarray]:
    """Weights constant, every other size symbolic, run without our library."""
    register_schemas()
    constants = {name: value for name, value in inputs.items() if is_constant(name)}
    shapes = {name: value.shape if name in constants else tuple(f"{name}{i}" for i in range(value.ndim)) for name, value in inputs.items()}
    if op.spec.name == "SeparableConv2d":  # its weights do not tell how many channels the input has
        shapes["X"] = (shapes["X"][0], inputs["X"].shape[1], *shapes["X"][2:])
    proto = single_node_model(op.spec, shapes, attributes, types, constants=constants, opset=OPSET)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    TARGETS["portable"].rewrite(model)
    assert all(node.domain == "" for node in model.graph.all_nodes())
    del model.opset_imports["deploydcn"]
    result = ir.to_proto(model)
    onnx.checker.check_model(result, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(result.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {name: value.astype(np.float32) if value.dtype == ml_dtypes.bfloat16 else value for name, value in inputs.items()}
    return [np.asarray(value) for value in session.run(None, {name: feeds[name] for name in inputs if name not in constants})]


def rows() -> Iterator[object]:
    for op in OPS:
        for types in op.spec.type_rows:
            label = "_".join(dict.fromkeys(types.values()))
            if types["T"] in NOT_RUN_BY_ORT.get(op.spec.snake_name, ()):
                continue
            for index, case in enumerate(op.cases):
                if op.spec.name == "QLinearDeformConv2d" and case.id in SATURATING:
                    continue
                fast = set(types.values()) <= {"float32", "int64"} and index < FAST_CASES
                marks = [] if fast else [pytest.mark.slow]
                yield pytest.param(op, case, types, id=f"{op.spec.snake_name}-{case.id}-{label}", marks=marks)


@pytest.mark.parametrize(("op", "case", "types"), rows())
def test_equals_reference(op: Op, case: Case, types: Mapping[str, str]) -> None:
    inputs = inputs_of(op, case, types)
    got, wanted = portable(op, inputs, case.attributes, types), op.reference(inputs, case.attributes)
    if op.spec.name == "QLinearDeformConv2d":
        assert np.abs(got[0].astype(np.float64) - wanted[0]).max(initial=0) <= UNROUNDED_SAMPLES
        return
    error = largest_error(got, wanted)
    assert error <= max(TOLERANCE[types["T"]], ITS_OWN_SUM.get(case.id, 0)), f"{error:.3g} of the largest output; {case.why}"


@pytest.mark.slow
@pytest.mark.parametrize("block", range(4))
def test_random_configurations(block: int) -> None:
    """100 draws of all options at once: groups that do not nest, windows, strides, dilations."""
    op = op_named("DeformConv2d")
    for seed in range(block * 25, block * 25 + 25):
        inputs, attributes = random_configuration(seed)
        got = portable(op, inputs, attributes, {"T": "float32", "T1": "float32"})
        assert largest_error(got, op.reference(inputs, attributes)) <= TOLERANCE["float32"], (seed, attributes)


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[1] / "conformance" / "goldens").glob("deform_conv2d__nan_pixel_*.npz")))
def test_a_pixel_that_is_nan_reaches_its_neighbours_only(path: Path) -> None:
    """Published outputs: a NaN pixel is in the output exactly where the published kernels have it, or at fewer places."""
    with np.load(path, allow_pickle=False) as data:
        names = {"X": "in_input", "W": "in_weight", "offset": "in_offset", "mask": "in_mask", "B": "in_bias"}
        inputs = {ours: data[theirs] for ours, theirs in names.items() if theirs in data.files}
        wanted = data[next(name for name in data.files if name.startswith("out_"))]
    pad = (inputs["offset"].shape[-1] - inputs["X"].shape[-1] + inputs["W"].shape[-1] - 1) // 2
    (got,) = portable(op_named("DeformConv2d"), inputs, {"pads": (pad,) * 4}, {"T": "float32", "T1": "float32"})
    assert np.isnan(wanted).any()
    assert not np.isnan(wanted).all()
    assert largest_error([got], [wanted]) <= TOLERANCE["float32"]
