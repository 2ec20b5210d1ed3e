"""DCNv4: the core of FlashInternImage's deformable convolution."""

from __future__ import annotations

from deploydcn.ops.window_points import AT_LEAST, POINT_ATTRIBUTES, POINT_SIZES, POSITIONS, TYPE_ROWS
from deploydcn.spec import Attr, OpSpec, Tensor

SPEC = OpSpec(
    name="DCNv4",
    snake_name="dcnv4",
    doc=(
        "DCNv3 with offsets and masks in one tensor (Xiong et al. 2024): of the channels of offset_mask, group g has "
        "[3*g*P, 3*(g + 1)*P): 2*P offsets, (x, y) per tap in pixels, then P masks. Their number is rounded up to a multiple of 8; "
        f"what fills it up is not read. {POSITIONS}"
    ),
    attributes=(
        *POINT_ATTRIBUTES,
        Attr("softmax", "int", 0, minimum=0, maximum=1, python_name="softmax", doc="1: softmax over the masks of a group"),
    ),
    inputs=(
        Tensor("input", ("N", "H", "W", "C"), python_name="input"),
        Tensor("offset_mask", ("N", "OH", "OW", "(3*G*P + 7)//8*8"), type_param="T1", python_name="offset_mask"),
    ),
    outputs=(Tensor("output", ("N", "OH", "OW", "C"), python_name="output"),),
    type_rows=TYPE_ROWS,
    sizes=POINT_SIZES,
    divisible=(("C", "G"),),
    at_least=AT_LEAST,
)
