"""The attributes and sizes that every sliding-window operator shares: ONNX Conv's."""

from __future__ import annotations

from deploydcn.spec import Attr

KERNEL_SHAPE = Attr("kernel_shape", "ints", None, ("KH", "KW"), minimum=1, doc="(h, w); read from W when absent")
KERNEL_SIZE = Attr("kernel_shape", "ints", (3, 3), ("KH", "KW"), minimum=1, python_name="kernel_size", doc="(h, w)")
STRIDES = Attr("strides", "ints", (1, 1), ("SH", "SW"), minimum=1, python_name="stride", doc="(h, w)")
PADS = Attr("pads", "ints", (0, 0, 0, 0), ("PT", "PL", "PB", "PR"), minimum=0, python_name="padding", doc="(top, left, bottom, right)")
DILATIONS = Attr("dilations", "ints", (1, 1), ("DH", "DW"), minimum=1, python_name="dilation", doc="(h, w)")
GROUP = Attr("group", "int", 1, ("G",), minimum=1, python_name="groups", doc="convolution groups")

WINDOW = (KERNEL_SHAPE, STRIDES, PADS, DILATIONS, GROUP)

OUTPUT_SIZES = {
    "OH": "(H + PT + PB - DH*(KH - 1) - 1)//SH + 1",
    "OW": "(W + PL + PR - DW*(KW - 1) - 1)//SW + 1",
}
