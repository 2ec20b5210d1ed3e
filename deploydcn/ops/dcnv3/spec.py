"""DCNv3: the core of InternImage's deformable convolution."""

from __future__ import annotations

from deploydcn.ops.window_points import AT_LEAST, POINT_ATTRIBUTES, POINT_SIZES, POSITIONS, TYPE_ROWS
from deploydcn.spec import OpSpec, Tensor

SPEC = OpSpec(
    name="DCNv3",
    snake_name="dcnv3",
    doc=(
        "Deformable convolution without weights of its own, channels last (Wang et al. 2023, InternImage): each of `group` groups of "
        "channels is summed over the P taps of a window, every tap moved by an offset and weighted by a mask (which the model normalises). "
        f"{POSITIONS}"
    ),
    attributes=POINT_ATTRIBUTES,
    inputs=(
        Tensor("input", ("N", "H", "W", "C"), python_name="input"),
        Tensor("offset", ("N", "OH", "OW", "2*G*P"), type_param="T1", python_name="offset", doc="(x, y) per tap of a group, in pixels"),
        Tensor("mask", ("N", "OH", "OW", "G*P"), python_name="mask"),
    ),
    outputs=(Tensor("output", ("N", "OH", "OW", "C"), python_name="output"),),
    type_rows=TYPE_ROWS,
    sizes=POINT_SIZES,
    divisible=(("C", "G"),),
    at_least=AT_LEAST,
)
