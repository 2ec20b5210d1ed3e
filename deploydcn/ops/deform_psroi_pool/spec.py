"""DeformPSRoIPool: deformable position-sensitive region-of-interest pooling, as in Deformable-ConvNets."""

from __future__ import annotations

from deploydcn.ops.rois import DECISIONS, LARGEST_SIDE, MALFORMED, TYPE_ROWS
from deploydcn.spec import Attr, OpSpec, Tensor

SPEC = OpSpec(
    name="DeformPSRoIPool",
    snake_name="deform_psroi_pool",
    doc=(
        "Deformable position-sensitive RoI pooling (Dai et al. 2017). The corners of a box are rounded (halves away from zero); it "
        "runs from round(x1) * spatial_scale - 0.5 to (round(x2) + 1) * spatial_scale - 0.5 and is at least 0.1 long, likewise in y, "
        "and is cut into PS x PS bins. Bin (ph, pw) of output channel o is moved by trans_std * (width * offset[r, 2*k, i, j], "
        "height * offset[r, 2*k + 1, i, j]), k = o//(OD//CLS), i = floor(ph/PS*PT), j = floor(pw/PS*PT), and is the mean of the "
        "sample_per_part^2 samples at the corners of its parts that lie in [-0.5, size - 0.5]; those are interpolated bilinearly, on "
        "the image's edge if they lie outside it, from input channel (o*GS + gh)*GS + gw, gh = floor(ph*GS/PS). `count` is the "
        "number of these samples; without any the output is 0, as where positions are not finite. "
        f"{DECISIONS}{MALFORMED}Its count is 0. The modulated form multiplies the output by a mask."
    ),
    attributes=(
        Attr("spatial_scale", "float", 1.0, python_name="spatial_scale", doc="input pixels per unit of the boxes"),
        Attr("output_dim", "int", 1, ("OD",), minimum=1, python_name="output_dim", doc="output channels"),
        Attr("group_size", "int", 1, ("GS",), minimum=1, maximum=LARGEST_SIDE, python_name="group_size", doc="groups along each axis"),
        Attr("pooled_size", "int", 1, ("PS",), minimum=1, maximum=LARGEST_SIDE, python_name="pooled_size", doc="bins along each axis"),
        Attr("part_size", "int", 1, ("PT",), minimum=1, maximum=LARGEST_SIDE, python_name="part_size", doc="offsets along each axis"),
        Attr("sample_per_part", "int", 4, minimum=1, maximum=255, python_name="sample_per_part", doc="samples of a bin along each axis"),
        Attr("trans_std", "float", 0.0, python_name="trans_std", doc="how far an offset of 1 moves a bin, in sides of its box"),
        Attr("classes", "int", 1, ("CLS",), minimum=1, python_name="classes", doc="groups of output channels with offsets of their own"),
    ),
    inputs=(
        Tensor("input", ("N", "OD*GS*GS", "H", "W"), python_name="input"),
        Tensor("rois", ("R", "5"), type_param="T1", python_name="rois", doc="(batch index, x1, y1, x2, y2)"),
        Tensor("offset", ("R", "2*CLS", "PT", "PT"), type_param="T1", optional=True, python_name="offset", doc="(x, y); 0 when absent"),
    ),
    outputs=(
        Tensor("output", ("R", "OD", "PS", "PS"), python_name="output"),
        Tensor("count", ("R", "OD", "PS", "PS"), python_name="count", doc="samples averaged"),
    ),
    type_rows=TYPE_ROWS,
    divisible=(("OD", "CLS"),),
    at_least={"H": 1, "W": 1},
)
