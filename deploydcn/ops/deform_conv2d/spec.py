"""DeformConv2d: deformable convolution, DCNv1 (without mask) and DCNv2 (with mask)."""

from __future__ import annotations

from deploydcn.ops.activations import ACTIVATION
from deploydcn.ops.window import OUTPUT_SIZES, WINDOW
from deploydcn.spec import Attr, OpSpec, Tensor

OFFSET_GROUP = Attr(
    "offset_group", "int", 1, ("OG",), minimum=1, python_name="offset_groups", doc="groups of channels with their own offsets"
)

SPEC = OpSpec(
    name="DeformConv2d",
    snake_name="deform_conv2d",
    doc=(
        "Deformable convolution (Dai et al. 2017; Zhu et al. 2019 with mask). Tap t = i*KW + j of offset group q samples "
        "X at y = oh*SH - PT + i*DH + offset[n, q*2*K + 2*t, oh, ow], x = ow*SW - PL + j*DW + offset[n, q*2*K + 2*t + 1, oh, ow] "
        "by bilinear interpolation in which everything outside the image is 0, times mask[n, q*K + t, oh, ow]. "
        "NaN and infinite coordinates sample 0. Same signature as ONNX DeformConv, plus `activation`."
    ),
    attributes=(
        *WINDOW,
        OFFSET_GROUP,
        ACTIVATION,
    ),
    inputs=(
        Tensor("X", ("N", "C", "H", "W"), python_name="input"),
        Tensor("W", ("M", "C//G", "KH", "KW"), python_name="weight"),
        Tensor("offset", ("N", "2*OG*KH*KW", "OH", "OW"), type_param="T1", python_name="offset", doc="(y, x) per tap, in pixels"),
        Tensor("B", ("M",), optional=True, python_name="bias"),
        Tensor("mask", ("N", "OG*KH*KW", "OH", "OW"), optional=True, python_name="mask", doc="1 when absent"),
    ),
    outputs=(Tensor("Y", ("N", "M", "OH", "OW"), python_name="output"),),
    # Offsets may stay in float32 beside half-precision data: coordinates in half lose up to 0.1 of the output at 512 px.
    type_rows=(
        {"T": "float32", "T1": "float32"},
        {"T": "float64", "T1": "float64"},
        {"T": "float64", "T1": "float32"},
        {"T": "float16", "T1": "float16"},
        {"T": "float16", "T1": "float32"},
        {"T": "bfloat16", "T1": "bfloat16"},
        {"T": "bfloat16", "T1": "float32"},
    ),
    sizes=OUTPUT_SIZES,
    divisible=(("C", "G"), ("M", "G"), ("C", "OG")),
    at_least={"C": 1, "H": 1, "W": 1, "M": 1, "KH": 1, "KW": 1, "OH": 1, "OW": 1},
    standard_op="DeformConv",
)
