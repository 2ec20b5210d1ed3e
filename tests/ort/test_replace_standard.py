"""The standard DeformConv, run by our kernel on request: in files made without us, on runtimes that have no kernel for it."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from deploydcn.errors import RuntimeFailure
from deploydcn.ops import op_named
from deploydcn.runners import load
from tests.conformance.single_node import single_node_model
from tests.conformance.tolerances import TOLERANCE, relative_error

pytestmark = pytest.mark.backend("ort")

OP = op_named("DeformConv2d")
CASES = {case.id: case for case in OP.cases if "activation" not in case.attributes}
HAS_NATIVE_KERNEL = tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 25)


def standard_model(case_id: str, dtype: str):
    case = CASES[case_id]
    types = {"T": dtype, "T1": dtype}
    model = single_node_model(OP.spec, case.shapes, case.attributes, types, op_type="DeformConv", domain="")
    import ml_dtypes

    rounded = case.inputs(lambda _: np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype))
    feed = {name: value.astype(np.float32) if dtype == "bfloat16" else value for name, value in rounded.items()}
    return model, feed, OP.reference(rounded, case.attributes)[0]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize(
    "case_id", ["v2_bias", "v1_no_bias", "v2_no_bias", "asym_all", "groups_2_offset_groups_4", "depthwise", "height_1"]
)
def test_our_kernel_runs_the_standard_operator(case_id: str, dtype: str) -> None:
    model, feed, wanted = standard_model(case_id, dtype)
    got = load(model, "ort", replace_standard=True).run(feed)["Y"]
    assert relative_error(got, wanted) <= TOLERANCE[dtype]


def test_it_is_our_kernel_that_runs() -> None:
    """An unsupported configuration gets our message only when replacement is on."""
    model, feed, _ = standard_model("v2_bias", "float32")
    feed["mask"] = feed["mask"][:, :, :-1]
    model.graph.input[4].type.tensor_type.ClearField("shape")
    with pytest.raises(RuntimeFailure, match="DeformConv node 'node': DeformConv2d input mask: dimension 2 is 10; wanted 11"):
        load(model, "ort", replace_standard=True).run(feed)


@pytest.mark.skipif(not HAS_NATIVE_KERNEL, reason="this onnxruntime has no DeformConv of its own")
def test_standard_files_run_without_us() -> None:
    model, feed, wanted = standard_model("asym_all", "float32")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert relative_error(session.run(None, feed)[0], wanted) <= TOLERANCE["float32"]


def test_a_bad_switch_value_is_refused() -> None:
    from deploydcn.libraries import REPLACE_STANDARD, ort_library_path

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(REPLACE_STANDARD, "yes")
    with pytest.raises(Exception, match="replace_standard is 'yes'; wanted 0 or 1"):
        options.register_custom_ops_library(str(ort_library_path()))
