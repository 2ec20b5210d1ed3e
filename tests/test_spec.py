"""Op specifications: expressions, checks and messages, the same in Python and C++; and every operator's parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import onnx
import pytest
from hypothesis import given

from deploydcn import codegen
from deploydcn.errors import InternalError, InvalidArgument
from deploydcn.onnx_schema import DOMAIN, infer_dimensions, register_schemas
from deploydcn.ops import OPS, Op, op_named
from deploydcn.spec import Expression

ROOT = Path(__file__).resolve().parents[1]
DEFORM = op_named("DeformConv2d").spec
X, W, OFFSET = (1, 8, 9, 10), (4, 8, 3, 3), (1, 18, 7, 8)


# ------------------------------------------------------------------------------------------------------- expressions
@pytest.mark.parametrize("text", ["a + __import__('os')", "a ** 2", "f(a)", "a if b else c", "a.b", "'text'", "1.5 * a", "-a", "a % 2"])
def test_expressions_are_arithmetic_only(text: str) -> None:
    with pytest.raises(InternalError, match="only names, integers"):
        Expression(text).evaluate({"a": 1, "b": 1, "c": 1})


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(1, 9))
def test_expressions_compute_what_python_computes(a: int, b: int, c: int) -> None:
    assert Expression("(a - b*2)//c + a").evaluate({"a": a, "b": b, "c": c}) == (a - b * 2) // c + a


# ----------------------------------------------------------------------------------------------------- bad arguments
BAD = {
    "offset channels": ({"offset": (1, 16, 7, 8)}, {}, "input offset: dimension 1 is 16; wanted 18 = 2*OG*KH*KW (OG=1, KH=3, KW=3)"),
    "offset size": ({"offset": (1, 18, 9, 8)}, {}, "input offset: dimension 2 is 9; wanted 7 = (H + PT + PB"),
    "offset batch": ({"offset": (2, 18, 7, 8)}, {}, "input offset: dimension 0 is 2; wanted 1 = N"),
    "weight channels": ({"W": (4, 7, 3, 3)}, {}, "input W: dimension 1 is 7; wanted 8 = C//G (C=8, G=1); check group"),
    "rank": ({"X": (8, 9, 10)}, {}, "input X has shape [8, 9, 10]; wanted 4 dimensions"),
    "bias": ({"B": (5,)}, {}, "input B: dimension 0 is 5; wanted 4 = M"),
    "mask": ({"mask": (1, 18, 7, 8)}, {}, "input mask: dimension 1 is 18; wanted 9 = OG*KH*KW"),
    "group": ({}, {"group": 3}, "C is 8; wanted a multiple of G = 3"),
    "offset_group": ({}, {"offset_group": 3}, "C is 8; wanted a multiple of OG = 3"),
    "zero group": ({}, {"group": 0}, "attribute group is 0; wanted every element at least 1"),
    "zero stride": ({}, {"strides": (1, 0)}, "attribute strides is [1, 0]; wanted every element at least 1"),
    "negative pad": ({}, {"pads": (0, 0, -1, 0)}, "attribute pads is [0, 0, -1, 0]; wanted every element at least 0"),
    "pads length": ({}, {"pads": (1, 1)}, "attribute pads has 2 elements; wanted 4"),
    "kernel_shape": ({}, {"kernel_shape": (5, 3)}, "input W: dimension 2 is 3; wanted 5 = KH"),
    "activation": ({}, {"activation": "gelu"}, "attribute activation is 'gelu'; wanted one of"),
    "window too large": ({}, {"dilations": (9, 1)}, "OH is -9; wanted at least 1 = (H + PT"),
    "empty image": ({"X": (1, 8, 0, 10)}, {"pads": (2, 0, 2, 0)}, "H is 0; wanted at least 1"),
    "overflow": ({}, {"pads": (2**62, 0, 2**62, 0)}, "a size overflows 64-bit integers"),
}


def shapes_of(changes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {"X": X, "W": W, "offset": OFFSET, **changes}


@pytest.mark.parametrize("name", BAD)
def test_python_names_what_is_wrong(name: str) -> None:
    changes, attributes, message = BAD[name]
    with pytest.raises(InvalidArgument) as raised:
        DEFORM.bind(shapes_of(changes), attributes)
    assert message in str(raised.value)


@pytest.mark.parametrize("name", BAD)
def test_complete_shapes_are_checked_alike_as_known_ones(name: str) -> None:
    changes, attributes, message = BAD[name]
    with pytest.raises(InvalidArgument) as raised:
        DEFORM.check_known(shapes_of(changes), attributes)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "attributes", "message"),
    [
        ({"offset": ("n", 16, None, None)}, {}, "input offset: dimension 1 is 16; wanted 18"),
        ({"W": (4, 7, 3, 3)}, {}, "input W: dimension 1 is 7; wanted 8 = C//G"),
        ({}, {"offset_group": 3}, "C is 8; wanted a multiple of OG = 3"),
        ({"offset": (None, 18, 5, "w"), "mask": (None, 9, 6, "w")}, {}, "input mask: dimension 2 is 6; wanted 5 = (H + PT + PB"),
        ({"X": ("n", 8, 2, "w")}, {}, "OH is 0; wanted at least 1"),
        ({"offset": ("n", 18)}, {}, "input offset has shape ['n', 18]; wanted 4 dimensions"),
    ],
)
def test_partly_known_shapes_are_checked_as_far_as_they_are_known(
    changes: dict[str, Any], attributes: dict[str, Any], message: str
) -> None:
    partial = {"X": ("n", 8, "h", None), "W": W, "offset": ("n", None, None, None)}
    DEFORM.check_known(partial, {})
    with pytest.raises(InvalidArgument) as raised:
        DEFORM.check_known({**partial, **changes}, attributes)
    assert message in str(raised.value)


def test_nothing_known_is_nothing_wrong() -> None:
    DEFORM.check_known({}, {"group": 3})
    DEFORM.check_known({"X": (None,) * 4, "W": (None,) * 4, "offset": (None,) * 4}, {"group": 3, "offset_group": 5})


@pytest.mark.slow
def test_cpp_names_the_same() -> None:
    """The C++ checks are the same spec, interpreted a second time: its messages say the same."""
    from tests.cpp.driver import DriverCase, run_driver

    cases = []
    for changes, attributes, _ in BAD.values():
        arrays = {key: np.zeros(shape, np.float32) for key, shape in shapes_of(changes).items()}
        cases.append(DriverCase(DEFORM, arrays, attributes, {"T": "float32", "T1": "float32"}))
    for name, message in zip(BAD, run_driver(cases, sanitizers="address,undefined"), strict=True):
        with pytest.raises(InvalidArgument) as raised:
            DEFORM.bind(shapes_of(BAD[name][0]), BAD[name][1])
        assert message == str(raised.value)


@pytest.mark.slow
def test_a_size_that_is_a_number_derives_from_nothing() -> None:
    from tests.cpp.driver import DriverCase, run_driver

    spec, types = op_named("MSDeformAttn").spec, {"T": "float32", "T1": "float32", "I": "int64"}
    shapes = {"value": (1, 9, 1, 4), "spatial_shapes": (1, 3), "level_start_index": (1,)}
    shapes |= {"sampling_locations": (1, 1, 1, 1, 1, 2), "attention_weights": (1, 1, 1, 1, 1)}
    with pytest.raises(InvalidArgument) as raised:
        spec.bind(shapes, {})
    assert str(raised.value) == "MSDeformAttn input spatial_shapes: dimension 1 is 3; wanted 2; check the input shapes"
    arrays = {name: np.zeros(shape) for name, shape in shapes.items()}
    assert run_driver([DriverCase(spec, arrays, {}, types)], sanitizers="address,undefined") == [str(raised.value)]


NO_CHANNELS = {"X": (1, 0, 4, 4), "depthwise_W": (4, 1, 3, 3), "pointwise_W": (2, 4, 1, 1)}
TOO_FEW = "SeparableConv2d: C is 0; wanted at least 1 = C; check the input shapes"


def test_an_empty_input_divides_nothing() -> None:
    """D must be a multiple of C, which comes from an input: no attribute's minimum keeps it from being 0."""
    spec = op_named("SeparableConv2d").spec
    for check in (spec.bind, spec.check_known):
        with pytest.raises(InvalidArgument) as raised:
            check(NO_CHANNELS, {})
        assert str(raised.value) == TOO_FEW


