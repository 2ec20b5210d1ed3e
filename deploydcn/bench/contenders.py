"""What runs a convolution: our kernels, ONNX Runtime's own, torch's, OpenVINO's, a dense convolution and a plain matrix product."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper

from deploydcn._lazy import lazy_import
from deploydcn.bench.layers import ConvLayer
from deploydcn.bench.timing import Call
from deploydcn.libraries import BFLOAT16_ISAS, cpu_isa, register_ort_ops

FED = ("X", "columns", "offset", "mask")
"""Inputs that a layer receives."""

# Makes a call that runs with so many threads.
Contender = Callable[[int], Call]

OURS, NATIVE, TORCH, OPENVINO, DENSE, PRODUCT = "deploydcn", "ONNX Runtime", "torch", "OpenVINO", "dense Conv", "matrix product"
OURS_BFLOAT16, OURS_INT8 = "deploydcn bfloat16", "deploydcn int8"
INT8_OUTPUT_SCALE = 5 / 128
NATIVE_SINCE = (1, 25)  # the first ONNX Runtime with a DeformConv of its own


def contenders(layer: ConvLayer, arrays: Mapping[str, np.ndarray]) -> dict[str, Contender]:
    """Those that this machine has, by label. A dense convolution runs where the layer is deformable: it is then another layer."""
    import onnxruntime as ort

    window = layer.attributes
    inputs = ["X", "W", "offset", "B", "mask"] if layer.mask else ["X", "W", "offset", "B"]
    deformable = {**window, "offset_group": layer.offset_groups}
    conv = node_model("Conv", ["X", "W", "B"], arrays, window)
    found: dict[str, Contender] = {}
    if layer.deformable:
        ours = node_model("DeformConv2d", inputs, arrays, deformable, domain="deploydcn")
        found[OURS] = session(ours, arrays)
        if cpu_isa() in BFLOAT16_ISAS:  # elsewhere it is the same
            found[OURS_BFLOAT16] = session(
                node_model("DeformConv2d", inputs, arrays, deformable, domain="deploydcn"), arrays, bfloat16=True
            )
        found[OURS_INT8] = _int8(layer, arrays)
        if version(ort) >= NATIVE_SINCE:
            found[NATIVE] = session(node_model("DeformConv", inputs, arrays, deformable), arrays)
    else:
        found[OURS] = session(node_model("GroupedConv2d", ["X", "W", "B"], arrays, window, domain="deploydcn"), arrays)
    if importlib.util.find_spec("torchvision"):
        found[TORCH] = _torch(layer, arrays)
    if importlib.util.find_spec("openvino"):
        found[OPENVINO] = _openvino(layer, arrays)
    found[DENSE] = session(conv, arrays)
    if layer.groups == 1:
        found[PRODUCT] = _product(layer)
    return found


def version(package: Any) -> tuple[int, int]:
    """Major and minor."""
    major, minor = package.__version__.split(".")[:2]
    return int(major), int(minor)


def node_model(
    op_type: str, inputs: list[str], arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any], *, domain: str = ""
) -> onnx.ModelProto:
    """One node; what is not in FED is a constant of the file, as an export writes it. The output has the type of the first input."""
    fed = [name for name in inputs if name in FED]
    constants = [onnx.numpy_helper.from_array(np.asarray(arrays[name]), name) for name in inputs if name not in FED]
    types = {name: helper.np_dtype_to_tensor_dtype(arrays[name].dtype) for name in fed}
    values = [helper.make_tensor_value_info(name, types[name], arrays[name].shape) for name in fed]
    node = helper.make_node(op_type, inputs, ["Y"], domain=domain, **attributes)
    output = helper.make_tensor_value_info("Y", types[fed[0]], None)
    graph = helper.make_graph([node], "layer", values, [output], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19), helper.make_opsetid("deploydcn", 1)], ir_version=10)


def session(model: onnx.ModelProto | str, arrays: Mapping[str, np.ndarray], *, bfloat16: bool = False) -> Contender:
    """ONNX Runtime, with our operators; inputs and outputs stay where they are from run to run."""

    def make(threads: int) -> Call:
        ort = lazy_import("onnxruntime", extra="cpu")
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        # Threads that wait for work in a loop would take the processor from the next candidate.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        register_ort_ops(options, bfloat16=bfloat16)
        source = model if isinstance(model, str) else model.SerializeToString()
        running = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        feeds = {value.name: arrays[value.name] for value in running.get_inputs()}
        binding = running.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, array)
        outputs = running.run(None, feeds)
        for value, array in zip(running.get_outputs(), outputs, strict=True):
            binding.bind_output(value.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

        def call() -> object:
            running.run_with_iobinding(binding)
            return outputs  # kept alive by it: the binding holds addresses only

        return call

    return make


def _int8(layer: ConvLayer, arrays: Mapping[str, np.ndarray]) -> Contender:
    """QLinearDeformConv2d on the layer's numbers, quantized by their extremes. Its output is quantized too, to +-5 for unit variance."""
    x, weight = arrays["X"], arrays["W"]
    x_scale = np.float32((x.max() - x.min()) / 255)
    zero_point = np.uint8(np.clip(np.rint(-x.min() / x_scale), 0, 255))
    w_scale = np.abs(weight).max((1, 2, 3)) / np.float32(127)
    quantized = {
        "X": np.clip(np.rint(x / x_scale) + zero_point, 0, 255).astype(np.uint8),
        "x_scale": x_scale,
        "x_zero_point": zero_point,
        "W": np.rint(weight / w_scale[:, None, None, None]).astype(np.int8),
        "w_scale": w_scale,
        "y_scale": np.float32(INT8_OUTPUT_SCALE),
        "y_zero_point": np.uint8(128),
        "offset": arrays["offset"],
        "B": np.rint(arrays["B"] / (x_scale * w_scale)).astype(np.int32),
        **({"mask": arrays["mask"]} if layer.mask else {}),
    }
    attributes = {**layer.attributes, "offset_group": layer.offset_groups}
    model = node_model("QLinearDeformConv2d", list(quantized), quantized, attributes, domain="deploydcn")
    return session(model, quantized)


