"""Paddle2ONNX writes the standard DeformConv (deform_conv2d.cc of 2024), with two omissions that are known here."""

from __future__ import annotations

import onnx_ir as ir

from deploydcn.export import graph

PRODUCER = "PaddlePaddle"


def complete(model: ir.Model) -> list[str]:
    """Restore offset_group, which Paddle2ONNX leaves out, from the offset's channels; point out its bias of ones. Notes."""
    if model.producer_name != PRODUCER:
        return []
    notes = []
    for node in graph.nodes_of(model, "DeformConv"):
        weight, offset, bias = (graph.input_at(node, index) for index in (1, 2, 3))
        shapes = [list(value.shape) if value is not None and value.shape is not None else [] for value in (weight, offset)]
        kernel = [size for size in shapes[0][2:] if isinstance(size, int)]
        channels = shapes[1][1] if len(shapes[1]) == 4 else None
        if "offset_group" not in node.attributes and len(kernel) == 2 and isinstance(channels, int):
            groups, rest = divmod(channels, 2 * kernel[0] * kernel[1])
            if groups > 1 and not rest:
                node.attributes["offset_group"] = ir.AttrInt64("offset_group", groups)
                notes.append(f"{graph.node_name(node)}: offset_group {groups} restored from the offset's {channels} channels")
        constant = graph.constant(bias)
        if constant is not None and constant.size and (constant == 1).all():
            notes.append(
                f"{graph.node_name(node)}: its bias is all ones, as one release of Paddle2ONNX writes where the model has none; kept as "
                "it is: compare the file with Paddle, and export it again with a newer Paddle2ONNX"
            )
    return notes
