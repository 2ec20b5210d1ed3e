"""DCNv3, deformable attention and RoI pooling of other exporters x every target, at two sizes through one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import deploydcn
from deploydcn.errors import ExportError, InvalidModel
from deploydcn.export import TARGETS
from deploydcn.ops import OPS, op_named
from tests.convert.helpers import drawn, node, operators, write

pytestmark = pytest.mark.backend("ort")

TOLERANCE = 1e-5  # float32 sums of some dozen products
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Kind:
    """A foreign node. op: ours; own: its attributes; inputs(size): arrays by our names, in the foreign node's order."""

    op_type: str
    domain: str
    op: str
    attributes: Mapping[str, Any]
    own: Mapping[str, Any]
    inputs: Callable[[int], Arrays]
    rank: int = 4


def dcnv3_inputs(size: int) -> Arrays:
    height, width = 5 + size, 7
    out_h, out_w = (height + 2 - 3) // 2 + 1, (width - 3) + 1
    points = 2 * 8
    return {
        "input": drawn(size, height, width, 6),
        "offset": drawn(size, out_h, out_w, 2 * points, scale=1.5),
        "mask": drawn(size, out_h, out_w, points),
    }


LEVELS = np.array([[6, 5], [3, 4]])


def attention_inputs(size: int, table: str) -> Arrays:
    rng = np.random.default_rng(size)
    return {
        "value": drawn(size, 42, 3, 4),
        "spatial_shapes": LEVELS.astype(table),
        "level_start_index": np.array([0, 30], table),
        "sampling_locations": rng.uniform(-0.2, 1.2, (size, 5 + size, 3, 2, 4, 2)).astype(np.float32),
        "attention_weights": rng.random((size, 5 + size, 3, 2, 4)).astype(np.float32),
    }


def long_tables(size: int) -> Arrays:
    return attention_inputs(size, "int64")


def int_tables(size: int) -> Arrays:
    return attention_inputs(size, "int32")


def pool_inputs(size: int, *, offset: bool = True) -> Arrays:
    boxes = np.array([[0, 1, 2, 20, 30], [size - 1, -5, 3, 17.5, 22], [0, 4, 4, 4, 4]], np.float32)[: 1 + size]
    return {
        "input": drawn(size, 3, 9, 7 + size),
        "rois": boxes,
        **({"offset": drawn(len(boxes), 2, 2, 3)} if offset else {}),
    }


def plain_pool_inputs(size: int) -> Arrays:
    return pool_inputs(size, offset=False)


WINDOW = {"kernel_h": 3, "kernel_w": 3, "stride_h": 2, "stride_w": 1, "pad_h": 1, "pad_w": 0, "dilation_h": 1, "dilation_w": 1}
POOL = {"pooled_height": 2, "pooled_width": 3, "spatial_scale": 0.25, "gamma": 0.5}
OWN_POOL = {"output_height": 2, "output_width": 3, "spatial_scale": 0.25, "gamma": 0.5}
ALL = {
    "dcnv3": Kind(
        "TRTDCNv3",
        "mmdeploy",
        "DCNv3",
        {**WINDOW, "group": 2, "group_channels": 3, "offset_scale": 0.5, "im2col_step": 256, "remove_center": 1},
        {"kernel_shape": (3, 3), "strides": (2, 1), "pads": (1, 0, 1, 0), "group": 2, "offset_scale": 0.5, "remove_center": 1},
        dcnv3_inputs,
    ),
    "mmdeploy_attention": Kind(
        "MMCVMultiScaleDeformableAttention", "mmdeploy", "MSDeformAttn", {"im2col_step": 64}, {}, long_tables, rank=3
    ),
    "tensorrt_attention": Kind("MultiscaleDeformableAttnPlugin_TRT", "", "MSDeformAttn", {"plugin_version": "1"}, {}, int_tables),
    "trt_domain_attention": Kind("MultiscaleDeformableAttnPlugin_TRT", "TRT", "MSDeformAttn", {}, {}, long_tables),
    "mmcv_pool": Kind(
        "MMCVDeformRoIPool", "mmcv", "DeformRoIPool", {**POOL, "sampling_ratio": 2.0}, {**OWN_POOL, "sampling_ratio": 2}, pool_inputs
    ),
    "mmcv_pool_no_offset": Kind(
        "MMCVDeformRoIPool",
        "mmcv",
        "DeformRoIPool",
        {**POOL, "sampling_ratio": 0.0},
        OWN_POOL,
        lambda size: pool_inputs(size, offset=False),
    ),
}
KINDS = {name: kind for name, kind in ALL.items() if kind.op in {op.spec.name for op in OPS}}