def _openvino(layer: ConvLayer, arrays: Mapping[str, np.ndarray]) -> Contender:
    """OpenVINO's CPU device, in float32. Its own operator: its ONNX reader knows no DeformConv."""

    def make(threads: int) -> Call:
        import openvino
        from openvino import opset15 as ops

        inputs = {name: ops.parameter(array.shape, np.float32, name) for name, array in arrays.items() if name not in ("W", "B")}
        window = ([layer.stride] * 2, [layer.padding] * 2, [layer.padding] * 2, [layer.dilation] * 2)
        weight = arrays["W"]
        if layer.deformable:
            mask = [inputs["mask"]] if layer.mask else []
            result = ops.deformable_convolution(
                inputs["X"], inputs["offset"], ops.constant(weight), *window, *mask, group=layer.groups,
                deformable_group=layer.offset_groups, bilinear_interpolation_pad=True,
            )  # fmt: skip
        elif layer.groups > 1:
            grouped = weight.reshape(layer.groups, -1, *weight.shape[1:])
            result = ops.group_convolution(inputs["X"], ops.constant(grouped), *window)
        else:
            result = ops.convolution(inputs["X"], ops.constant(weight), *window)
        model = openvino.Model([ops.add(result, ops.constant(arrays["B"].reshape(1, -1, 1, 1)))], list(inputs.values()))
        options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
        for index, name in enumerate(inputs):
            request.set_input_tensor(index, openvino.Tensor(arrays[name], shared_memory=True))

        def call() -> object:
            request.infer()
            return request.get_output_tensor(0).data

        return call

    return make


def _torch(layer: ConvLayer, arrays: Mapping[str, np.ndarray]) -> Contender:
    """torchvision's deformable convolution, or torch's convolution."""

    def make(threads: int) -> Call:
        # Read once, when torch is loaded. Its threads would wait in a loop as well, for milliseconds: what runs next at two threads
        # then takes three times as long.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        torch = lazy_import("torch", extra="export")
        import torchvision

        x, weight, bias = (torch.from_numpy(arrays[name]) for name in ("X", "W", "B"))
        window = (layer.stride, layer.padding, layer.dilation)
        offset, mask = (torch.from_numpy(arrays[name]) if name in arrays else None for name in ("offset", "mask"))

        def call() -> object:
            torch.set_num_threads(threads)
            with torch.inference_mode():
                if layer.deformable:
                    return torchvision.ops.deform_conv2d(x, offset, weight, bias, *window, mask=mask)
                return torch.nn.functional.conv2d(x, weight, bias, *window, layer.groups)

        return call

    return make


def _product(layer: ConvLayer) -> Contender:
    """ONNX Runtime's MatMul of the layer's weights and its im2col matrix, which is there already: the limit of methods that build it."""
    rng = np.random.default_rng(1)
    height, width = layer.out_size
    depth = layer.channels * layer.kernel**2
    arrays = {
        "W": rng.standard_normal((layer.outputs, depth)).astype(np.float32),
        "columns": rng.standard_normal((depth, layer.batch * height * width)).astype(np.float32),
    }
    return session(node_model("MatMul", ["W", "columns"], arrays, {}), arrays)
