"""DeformRoIPool: deformable region-of-interest pooling by averaged bilinear samples, as mmcv's."""

from __future__ import annotations

from deploydcn.ops.rois import DECISIONS, LARGEST_SIDE, MALFORMED, TYPE_ROWS
from deploydcn.spec import Attr, OpSpec, Tensor

MOST_SAMPLES = 1 << 16
"""Of a bin, along one axis: more than any image has pixels."""

SPEC = OpSpec(
    name="DeformRoIPool",
    snake_name="deform_roi_pool",
    doc=(
        "Deformable RoI pooling (Dai et al. 2017, in mmcv's continuous form). A box (x1, y1, x2, y2) * spatial_scale - 0.5 is "
        "cut into PH x PW bins; bin (ph, pw) is moved by gamma * (width * offset[r, 0, ph, pw], height * offset[r, 1, ph, pw]) and "
        "is the mean of a grid of samples at (i + 0.5) / grid of its sides: grid is sampling_ratio or, when that is 0, "
        f"ceil(height / PH) x ceil(width / PW), along each axis at most {MOST_SAMPLES}. A sample is interpolated bilinearly, on the "
        "image's edge if it lies outside by up to one pixel (y = -1 and y = H included), and 0 further out and where its position "
        "is not finite. A grid without samples (a box of no or negative extent and sampling_ratio 0) gives 0. "
        f"{DECISIONS}{MALFORMED}The modulated form multiplies the output by a mask."
    ),
    attributes=(
        Attr("output_height", "int", 1, ("PH",), minimum=1, maximum=LARGEST_SIDE, python_name="output_height", doc="bins"),
        Attr("output_width", "int", 1, ("PW",), minimum=1, maximum=LARGEST_SIDE, python_name="output_width", doc="bins"),
        Attr("spatial_scale", "float", 1.0, python_name="spatial_scale", doc="input pixels per unit of the boxes"),
        Attr(
            "sampling_ratio",
            "int",
            0,
            minimum=0,
            maximum=1024,
            python_name="sampling_ratio",
            doc="samples of a bin along each axis; 0: about one per pixel",
        ),
        Attr("gamma", "float", 0.1, python_name="gamma", doc="how far an offset of 1 moves a bin, in sides of its box"),
    ),
    inputs=(
        Tensor("input", ("N", "C", "H", "W"), python_name="input"),
        Tensor("rois", ("R", "5"), type_param="T1", python_name="rois", doc="(batch index, x1, y1, x2, y2)"),
        Tensor("offset", ("R", "2", "PH", "PW"), type_param="T1", optional=True, python_name="offset", doc="(x, y) per bin; 0 when absent"),
    ),
    outputs=(Tensor("output", ("R", "C", "PH", "PW"), python_name="output"),),
    type_rows=TYPE_ROWS,
    at_least={"C": 1, "H": 1, "W": 1},
)
