"""MSDeformAttn: multi-scale deformable attention."""

from __future__ import annotations

from collections.abc import Sequence

from deploydcn.errors import InvalidArgument
from deploydcn.spec import OpSpec, Tensor

SPEC = OpSpec(
    name="MSDeformAttn",
    snake_name="ms_deform_attn",
    doc=(
        "Multi-scale deformable attention (Zhu et al. 2021, Deformable DETR): output[n, q, m*D + d] is the sum over levels l and "
        "points p of attention_weights[n, q, m, l, p] times head m of value, sampled in level l at y = location_y*height_l - 0.5, "
        "x = location_x*width_l - 0.5 by bilinear interpolation in which everything outside the level is 0. Level l, of "
        "(height, width) spatial_shapes[l], is the pixels of value from level_start_index[l] on, row by row. NaN and infinite locations "
        "sample 0. A level that does not lie in value is refused; on a GPU, which cannot refuse it, every output is NaN."
    ),
    attributes=(),
    inputs=(
        Tensor("value", ("N", "S", "M", "D"), python_name="value", doc="M heads of D channels"),
        Tensor("spatial_shapes", ("L", "2"), type_param="I", python_name="spatial_shapes", doc="(height, width) of each level"),
        Tensor("level_start_index", ("L",), type_param="I", python_name="level_start_index", doc="its first pixel in value"),
        Tensor(
            "sampling_locations",
            ("N", "Q", "M", "L", "P", "2"),
            type_param="T1",
            python_name="sampling_locations",
            doc="(x, y); 0 and 1 are the level's borders",
        ),
        Tensor("attention_weights", ("N", "Q", "M", "L", "P"), python_name="attention_weights"),
    ),
    outputs=(Tensor("output", ("N", "Q", "M*D"), python_name="output"),),
    # Locations may stay in float32 beside half-precision data: half resolves 1/2048 of a level near its far end.
    type_rows=tuple(
        {"T": data, "T1": locations, "I": "int64"}
        for data, locations in (
            ("float32", "float32"),
            ("float64", "float64"),
            ("float64", "float32"),
            ("float16", "float16"),
            ("float16", "float32"),
            ("bfloat16", "bfloat16"),
            ("bfloat16", "float32"),
        )
    ),
    at_least={"S": 1, "M": 1, "D": 1, "L": 1, "P": 1},
)


def check_levels(spatial_shapes: Sequence[Sequence[int]], level_start_index: Sequence[int], pixels: int) -> None:
    """What shapes cannot tell: that every level lies in a value of `pixels` pixels.

    Raises:
        InvalidArgument: one does not; the message names it.
    """
    for level, ((height, width), start) in enumerate(zip(spatial_shapes, level_start_index, strict=True)):
        if height < 1 or width < 1 or start < 0 or start + height * width > pixels:
            raise InvalidArgument(
                f"MSDeformAttn: level {level} is {height}x{width} pixels from pixel {start} on; wanted at least 1x1, within the {pixels} "
                "pixels of value; check spatial_shapes and level_start_index"
            )
