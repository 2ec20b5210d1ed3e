"""SeparableConv2d: depthwise convolution, then a pointwise one, in one operator."""

from __future__ import annotations

from dataclasses import replace

from deploydcn.ops.activations import ACTIVATION
from deploydcn.ops.window import DILATIONS, KERNEL_SHAPE, OUTPUT_SIZES, PADS, STRIDES
from deploydcn.spec import OpSpec, Tensor

SPEC = OpSpec(
    name="SeparableConv2d",
    snake_name="separable_conv2d",
    doc=(
        "Depthwise separable convolution (Chollet 2017): every channel of X is convolved with D/C windows of its own, "
        "Z[n, d] = depthwise_activation(sum over taps of depthwise_W[d, 0, i, j] * X[n, d//(D//C), oh*SH - PT + i*DH, "
        "ow*SW - PL + j*DW] + depthwise_B[d]), and the D results are mixed pixel by pixel, Y[n, m] = activation(sum over d of "
        "pointwise_W[m, d] * Z[n, d] + pointwise_B[m]). Z never exists in full. As ONNX Conv with group = C and Conv with a "
        "1x1 window. The CPU kernel keeps Z in float32 at least; GPU kernels round it to T for the tensor cores, so that in float16 "
        "it must stay below 65520, as between two operators."
    ),
    attributes=(
        KERNEL_SHAPE,
        STRIDES,
        PADS,
        DILATIONS,
        replace(
            ACTIVATION,
            name="depthwise_activation",
            python_name="depthwise_activation",
            doc="applied between the two convolutions; choices as for activation",
        ),
        ACTIVATION,
    ),
    inputs=(
        Tensor("X", ("N", "C", "H", "W"), python_name="input"),
        Tensor("depthwise_W", ("D", "1", "KH", "KW"), python_name="depthwise_weight"),
        Tensor("pointwise_W", ("M", "D", "1", "1"), python_name="pointwise_weight"),
        Tensor("depthwise_B", ("D",), optional=True, python_name="depthwise_bias"),
        Tensor("pointwise_B", ("M",), optional=True, python_name="bias"),
    ),
    outputs=(Tensor("Y", ("N", "M", "OH", "OW"), python_name="output"),),
    type_rows=({"T": "float32"}, {"T": "float64"}, {"T": "float16"}, {"T": "bfloat16"}),
    sizes=OUTPUT_SIZES,
    divisible=(("D", "C"),),
    at_least={"C": 1, "H": 1, "W": 1, "D": 1, "M": 1, "KH": 1, "KW": 1, "OH": 1, "OW": 1},
)
