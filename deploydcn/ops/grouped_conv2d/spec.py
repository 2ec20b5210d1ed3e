"""GroupedConv2d: grouped, depthwise and dilated convolution with a fused activation."""

from __future__ import annotations

from deploydcn.ops.activations import ACTIVATION
from deploydcn.ops.window import OUTPUT_SIZES, WINDOW
from deploydcn.spec import OpSpec, Tensor

SPEC = OpSpec(
    name="GroupedConv2d",
    snake_name="grouped_conv2d",
    doc=(
        "Two-dimensional convolution in `group` groups (group = C: depthwise). The receptive field of a dilated kernel is "
        "KH + (KH - 1)*(DH - 1). Same signature as ONNX Conv with explicit pads, plus `activation`."
    ),
    attributes=(*WINDOW, ACTIVATION),
    inputs=(
        Tensor("X", ("N", "C", "H", "W"), python_name="input"),
        Tensor("W", ("M", "C//G", "KH", "KW"), python_name="weight"),
        Tensor("B", ("M",), optional=True, python_name="bias"),
    ),
    outputs=(Tensor("Y", ("N", "M", "OH", "OW"), python_name="output"),),
    type_rows=({"T": "float32"}, {"T": "float64"}, {"T": "float16"}, {"T": "bfloat16"}),
    sizes=OUTPUT_SIZES,
    divisible=(("C", "G"), ("M", "G")),
    at_least={"C": 1, "H": 1, "W": 1, "M": 1, "KH": 1, "KW": 1, "OH": 1, "OW": 1},
    standard_op="Conv",
)
