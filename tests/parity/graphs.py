"""Small ONNX graphs, and a runtime with a fault that shows only where it fuses."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from deploydcn.runners import TensorInfo, load
from deploydcn.runners.base import Inputs

CHANNELS = 4


def residual_network(layers: int = 6, *, seed: int = 0, prefix: str = "") -> onnx.ModelProto:
    """conv0 -> relu0 -> ... with an addition around every second layer; inputs x (1, 4, 8, 8), output y."""
    rng = np.random.default_rng(seed)
    nodes, weights, value, kept = [], [], "x", "x"
    for index in range(layers):
        names = [f"{prefix}{kind}{index}" for kind in ("conv", "relu", "add")]
        kernel = rng.standard_normal((CHANNELS, CHANNELS, 3, 3)).astype(np.float32) / 6
        bias = rng.standard_normal(CHANNELS).astype(np.float32) / 10
        weights += [numpy_helper.from_array(kernel, f"{prefix}w{index}"), numpy_helper.from_array(bias, f"{prefix}b{index}")]
        inputs = [value, f"{prefix}w{index}", f"{prefix}b{index}"]
        nodes.append(helper.make_node("Conv", inputs, [f"{names[0]}_out"], name=names[0], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"{names[0]}_out"], [f"{names[1]}_out"], name=names[1]))
        value = f"{names[1]}_out"
        if index % 2:
            nodes.append(helper.make_node("Add", [value, kept], [f"{names[2]}_out"], name=names[2]))
            value = kept = f"{names[2]}_out"
    nodes.append(helper.make_node("Identity", [value], ["y"], name=f"{prefix}end"))
    sizes = (1, CHANNELS, 8, 8)
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sizes) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "residual", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def node_named(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def weight_of(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def change_weight(model: onnx.ModelProto, name: str, factor: float) -> onnx.ModelProto:
    """A copy with one weight scaled."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensor = weight_of(copy, name)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), name))
    return copy


class FusingRuntime:
    """ONNX Runtime, except that it "fuses" a convolution with the Relu after it where nobody else reads what is in between, and that the
    fused form of the layers named in `faulty` has another bias. It is what a fusion bug looks like from outside."""

    def __init__(self, model: onnx.ModelProto, faulty: tuple[str, ...]) -> None:
        self._model, self._faulty = model, faulty
        fused = onnx.ModelProto()
        fused.CopyFrom(model)
        outputs = {value.name for value in model.graph.output}
        for node in fused.graph.node:
            readers = [other.op_type for other in fused.graph.node if node.output[0] in other.input]
            if node.name in faulty and readers == ["Relu"] and node.output[0] not in outputs:
                bias = numpy_helper.to_array(weight_of(fused, node.input[2]))
                fused.graph.initializer.append(numpy_helper.from_array(bias + np.float32(0.05), f"{node.name}.fused"))
                node.input[2] = f"{node.name}.fused"
        self._runner = load(fused, "ort")
        self.name = "a fusing runtime"
        self.inputs: tuple[TensorInfo, ...] = self._runner.inputs
        self.outputs: tuple[TensorInfo, ...] = self._runner.outputs

    def run(self, inputs: Inputs) -> dict[str, np.ndarray]:
        return self._runner.run(inputs)

    def onnx_model(self) -> onnx.ModelProto:
        return self._model

    def reopen(self, model: onnx.ModelProto) -> FusingRuntime:
        return FusingRuntime(model, self._faulty)
