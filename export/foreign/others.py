"""DCNv3, deformable attention and deformable RoI pooling of other exporters -> ours.

What each writes was read in its sources: InternImage (DCNv3Function.symbolic, mmdeploy's TRTDCNv3), mmdeploy 1.3 and TensorRT OSS
(multiscaleDeformableAttnPlugin), mmcv 2.2 (DeformRoIPoolFunction.symbolic).
"""

from __future__ import annotations

import onnx_ir as ir

from deploydcn.errors import InvalidModel
from deploydcn.export.builder import OpBuilder
from deploydcn.export.foreign.node import ForeignNode, NoEquivalentError


def trt_dcnv3(op: OpBuilder, node: ForeignNode) -> ir.Value:
    """TRTDCNv3(input, offset, mask), all channels last."""
    inputs = node.inputs("input", "offset", "mask")
    pad_h, pad_w = node.pair("pad")
    group = node.integer("group")
    attributes = {
        "kernel_shape": node.pair("kernel"),
        "strides": node.pair("stride"),
        "pads": (pad_h, pad_w, pad_h, pad_w),
        "dilations": node.pair("dilation"),
        "group": group,
        "offset_scale": node.number("offset_scale"),
        "remove_center": node.integer("remove_center", default=0),
    }
    wanted = group * node.integer("group_channels")
    node.finish()
    shape = inputs[0].shape if inputs[0] is not None else None
    channels = shape[-1] if shape is not None else None
    if isinstance(channels, int) and channels != wanted:
        raise InvalidModel(f"{node.label}: input has {channels} channels; wanted {wanted} = group * group_channels; export the model again")
    return op.own("DCNv3", *inputs, **attributes)


def mmcv_deform_attn(op: OpBuilder, node: ForeignNode) -> ir.Value:
    """MMCVMultiScaleDeformableAttention: (N, Q, M*D), as ours; its level tables may be int32."""
    value, shapes, starts, locations, weights = node.inputs(
        "value", "spatial_shapes", "level_start_index", "sampling_locations", "attention_weights"
    )
    node.finish()
    long = ir.DataType.INT64
    tables = [table if table is None or table.dtype == long else op.Cast(table, to=long) for table in (shapes, starts)]
    return op.own("MSDeformAttn", value, *tables, locations, weights)


def tensorrt_deform_attn(op: OpBuilder, node: ForeignNode) -> ir.Value:
    """TensorRT's MultiscaleDeformableAttnPlugin_TRT: the same, but it returns (N, Q, M, D)."""
    result = mmcv_deform_attn(op, node)
    value, _, _, locations, _ = node.node.inputs
    assert value is not None and locations is not None  # noqa: PT018  # mmcv_deform_attn refused otherwise
    batch, queries = op.sizes(locations, 6)[:2]
    heads, channels = op.sizes(value, 4)[2:]
    return op.reshape(result, batch, queries, heads, channels)


def mmcv_deform_roi_pool(op: OpBuilder, node: ForeignNode) -> ir.Value:
    """MMCVDeformRoIPool(input, rois, offset?); sampling_ratio is written as a float."""
    inputs = node.inputs("input", "rois", "offset?")
    ratio = node.number("sampling_ratio")
    if ratio != int(ratio):
        raise NoEquivalentError(f"{node.label}: sampling_ratio is {ratio}; wanted a whole number")
    attributes = {
        "output_height": node.integer("pooled_height"),
        "output_width": node.integer("pooled_width"),
        "spatial_scale": node.number("spatial_scale"),
        "sampling_ratio": max(int(ratio), 0),
        "gamma": node.number("gamma"),
    }
    node.finish()
    return op.own("DeformRoIPool", *inputs, **attributes)
