"""The sampling points of a window whose taps an operator moves but does not weight: DCNv3 and DCNv4 share them."""

from __future__ import annotations

from deploydcn.ops.window import DILATIONS, GROUP, KERNEL_SIZE, OUTPUT_SIZES, PADS, STRIDES
from deploydcn.spec import Attr

POINT_ATTRIBUTES = (
    KERNEL_SIZE,
    STRIDES,
    PADS,
    DILATIONS,
    GROUP,
    Attr("offset_scale", "float", 1.0, python_name="offset_scale", doc="stretches the window and its offsets about the centre"),
    Attr("remove_center", "int", 0, ("RC",), minimum=0, maximum=1, python_name="remove_center", doc="1: tap (KH//2, KW//2) is left out"),
)

POINT_SIZES = {"P": "KH*KW - RC", **OUTPUT_SIZES}
AT_LEAST = {"C": 1, "H": 1, "W": 1, "KH": 1, "KW": 1, "P": 1, "OH": 1, "OW": 1}

# Offsets may stay in float32 beside half-precision data: coordinates in half lose up to 0.1 of the output at 512 px.
TYPE_ROWS = (
    {"T": "float32", "T1": "float32"},
    {"T": "float64", "T1": "float64"},
    {"T": "float64", "T1": "float32"},
    {"T": "float16", "T1": "float16"},
    {"T": "float16", "T1": "float32"},
    {"T": "bfloat16", "T1": "bfloat16"},
    {"T": "bfloat16", "T1": "float32"},
)

POSITIONS = (
    "The taps are numbered column by column (i over KH runs fastest, then j over KW), without the centre tap (KH//2, KW//2) when "
    "remove_center is 1. With R = D*(K - 1)//2 per axis, tap (i, j) of output pixel (oh, ow) samples at "
    "y = oh*SH - PT + RH + (i*DH - RH + offset_y)*offset_scale, x = ow*SW - PL + RW + (j*DW - RW + offset_x)*offset_scale, by bilinear "
    "interpolation in which everything outside the image is 0. NaN and infinite coordinates sample 0."
)
