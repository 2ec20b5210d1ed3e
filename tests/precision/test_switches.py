"""Roundings behind switches, and files in half precision computed in float32: against rounding by hand."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import deploydcn
from deploydcn.precision.emulation import in_float32
from deploydcn.precision.half import HalfLowering
from deploydcn.precision.switches import switched
from tests.convert.helpers import drawn, node

pytestmark = pytest.mark.backend("ort")

NUMPY = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
X = drawn(1, 3, 4, 5)
W1, W2 = drawn(4, 3, 1, 1, seed=1), drawn(4, 4, 1, 1, seed=2)
EXACT_TO = 1e-6
"""Relative to the largest: sums of 3 and 4 products in another order."""


def two_layers(path: Path, scale: float = 1.0) -> Path:
    """A pointwise convolution, a Relu, and another whose inputs are as large as `scale`."""
    nodes = [node("Conv", ["x", "w1"], ["a"], name="first"), node("Relu", ["a"], ["b"], name="clamp")]
    nodes.append(node("Conv", ["b", "w2"], ["y"], name="second"))
    graph = helper.make_graph(
        nodes,
        "two_layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(X.shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 4, 5])],
        [onnx.numpy_helper.from_array(W1 * np.float32(scale), "w1"), onnx.numpy_helper.from_array(W2, "w2")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10), path)
    return path


def pointwise(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.einsum("nchw,oc->nohw", x, weight[:, :, 0, 0])


@pytest.mark.parametrize("dtype", NUMPY)
def test_each_switch_rounds_one_thing(tmp_path: Path, dtype: str) -> None:
    def low(array: np.ndarray) -> np.ndarray:
        return array.astype(NUMPY[dtype]).astype(np.float32)

    lowering = HalfLowering(two_layers(tmp_path / "float.onnx"), dtype)
    model = switched(lowering)
    exact = pointwise(np.maximum(pointwise(X, W1), 0), W2)
    # Of a Relu's rounded input the output is rounded: it has no switch of its own. The graph's output is one of float32 inputs' making.
    wanted = {
        ("x", False): pointwise(np.maximum(pointwise(low(X), W1), 0), W2),
        ("a", True): pointwise(np.maximum(pointwise(X, low(W1)), 0), W2),
        ("a", False): pointwise(np.maximum(low(pointwise(X, W1)), 0), W2),
        ("y", True): pointwise(np.maximum(pointwise(X, W1), 0), low(W2)),
        ("y", False): low(exact),
    }
    places = [(source.value, bool(source.constants)) for source in lowering.sources]
    assert sorted(places) == sorted(wanted)
    limit = EXACT_TO * np.abs(exact).max()
    assert np.abs(model.run({"x": X}, ())["y"] - exact).max() <= limit
    for index, place in enumerate(places):
        got = model.run({"x": X}, (index,))["y"]
        slack = np.abs(exact).max() * float(ml_dtypes.finfo(NUMPY[dtype]).eps) if place in (("y", False), ("a", False)) else 0.0
        assert np.abs(got - exact).max() > 10 * limit
        assert np.abs(got - wanted[place]).max() <= limit + slack  # a number between two others may round either way


@pytest.mark.parametrize("dtype", NUMPY)
def test_all_switches_together_are_the_converted_file(tmp_path: Path, dtype: str) -> None:
    lowering = HalfLowering(two_layers(tmp_path / "float.onnx"), dtype)
    got = switched(lowering).run({"x": X}, lowering.active(()))["y"]
    lowering.write(tmp_path / "half.onnx", ())
    assert np.array_equal(lowering.load(tmp_path / "half.onnx").run({"x": X})["y"], got)


def test_float16_overflows_where_onnxruntime_does_not_let_it(tmp_path: Path) -> None:
    """ONNX Runtime computes float16 in float32 on processors: what it measures is not what a GPU computes."""
    deploydcn.convert_precision(two_layers(tmp_path / "float.onnx", scale=1e5), tmp_path / "half.onnx", exclude=["first"])
    assert not np.all(np.isfinite(deploydcn.load(in_float32(tmp_path / "half.onnx")).run({"x": X})["y"]))


def test_excluded_nodes_are_not_rounded(tmp_path: Path) -> None:
    lowering = HalfLowering(two_layers(tmp_path / "float.onnx"), "float16")
    left = {(lowering.sources[index].value, bool(lowering.sources[index].constants)) for index in lowering.active(["first", "clamp"])}
    assert left == {("a", False), ("y", True), ("y", False)}
    assert not lowering.active(["first", "clamp", "second"])


def test_constants_of_operators_without_float_results_are_chosen_too(tmp_path: Path) -> None:
    """A threshold that half precision cannot hold: numbers between it and what it is rounded to are above only one of the two."""
    threshold = np.float32(0.1)
    rounded = np.float32(np.float16(threshold))
    nodes = [node("Conv", ["x", "w"], ["a"], name="conv"), node("Greater", ["a", "threshold"], ["above"], name="compare")]
    nodes.append(node("Where", ["above", "a", "floor"], ["y"], name="clamp"))
    weights = {"w": np.ones((1, 1, 1, 1), np.float32), "threshold": threshold, "floor": np.float32(-1)}
    graph = helper.make_graph(
        nodes,
        "threshold",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 1, 3])],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10), tmp_path / "m.onnx")
    lowering = HalfLowering(tmp_path / "m.onnx", "float16")
    model = switched(lowering)
    between = np.float32((float(threshold) + float(rounded)) / 2)
    x = np.float32([0.05, between, 0.2]).reshape(1, 1, 1, 3)
    (index,) = [at for at, source in enumerate(lowering.sources) if source.value == "above" and source.constants]
    sides = [float(model.run({"x": x}, on)["y"][0, 0, 0, 1]) for on in ((), (index,))]
    assert sides == [float(between) if between > limit else -1.0 for limit in (threshold, rounded)]
    assert sides[0] != sides[1]
