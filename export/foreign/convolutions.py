"""Deformable convolutions of other exporters -> DeformConv2d.

What each writes was read in its sources: mmcv 2.2 and mmdeploy 1.3 (symbolic functions of deform_conv and modulated_deform_conv),
TensorRT OSS (modulatedDeformConvPlugin), tensorRTIntegrate (DCNv2 behind `Plugin`), the DCNv2 symbolics in use for CenterNet, FairMOT
and YOLACT++.
"""

from __future__ import annotations

import json
from typing import Any

import onnx_ir as ir

from deploydcn.errors import InvalidModel
from deploydcn.export.builder import OpBuilder
from deploydcn.export.foreign.node import ForeignNode, NoEquivalentError

OFFSET_GROUPS = ("deform_groups", "deformable_groups", "deformable_group", "deform_group")


def mmcv_deform_conv(op: OpBuilder, node: ForeignNode) -> ir.Value:
    """MMCVDeformConv2d(input, offset, weight)."""
    x, offset, weight = node.inputs("input", "offset", "weight")
    return op.own("DeformConv2d", x, weight, offset, **_window(node))


def modulated_deform_conv(op: OpBuilder, node: ForeignNode) -> ir.Value:
    """MMCVModulatedDeformConv2d, DCNv2: (input, offset, mask, weight, bias?), the mask behind its sigmoid."""
    x, offset, mask, weight, bias = node.inputs("input", "offset", "mask", "weight", "bias?")
    return op.own("DeformConv2d", x, weight, offset, bias, mask, **_window(node))


def tensorrt_modulated_deform_conv(op: OpBuilder, node: ForeignNode) -> ir.Value:
    """TensorRT's ModulatedDeformConv2d: as mmcv's, but the plugin takes (h, w) pairs for (w, h)."""
    for name in ("stride", "padding", "dilation"):
        height, width = node.pair(name, default=(1, 1))
        if height != width:
            raise NoEquivalentError(
                f"{node.label}: {name} is {[height, width]}, which this plugin reads as (w, h) and its exporters write as (h, w); "
                "wanted equal numbers; export the model again with another operator"
            )
    return modulated_deform_conv(op, node)


def plugin_dcnv2(op: OpBuilder, node: ForeignNode) -> ir.Value:
    """`Plugin` nodes with name "DCNv2" and a JSON `info`.

    tensorRTIntegrate's takes (input, offset_mask, weight, bias?): offsets, then mask logits, whose sigmoid the plugin computes; stride,
    padding and dilation are 1 where `info` does not tell. Others take (input, offset, mask, weight, bias?) and tell all.
    """
    if node.attributes.get("name") != "DCNv2":
        raise NoEquivalentError(f"{node.label}: plugin {node.attributes.get('name')!r} is not known here")
    described = ForeignNode(node.node, _info(node))
    if node.rank(3) == 4:
        return modulated_deform_conv(op, described)
    x, offset_mask, weight, bias = described.inputs("input", "offset_mask", "weight", "bias?")
    window = _window(described, default=(1, 1))
    shape = [size for size in (weight.shape if weight is not None else None) or () if isinstance(size, int)]
    if len(shape) != 4:
        raise InvalidModel(f"{node.label}: its weight has known sizes {shape}; wanted four; export the model again")
    masks = window["offset_group"] * shape[2] * shape[3]
    offset = op.Slice(offset_mask, [0], [2 * masks], [1])
    mask = op.Sigmoid(op.Slice(offset_mask, [2 * masks], [3 * masks], [1]))
    return op.own("DeformConv2d", x, weight, offset, bias, mask, **window)


def _info(node: ForeignNode) -> dict[str, Any]:
    text = node.attributes.get("info") or "{}"
    try:
        info = json.loads(text)
    except (TypeError, ValueError) as error:
        raise InvalidModel(f"{node.label}: attribute info is {text!r}; wanted a JSON object; export the model again") from error
    if not isinstance(info, dict):
        raise InvalidModel(f"{node.label}: attribute info is {text!r}; wanted a JSON object; export the model again")
    return info


def _window(node: ForeignNode, default: tuple[int, int] | None = None) -> dict[str, Any]:
    """strides, pads, dilations and the groups; what is missing and has no default is an error."""
    result = {
        "strides": node.pair("stride", "strides", default=default),
        "pads": node.pads("padding", "pads", default=default),
        "dilations": node.pair("dilation", "dilations", default=default),
        "group": node.integer("groups", "group", default=1),
        "offset_group": node.integer(*OFFSET_GROUPS, default=1 if default else None),
    }
    node.finish()
    return result
