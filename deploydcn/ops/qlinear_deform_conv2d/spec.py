"""QLinearDeformConv2d: deformable convolution of 8-bit integers, as ONNX's QLinearConv is of a convolution."""

from __future__ import annotations

from deploydcn.ops.activations import ACTIVATION
from deploydcn.ops.deform_conv2d.spec import OFFSET_GROUP
from deploydcn.ops.window import OUTPUT_SIZES, WINDOW
from deploydcn.spec import OpSpec, Tensor

MOST_PRODUCTS = (2**31 - 1) // (255 * 128)
"""Products of a sample and a weight whose sum always fits 32 bits."""

SPEC = OpSpec(
    name="QLinearDeformConv2d",
    snake_name="qlinear_deform_conv2d",
    doc=(
        "Deformable convolution of 8-bit data. With xc = X - x_zero_point inside the image and 0 outside, sample s of a tap and channel is "
        "mask * bilinear(xc), at DeformConv2d's positions, rounded half to even and saturated to the range of T minus x_zero_point: a "
        "value of T again, which is what products of 8-bit integers need. Then acc = sum of W * s over taps and channels + B, an exact "
        "integer, y = activation(acc * x_scale * w_scale[m]), and Y = saturate(round(y / y_scale) + y_zero_point), rounding half to even. "
        "A mask that is not finite counts as 0, as does a result that is not a number (0/0); NaN and infinite coordinates sample 0. W is "
        f"symmetric: its zero point is 0. C//G*KH*KW is at most {MOST_PRODUCTS}, so that the products add up in 32 bits. Runs on CPUs "
        "only; GPUs take 8-bit models with QuantizeLinear and DequantizeLinear nodes."
    ),
    attributes=(*WINDOW, OFFSET_GROUP, ACTIVATION),
    inputs=(
        Tensor("X", ("N", "C", "H", "W"), python_name="input"),
        Tensor("x_scale", (), type_param="T1", python_name="input_scale"),
        Tensor("x_zero_point", (), python_name="input_zero_point"),
        Tensor("W", ("M", "C//G", "KH", "KW"), type_param="T2", python_name="weight"),
        Tensor("w_scale", ("M",), type_param="T1", python_name="weight_scale"),
        Tensor("y_scale", (), type_param="T1", python_name="output_scale"),
        Tensor("y_zero_point", (), python_name="output_zero_point"),
        Tensor("offset", ("N", "2*OG*KH*KW", "OH", "OW"), type_param="T1", python_name="offset", doc="(y, x) per tap, in pixels"),
        Tensor("B", ("M",), type_param="T3", optional=True, python_name="bias", doc="in units of x_scale * w_scale"),
        Tensor("mask", ("N", "OG*KH*KW", "OH", "OW"), type_param="T1", optional=True, python_name="mask", doc="1 when absent"),
    ),
    outputs=(Tensor("Y", ("N", "M", "OH", "OW"), python_name="output"),),
    type_rows=(
        {"T": "uint8", "T1": "float32", "T2": "int8", "T3": "int32"},
        {"T": "int8", "T1": "float32", "T2": "int8", "T3": "int32"},
    ),
    sizes=OUTPUT_SIZES,
    divisible=(("C", "G"), ("M", "G"), ("C", "OG")),
    at_least={"C": 1, "H": 1, "W": 1, "M": 1, "KH": 1, "KW": 1, "OH": 1, "OW": 1},
    gpu=False,
)
