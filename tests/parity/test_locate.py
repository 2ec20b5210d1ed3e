"""The first layer that computes something else: found in small graphs, with every way in which two sides can be matched."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import helper

import deploydcn
from deploydcn.errors import InvalidArgument, RuntimeFailure
from deploydcn.parity import Location, ParityReport
from deploydcn.parity.locate import locate
from tests.parity.graphs import FusingRuntime, change_weight, node_named, residual_network

pytestmark = pytest.mark.backend("ort")


def located(report: ParityReport) -> Location:
    assert report.location is not None
    json.dumps(report.to_json(), allow_nan=False)
    return report.location


def steps(location: Location) -> list[str]:
    assert location.finding is not None, location.explanation
    return [operator.name for operator in location.finding.layer.operators]


def test_a_changed_weight_is_found_and_named() -> None:
    good = residual_network()
    report = deploydcn.verify(good, change_weight(good, "w3", 1.01), locate=True)
    location = located(report)
    assert not report.passed
    assert location.verdict == "layer"
    assert steps(location) == ["conv3"]
    assert location.finding is not None
    assert location.finding.differences[0].startswith("conv3: w3 has numbers up to")
    assert list(location.finding.before) == ["relu2_out"]
    assert location.finding.before["relu2_out"] == 0
    assert location.finding.layer.accumulated_error == pytest.approx(location.finding.layer.local_error)
    assert set(location.finding.statistics) == {"expected", "got", "accumulated"}
    errors = {layer.name: layer.accumulated_error for layer in location.layers}
    assert [name for name in errors if errors[name]] == list(errors)[list(errors).index("conv3_out") :]


def test_the_first_of_two_faults_is_found_although_the_second_is_larger() -> None:
    good = residual_network()
    location = located(deploydcn.verify(good, change_weight(change_weight(good, "w4", 3), "w1", 1.01), locate=True))
    assert steps(location) == ["conv1"]
    assert [layer.name for layer in location.contributors] == ["conv4_out", "conv1_out"]


def test_equal_models_have_no_finding() -> None:
    location = located(deploydcn.verify(residual_network(), residual_network(), locate=True))
    assert location.verdict == "agree"
    assert location.finding is None
    assert len(location.layers) == 16
    assert max(layer.accumulated_error for layer in location.layers) == 0


def test_a_fault_in_a_branch_that_no_failing_output_reads_is_not_blamed() -> None:
    """Layer 5 is changed for a second output only that agrees all the same; the first output differs by layer 2."""
    good = residual_network()
    good.graph.node.append(helper.make_node("Mul", ["conv1_out", "zero"], ["hidden"], name="hide"))
    good.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1, np.float32), "zero"))
    good.graph.node.append(helper.make_node("Sin", ["conv0_out"], ["side"], name="side"))
    good.graph.node.append(helper.make_node("Mul", ["side", "hidden"], ["z"], name="product"))
    good.graph.output.append(helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, (1, 4, 8, 8)))
    bad = change_weight(good, "w4", 1.1)
    node_named(bad, "side").op_type = "Cos"
    assert steps(located(deploydcn.verify(good, bad, locate=True))) == ["conv4"]


@pytest.mark.parametrize("renamed", ["values", "values and nodes between"])
def test_graphs_without_common_names_are_matched_by_structure(renamed: str) -> None:
    """As two exporters write one model; one of them with a Cast back and forth in the middle."""
    good, bad = residual_network(), change_weight(residual_network(prefix="other_"), "other_w3", 1.01)
    if renamed == "values and nodes between":
        at = list(bad.graph.node).index(node_named(bad, "other_conv2"))
        bad.graph.node.insert(at, helper.make_node("Neg", ["other_add1_out"], ["minus"], name="minus"))
        bad.graph.node.insert(at + 1, helper.make_node("Neg", ["minus"], ["plus"], name="plus"))
        node_named(bad, "other_conv2").input[0] = "plus"
    location = located(deploydcn.verify(good, bad, locate=True))
    assert steps(location) == ["other_conv3"]
    assert {layer.matched_by for layer in location.layers} == {"output", "topology"}


def test_names_that_mean_other_layers_are_not_believed() -> None:
    """Exporters number values: here the numbers are shifted by one between two files of the same modules."""

    def numbered(first: int) -> onnx.ModelProto:
        model = residual_network()
        names = {f"{kind}{index}_out" for index in range(6) for kind in ("conv", "relu", "add")}
        order = [name for node in model.graph.node for name in node.output if name in names]
        for node in model.graph.node:
            path = f"'', 'block{node.name[-1]}', 'block{node.name[-1]}.{node.name}', 'op'"
            node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=f"[{path}]")
            for field in (node.input, node.output):
                field[:] = [f"val_{order.index(name) + first}" if name in order else name for name in field]
        return model

    location = located(deploydcn.verify(numbered(0), change_weight(numbered(1), "w3", 1.01), locate=True))
    assert steps(location) == ["conv3"]
    assert location.finding is not None
    assert (location.finding.layer.reference, location.finding.layer.name) == ("val_7", "val_8")
    assert len(location.layers) == 16


@pytest.mark.parametrize("limit", [1 << 30, 8000, 1])
def test_memory_is_bounded_by_chunks(limit: int) -> None:
    """A tensor here has 1 KiB. Where not even one layer fits, layers go one by one."""
    good = residual_network(12)
    report = deploydcn.verify(good, change_weight(good, "w7", 1.01), locate=True, memory_limit=limit)
    location = located(report)
    assert steps(location) == ["conv7"]
    one_layer = 4 * 1024  # an addition: two tensors that feed it, itself, and the candidate's
    assert 0 < location.peak_bytes <= max(limit, one_layer)
    assert (location.peak_bytes > 8000) == (limit > 8000)


def test_small_differences_everywhere_add_up_and_no_layer_is_blamed() -> None:
    good = residual_network(30)
    bad = good
    for index in range(30):
        bad = change_weight(bad, f"w{index}", 1 + 2e-5)
    report = deploydcn.verify(good, bad, locate=True)
    assert not report.passed
    location = located(report)
    assert location.verdict == "accumulated"
    assert location.finding is None
    assert 1e-6 < location.noise < 1e-4
    growth = [layer.accumulated_error for layer in location.layers if layer.name.startswith("add")]
    assert growth[-1] > 3 * growth[0]


def test_coarse_numbers_everywhere_are_nobodys_fault() -> None:
    """As of an 8-bit model: every activation is rounded to a grid, some more than others; a real fault among them still is one."""
    good = residual_network(12)
    coarse = onnx.ModelProto()
    coarse.CopyFrom(good)
    for index in range(12):
        coarse.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.05 if index % 3 else 0.08), f"step{index}"))
        coarse.graph.initializer.append(onnx.numpy_helper.from_array(np.uint8(0), f"zero{index}"))
        at = list(coarse.graph.node).index(node_named(coarse, f"relu{index}"))
        coarse.graph.node[at].output[0] = f"fine{index}"
        scale = [f"step{index}", f"zero{index}"]
        quantize = helper.make_node("QuantizeLinear", [f"fine{index}", *scale], [f"grid{index}"], name=f"quantize{index}")
        coarse.graph.node.insert(at + 1, quantize)
        back = helper.make_node("DequantizeLinear", [f"grid{index}", *scale], [f"relu{index}_out"], name=f"dequantize{index}")
        coarse.graph.node.insert(at + 2, back)
    report = deploydcn.verify(good, coarse, locate=True)
    assert not report.passed
    assert located(report).verdict == "accumulated"
    location = located(deploydcn.verify(good, change_weight(coarse, "w5", -1), locate=True))
    assert steps(location) == ["conv5"]


@pytest.mark.parametrize("faulty", ["conv0", "conv3", "conv4", "conv11"])
def test_a_fault_that_vanishes_when_observed_is_found_by_bisection(faulty: str) -> None:
    good = residual_network(12)
    report = deploydcn.verify(deploydcn.load(good), FusingRuntime(good, (faulty,)), locate=True)
    assert not report.passed
    location = located(report)
    assert location.verdict == "unobserved"
    assert "vanishes" in location.explanation
    assert steps(location) == [faulty, faulty.replace("conv", "relu")]
    assert location.finding is not None
    assert location.finding.layer.local_error > 1e-3  # run by themselves, with nothing observed between, the two still differ
    assert max(layer.accumulated_error for layer in location.layers) < 1e-5  # what observing everything shows


def test_a_fault_that_needs_no_fusion_is_not_called_one() -> None:
    good = residual_network()
    location = located(deploydcn.verify(good, FusingRuntime(change_weight(good, "w2", 1.01), ()), locate=True))
    assert (location.verdict, steps(location)) == ("layer", ["conv2"])


def test_a_model_that_does_not_run_is_located_too() -> None:
    """Of dynamic size, so that it loads: its shapes contradict each other only when there are some."""
    good = residual_network()
    for value in (*good.graph.input, *good.graph.output):
        value.type.tensor_type.shape.dim[2].dim_param = "h"
        value.type.tensor_type.shape.dim[3].dim_param = "w"
    bad = onnx.ModelProto()
    bad.CopyFrom(good)
    node_named(bad, "conv3").attribute.append(helper.make_attribute("strides", [2, 2]))
    shapes = {"x": (1, 4, 8, 8)}
    with pytest.raises(RuntimeFailure):
        deploydcn.verify(good, bad, shapes=shapes)
    report = deploydcn.verify(good, bad, shapes=shapes, locate=True)
    location = located(report)
    assert not report.passed
    assert steps(location) == ["conv3"]
    assert location.finding is not None
    assert "shape [1, 4, 4, 4], wanted [1, 4, 8, 8]" in location.explanation
    assert "conv3: strides is [2, 2], in the reference None" in location.finding.differences


def test_values_that_numpy_has_no_type_for_are_looked_through() -> None:
    """bfloat16 and sequences inside: the layer that is found begins before them."""
    good = residual_network(4)
    at = list(good.graph.node).index(node_named(good, "conv2"))
    steps_between = [
        helper.make_node("Cast", ["add1_out"], ["narrow"], name="narrow", to=onnx.TensorProto.BFLOAT16),
        helper.make_node("Cast", ["narrow"], ["wide"], name="wide", to=onnx.TensorProto.FLOAT),
        helper.make_node("SplitToSequence", ["wide"], ["pieces"], name="pieces", axis=1),
        helper.make_node("ConcatFromSequence", ["pieces"], ["whole"], name="whole", axis=1),
    ]
    for node in reversed(steps_between):
        good.graph.node.insert(at, node)
    node_named(good, "conv2").input[0] = "whole"
    bad = onnx.ModelProto()
    bad.CopyFrom(good)
    node_named(bad, "pieces").attribute[0].i = 2
    node_named(bad, "pieces").attribute.append(helper.make_attribute("keepdims", 1))
    location = located(deploydcn.verify(good, bad, locate=True, dtype="bfloat16"))
    assert steps(location) == ["pieces", "whole"]


def test_runners_that_show_outputs_only_are_named() -> None:
    class Engine:
        name, inputs, outputs = "an engine", deploydcn.load(residual_network()).inputs, ()

        def run(self, inputs: object) -> dict[str, np.ndarray]:
            return {"y": np.zeros((1, 4, 8, 8), np.float32)}

    location = located(deploydcn.verify(residual_network(), Engine(), locate=True))
    assert location.verdict == "outputs only"
    assert "an engine shows no tensors but its outputs; locate in the ONNX file that it was built from" in location.explanation


def test_models_with_nothing_in_common_are_said_to_have_nothing_in_common() -> None:
    other = helper.make_graph(
        [helper.make_node("Sin", ["x"], ["y"])],
        "other",
        residual_network().graph.input,
        residual_network().graph.output,
    )
    model = helper.make_model(other, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    location = located(deploydcn.verify(residual_network(), model, locate=True))
    assert location.verdict == "outputs only"
    assert "share no names, modules or structure" in location.explanation


def test_outputs_of_different_lengths_are_located() -> None:
    """A list of places whose length depends on the numbers, as of a detector's boxes."""

    def places(threshold: float) -> onnx.ModelProto:
        ends = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 4, 8, 8))]
        ends.append(helper.make_tensor_value_info("places", onnx.TensorProto.INT64, (4, "count")))
        nodes = [
            helper.make_node("Tanh", ["x"], ["scores"], name="scores"),
            helper.make_node("Greater", ["scores", "threshold"], ["chosen"], name="choose"),
            helper.make_node("NonZero", ["chosen"], ["places"], name="list"),
        ]
        constant = onnx.numpy_helper.from_array(np.float32(threshold), "threshold")
        graph = helper.make_graph(nodes, "places", ends[:1], ends[1:], [constant])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    report = deploydcn.verify(places(0.5), places(0.4), locate=True)
    assert not report.passed
    assert report.worst[1].mismatch.startswith("shape [4, ")
    location = located(report)
    assert steps(location) == ["choose"]
    assert location.finding is not None
    assert "whole numbers differ" in location.explanation
    assert location.finding.differences == ("choose: threshold has numbers up to 0.1 off",)


def test_bad_arguments() -> None:
    model = residual_network()
    model.graph.output.append(helper.make_tensor_value_info("relu1_out", onnx.TensorProto.FLOAT, (1, 4, 8, 8)))
    with pytest.raises(InvalidArgument, match="the reference has 1 outputs"):
        deploydcn.verify(residual_network(), model, locate=True)
    runner = deploydcn.load(residual_network())
    feeds = {"x": np.zeros((1, 4, 8, 8), np.float32)}
    assert locate(runner, runner, feeds, feeds, failed=False, tolerance=1e-4).verdict == "agree"