@pytest.mark.slow
def test_in_cpp_neither() -> None:
    from tests.cpp.driver import DriverCase, run_driver

    arrays = {name: np.zeros(shape) for name, shape in NO_CHANNELS.items()}
    case = DriverCase(op_named("SeparableConv2d").spec, arrays, {}, {"T": "float32"})
    assert run_driver([case], sanitizers="address,undefined") == [TOO_FEW]


@pytest.mark.slow
def test_cpp_refuses_what_would_overflow_its_indices() -> None:
    from tests.cpp.driver import DriverCase, run_driver

    arrays = {"X": np.zeros((1, 1, 1, 1), np.float32), "W": np.zeros((1, 1, 1, 1), np.float32)}
    for attributes, message in [
        ({"pads": (2**30, 0, 0, 0), "strides": (2**30, 1)}, "the padding is 1073741824; wanted less than 536870912"),
        ({"pads": (2**28, 2**28, 2**28, 2**28)}, "the vertical reach of the window is 536870912; wanted less than 536870912"),
        ({"pads": (2**40, 2**40, 2**40, 2**40)}, "a size overflows 64-bit integers"),
    ]:
        case = DriverCase(op_named("GroupedConv2d").spec, arrays, attributes, {"T": "float64"})
        result = run_driver([case], sanitizers="address,undefined")[0]
        assert isinstance(result, str)
        assert message in result


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="has no input 'Z'"):
        DEFORM.bind({**shapes_of({}), "Z": (1,)}, {})
    with pytest.raises(InvalidArgument, match="has no attribute 'stride'"):
        DEFORM.bind(shapes_of({}), {"stride": (1, 1)})
    with pytest.raises(InvalidArgument, match="input offset is missing"):
        DEFORM.bind({"X": X, "W": W}, {})


