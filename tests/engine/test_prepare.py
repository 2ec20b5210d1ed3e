"""What happens to a file before TensorRT sees it: checks that name the node, and the form the parser takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import deploydcn
from deploydcn.engine.node_checks import check_nodes
from deploydcn.engine.prepare import Prepared, prepare
from deploydcn.engine.source import infer_facts, read_model, skeleton
from deploydcn.errors import InvalidModel
from tests.engine import models
from tests.engine.models import BFLOAT, DOUBLE, FLOAT, HALF, deformable, plain, written

SPAN = {"x": ((1, 3, 8, 8), (2, 3, 16, 16), (4, 3, 32, 32))}
STANDARD = {"operator": "DeformConv", "domain": ""}


def prepared(model: onnx.ModelProto, folder: Path, **options: Any) -> tuple[Prepared, onnx.ModelProto]:
    given = {"profiles": [SPAN], "dtype": None, "keep_io_types": True, "tf32": False, **options}
    result = prepare(written(model, folder), folder, **given)
    return result, onnx.load(result.path)


def our_node(model: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in model.graph.node if "Deform" in node.op_type)


# --------------------------------------------------------------------------------------------- what the parser takes
@pytest.mark.parametrize("form", [{}, STANDARD], ids=["ours", "standard"])
def test_a_missing_bias_before_a_mask_becomes_zeros(tmp_path: Path, form: dict[str, Any]) -> None:
    result, model = prepared(deformable(bias=False, **form), tmp_path)
    node = our_node(model)
    assert all(node.input)
    assert np.array_equal(models.initializer(model, node.input[3]), np.zeros(8, np.float32))
    assert "bias" in result.notes[-1]
    assert result.plugins["neck.dcn"].inputs == ("X", "W", "offset", "B", "mask")


def test_no_bias_is_added_without_a_mask(tmp_path: Path) -> None:
    _, model = prepared(deformable(bias=False, mask=False), tmp_path)
    assert len(our_node(model).input) == 3


def test_trailing_empty_inputs_are_dropped(tmp_path: Path) -> None:
    _, model = prepared(deformable(inputs=["f", "W", "offset", "", ""], bias=False, mask=False), tmp_path)
    assert list(our_node(model).input) == ["f", "W", "offset"]


def test_attributes_are_spelled_out(tmp_path: Path) -> None:
    """The parser warns of every field that a node leaves out; torch leaves kernel_shape out."""
    left_out = dict.fromkeys(("kernel_shape", "strides", "dilations", "group", "offset_group"))
    _, model = prepared(deformable(attributes=left_out), tmp_path, tf32=True)
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in our_node(model).attribute}
    assert attributes == {**models.ATTRIBUTES, "activation": b"", "allow_tf32": 1}


def test_unnamed_and_namesake_nodes_get_names_of_their_own(tmp_path: Path) -> None:
    model = deformable(name="")
    second = onnx.NodeProto()
    second.CopyFrom(our_node(model))
    second.output[0] = "other"
    model.graph.node.append(second)
    model.graph.output.append(helper.make_tensor_value_info("other", FLOAT, [None] * 4))
    result, _ = prepared(model, tmp_path)
    assert sorted(result.plugins) == ["DeformConv2d_d", "DeformConv2d_other"]


def test_other_nodes_are_left_alone(tmp_path: Path) -> None:
    source = deformable()
    _, model = prepared(source, tmp_path)
    before = [node for node in source.graph.node if node.name != "neck.dcn"]
    assert [node.SerializeToString() for node in model.graph.node if node.name != "neck.dcn"] == [
        node.SerializeToString() for node in before
    ]


def test_external_data_is_referred_to_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploydcn.engine.source.SMALL_TENSOR", 100)
    (tmp_path / "source").mkdir()
    path = written(deformable(), tmp_path / "source", external=True)
    result = prepare(path, tmp_path, profiles=[SPAN], dtype=None, keep_io_types=True, tf32=False)
    assert result.base == path
    assert {
        entry.value for tensor in onnx.load(result.path, load_external_data=False).graph.initializer for entry in tensor.external_data
    } >= {"weights.bin"}


def test_local_functions_are_inlined(tmp_path: Path) -> None:
    body = helper.make_node("DeformConv2d", ["a", "b", "c"], ["r"], domain="deploydcn", name="inner", **models.ATTRIBUTES)
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("deploydcn", 1)]
    function = helper.make_function("my", "Block", ["a", "b", "c"], ["r"], [body], imports)
    model = deformable(operator="Block", domain="my", bias=False, mask=False, attributes=dict.fromkeys(models.ATTRIBUTES))
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("my", 1))
    result, _ = prepared(model, tmp_path)
    assert [node.operator for node in result.plugins.values()] == ["deploydcn::DeformConv2d"]


def test_a_file_with_half_offsets_is_noted(tmp_path: Path) -> None:
    result, _ = prepared(deformable(types=dict.fromkeys(("X", "W", "offset", "B", "mask"), HALF)), tmp_path)
    assert any("1 deformable convolutions take offsets in half precision" in note for note in result.notes)


@pytest.mark.parametrize(("dtype", "element"), [("float16", HALF), ("bfloat16", BFLOAT)])
def test_half_precision_keeps_the_offset_in_float32(tmp_path: Path, dtype: str, element: int) -> None:
    _, model = prepared(deformable(**STANDARD), tmp_path, dtype=dtype)
    facts = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.output)}
    node = our_node(model)
    assert (node.domain, node.op_type) == ("deploydcn", "DeformConv2d")
    assert [facts[name] for name in node.input] == [element, element, FLOAT, element, element]


def test_an_excluded_node_stays_float32_in_a_converted_model(tmp_path: Path) -> None:
    _, model = prepared(plain(), tmp_path, dtype="float16", exclude=["conv"])
    assert {tensor.data_type for tensor in model.graph.initializer} == {FLOAT}


# ------------------------------------------------------------------------------------------------- nodes out of spec
BAD_NODES: dict[str, tuple[dict[str, Any], str]] = {
    "offset channels": ({"offset_channels": 20}, "DeformConv2d input offset: dimension 1 is 20; wanted 18"),
    "mask channels": ({"offset_channels": 18, "attributes": {"offset_group": 2}}, "input offset: dimension 1 is 18; wanted 36"),
    "weight channels": ({"weight": (8, 5, 3, 3)}, "DeformConv2d"),
    "groups": ({"attributes": {"group": 4}}, "C is 6; wanted a multiple of G = 4; check group"),
    "offset groups": (
        {"attributes": {"offset_group": 4}, "offset_channels": 72},
        "C is 6; wanted a multiple of OG = 4; check offset_group",
    ),
    "kernel shape": ({"attributes": {"kernel_shape": [5, 5]}}, "dimension 2 is 3; wanted 5"),
    "weight rank": ({"weight": (8, 6, 9)}, "DeformConv2d input W has shape [8, 6, 9]; wanted 4 dimensions"),
    "zero stride": ({"attributes": {"strides": [0, 1]}}, "attribute strides is [0, 1]; wanted every element at least 1"),
    "negative pad": ({"attributes": {"pads": [1, 1, -1, 1]}}, "attribute pads is [1, 1, -1, 1]; wanted every element at least 0"),
    "attribute length": ({"attributes": {"pads": [1, 1]}}, "attribute pads has 2 elements; wanted 4"),
    "attribute scalar": ({"attributes": {"strides": 1}}, "attribute strides is 1; wanted 2 integers"),
    "attribute floats": ({"attributes": {"strides": [1.0, 1.0]}}, "attribute strides has 1.0 of type float; wanted an integer"),
    "attribute string": ({"attributes": {"strides": "1,1"}}, "attribute strides is b'1,1'; wanted 2 integers"),
    "int32 overflow": ({"attributes": {"pads": [2**32 + 1, 1, 1, 1]}}, "attribute pads is 4294967297; wanted a value that fits 32 bits"),
    "unknown attribute": ({"attributes": {"deformable_groups": 1}}, "has no attribute 'deformable_groups'"),
    "activation": ({"attributes": {"activation": "gelu"}}, "attribute activation is 'gelu'; wanted one of"),
    "missing offset": ({"inputs": ["f", "W"]}, "input offset is missing; it is required"),
    "float64": (
        {"types": dict.fromkeys(("X", "W", "offset", "B", "mask"), DOUBLE)},
        "input X is float64; wanted float32, float16 or bfloat16",
    ),
    "integers": ({"types": {"X": onnx.TensorProto.INT32}}, "input X is int32; wanted one of float32"),
    "mixed": ({"types": {"X": HALF}}, "has inputs X float16, W float32"),
    "half offset beside float32": ({"types": {"offset": HALF}}, "cast the odd one"),
}


@pytest.mark.parametrize("defect", BAD_NODES)
def test_a_node_out_of_spec_is_named(tmp_path: Path, defect: str) -> None:
    options, message = BAD_NODES[defect]
    bones = skeleton(deformable(**options))
    with pytest.raises(InvalidModel) as raised:
        check_nodes(bones, infer_facts(bones))
    assert str(raised.value).startswith("node 'neck.dcn' (deploydcn::DeformConv2d): ")
    assert message in str(raised.value)


def test_standard_nodes_and_grouped_convolutions_are_checked_too() -> None:
    for model in (deformable(offset_channels=20, **STANDARD), deformable(operator="GroupedConv2d", inputs=["f", "W", "W"])):
        bones = skeleton(model)
        with pytest.raises(InvalidModel, match=r"node 'neck.dcn' \((DeformConv|deploydcn::GroupedConv2d)\): "):
            check_nodes(bones, infer_facts(bones))


def test_an_operator_we_do_not_have_is_named() -> None:
    bones = skeleton(deformable(operator="DeformConv9"))
    with pytest.raises(InvalidModel, match=r"'neck.dcn' .*deploydcn has no operator 'DeformConv9'; it has DeformConv2d, "):
        check_nodes(bones, infer_facts(bones))


def test_a_profile_whose_smallest_image_is_too_small_names_node_and_profile(tmp_path: Path) -> None:
    model = deformable(weight=(8, 6, 3, 3), attributes={"pads": [0, 0, 0, 0]})
    for node in model.graph.node:
        if node.name in ("offset_conv", "mask_conv"):
            node.attribute[0].ints[:] = [0, 0, 0, 0]
    profile = {"x": ((1, 3, 2, 2), (1, 3, 8, 8), (1, 3, 8, 8))}
    with pytest.raises(InvalidModel, match=r"node 'neck.dcn' .* at the smallest shapes of profile 1 \(x: 1x3x2x2\): DeformConv2d: OH is 0"):
        prepared(model, tmp_path, profiles=[profile])


def test_sizes_that_meet_at_some_shapes_only_are_found(tmp_path: Path) -> None:
    """Stride 2 in the offset branch, 1 in the convolution: right for an image of one pixel, wrong for all others."""
    model = deformable(mask=False)
    next(node for node in model.graph.node if node.name == "offset_conv").attribute.append(helper.make_attribute("strides", [2, 2]))
    with pytest.raises(InvalidModel, match=r"at the smallest shapes of profile 1 .* input offset: dimension 2 is 4; wanted 8 = "):
        prepared(model, tmp_path)


# --------------------------------------------------------------------------------------------------- unreadable files
def test_files_that_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    whole = deformable().SerializeToString()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    for name, message in (
        ("none.onnx", "does not exist; wanted an ONNX file"),
        (".", "is a folder; wanted an ONNX file"),
        ("text.onnx", "is not a readable ONNX file"),
        ("empty.onnx", "holds no graph"),
        ("cut.onnx", "is not a readable ONNX file, or is truncated"),
    ):
        with pytest.raises(InvalidModel, match=message):
            read_model(tmp_path / name)


def test_missing_external_data_is_named(tmp_path: Path) -> None:
    path = written(deformable(), tmp_path, external=True)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InvalidModel, match=r"keeps its weights in 'weights.bin', which is not in .*; put that file beside the model"):
        read_model(path)


def test_invalid_graphs_are_refused_in_one_line(tmp_path: Path) -> None:
    model = plain()
    model.graph.node[1].input[0] = "nowhere"
    with pytest.raises(InvalidModel, match=r"is not valid ONNX: .*nowhere") as raised:
        read_model(written(model, tmp_path))
    assert "\n" not in str(raised.value)


def test_a_standard_operator_that_does_not_exist_is_named(tmp_path: Path) -> None:
    model = plain()
    model.graph.node[1].op_type = "Rely"
    with pytest.raises(InvalidModel, match="Rely"):
        read_model(written(model, tmp_path))


# ---------------------------------------------------------------------------------------------- the exporter's target
@pytest.mark.slow
@pytest.mark.backend("ort")
def test_target_tensorrt_is_what_the_parser_takes(tmp_path: Path) -> None:
    from tests.export.helpers import DYNAMIC, image
    from tests.export.models import TorchvisionDcn, with_offsets

    path = tmp_path / "m.onnx"
    report = deploydcn.export_onnx(
        with_offsets(TorchvisionDcn(bias=False, groups=2)), image(), path, dynamic_shapes=DYNAMIC, target="tensorrt"
    )
    node = our_node(onnx.load(path))
    assert len(node.input) == 5
    assert all(node.input)
    assert len(report.checks) == 5  # it ran in ONNX Runtime, at five shapes