def source(path: Path, kind: Kind, **changes: Any) -> Path:
    """Level tables in the file, everything else fed; sizes that differ between two draws are symbolic."""
    small, large = kind.inputs(1), kind.inputs(2)
    fixed = {name: array for name, array in small.items() if array.dtype.kind == "i"}
    shapes = {
        name: tuple(a if a == b else f"{name}_{axis}" for axis, (a, b) in enumerate(zip(small[name].shape, large[name].shape, strict=True)))
        for name in small
        if name not in fixed
    }
    foreign = node(kind.op_type, list(small), ["y"], name="layer", domain=kind.domain)
    attributes = {**kind.attributes, **changes}
    foreign.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in attributes.items() if value is not None)
    return write(path, [foreign], shapes, ["y"], fixed, opset=13, domains=[kind.domain] if kind.domain else [])


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", KINDS)
def test_numbers_are_the_reference_s(tmp_path: Path, name: str, target: str) -> None:
    kind, path = KINDS[name], tmp_path / "out.onnx"
    fed = {name: array for name, array in kind.inputs(2).items() if array.dtype.kind == "f"}
    report = deploydcn.convert(source(tmp_path / "in.onnx", kind), path, target=target, inputs=fed)
    assert [item.becomes for item in report.mapping] == [TARGETS[target].form(op_named(kind.op).spec)]
    assert len(report.checks) == 1
    if TARGETS[target].plain:
        assert not any("::" in operator for operator in operators(path))
    for size in (1, 2):
        inputs = kind.inputs(size)
        given = {key: value.astype(np.int64) if value.dtype.kind == "i" else value for key, value in inputs.items()}
        wanted = op_named(kind.op).reference(given, kind.own)[0]
        got = deploydcn.load(path, "ort").run({key: value for key, value in inputs.items() if value.dtype.kind == "f"})["y"]
        assert got.ndim == kind.rank
        assert np.abs(got.reshape(wanted.shape) - wanted).max() <= TOLERANCE * np.abs(wanted).max()


MALFORMED = [
    ("dcnv3", {"pad_h": None}, InvalidModel, "attribute pad is missing"),
    ("dcnv3", {"group_channels": 4}, InvalidModel, r"input has 6 channels; wanted 8 = group \* group_channels"),
    ("mmcv_pool", {"gamma": None}, InvalidModel, "attribute gamma is missing"),
    ("mmcv_pool", {"sampling_ratio": 1.5}, ExportError, "sampling_ratio is 1.5; wanted a whole number"),
    ("mmdeploy_attention", {"softmax": 1}, ExportError, "attribute softmax is not known here"),
]


@pytest.mark.parametrize(("name", "changes", "error", "message"), [row for row in MALFORMED if row[0] in KINDS])
def test_malformed_and_unknown_nodes(tmp_path: Path, name: str, changes: dict[str, Any], error: type[Exception], message: str) -> None:
    path = source(tmp_path / "in.onnx", KINDS[name], **changes)
    with pytest.raises(error, match=f"node 'layer'.*{message}"):
        deploydcn.convert(path, tmp_path / "out.onnx", target="portable")
    assert [file.name for file in tmp_path.iterdir()] == ["in.onnx"]