# --------------------------------------------------------------------------------------------------- shape inference
def test_unknown_sizes_pass_through_inference() -> None:
    shapes = {"X": ("n", 8, "h", "w"), "W": W, "offset": ("n", 18, "oh", None)}
    assert infer_dimensions(DEFORM, shapes, {}) == [("n", 4, "oh", None)]
    known = {"X": ("n", 8, 9, "w"), "W": W, "offset": ("n", 18, None, None)}
    assert infer_dimensions(DEFORM, known, {}) == [("n", 4, 7, None)]


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.spec.snake_name)
def test_onnx_infers_what_the_reference_returns(op: Op) -> None:
    from tests.conformance.single_node import single_node_model

    register_schemas()
    for case in op.cases:
        model = single_node_model(op.spec, case.shapes, case.attributes, op.spec.type_rows[0])
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        shapes = [tuple(dim.dim_value for dim in output.type.tensor_type.shape.dim) for output in inferred.graph.output]
        types = {tensor.name: np.dtype(op.spec.type_rows[1][tensor.type_param]) for tensor in op.spec.inputs}
        wanted = [output.shape for output in op.reference(case.inputs(types.__getitem__), case.attributes)]
        assert shapes == wanted, case.id


# -------------------------------------------------------------------------------------------------------- completeness
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.spec.snake_name)
def test_operator_has_all_its_parts(op: Op) -> None:
    from deploydcn.nn.eager import IMPLEMENTATIONS

    name = op.spec.snake_name
    folder = ROOT / "plugins" / "ops" / name
    sides = ("cpu.cc", "cpu.h", *(("cuda.cu", "cuda.h") if op.spec.gpu else ()))
    assert {path.name for path in folder.iterdir()} >= {"spec.gen.h", *(f"{name}_{side}" for side in sides)}
    assert {path.name for path in (ROOT / "deploydcn" / "ops" / name).glob("*.py")} == {
        "__init__.py",
        "cases.py",
        "reference.py",
        "spec.py",
    }
    assert f"{name}::kCpuOp" in (ROOT / "plugins" / "ort" / "cpu_ops.cc").read_text()
    for adapter in ("ort/cuda_ops.cc", "tensorrt/register.cc", "harness/run_kernel.cc"):
        assert (f"{name}::kGpuOp" in (ROOT / "plugins" / adapter).read_text()) == op.spec.gpu
    assert op.spec.name in IMPLEMENTATIONS
    register_schemas()
    assert onnx.defs.has(op.spec.name, DOMAIN)
    assert op.spec.doc
    assert op.spec.type_rows


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.spec.snake_name)
def test_committed_cpp_table_is_current(op: Op) -> None:
    assert codegen.header_path(ROOT, op.spec).read_text() == codegen.Writer(op.spec).header(), "run python -m deploydcn.codegen"


def test_documentation_table_is_current() -> None:
    from deploydcn.docs import operators_page

    assert (ROOT / "OPERATORS.md").read_text() == operators_page(), "run python -m deploydcn.docs"


def test_attribute_values_reach_the_fields() -> None:
    given_values: dict[str, Any] = {"strides": [2, 1], "group": 2, "activation": b"relu"}
    complete = DEFORM.complete_attributes(given_values)
    assert complete["strides"] == (2, 1)
    assert complete["activation"] == "relu"
    assert complete["kernel_shape"] is None
    with pytest.raises(InvalidArgument, match="wanted an integer"):
        DEFORM.complete_attributes({"group": 1.5})
