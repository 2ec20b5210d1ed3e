"""Every kind of foreign node x every target: the numbers are those of our reference, at two sizes through one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import deploydcn
from deploydcn.errors import ExportError, InvalidModel
from deploydcn.export import TARGETS
from deploydcn.ops import op_named
from tests.convert.helpers import drawn, node, operators, write

pytestmark = pytest.mark.backend("ort")

TOLERANCE = 1e-5  # float32 sums of a hundred products, positions of an image 11 px wide
X = ("n", 8, "h", "w")
WEIGHT, BIAS = drawn(6, 8, 3, 2, scale=0.2), drawn(6)
GROUPED_WEIGHT = drawn(6, 4, 3, 2, scale=0.2)


@dataclass(frozen=True)
class Kind:
    """A foreign node and the attributes of the DeformConv2d that it is. inputs: names in the node's order; W and B are constants."""

    op_type: str
    domain: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    own: Mapping[str, Any]
    weight: np.ndarray = field(default_factory=lambda: WEIGHT)
    taps: int = 6


MMCV = {"stride": [1, 2], "padding": [1, 0], "dilation": [1, 2], "groups": 2, "deform_groups": 2}
OWN = {"strides": (1, 2), "pads": (1, 0, 1, 0), "dilations": (1, 2), "group": 2, "offset_group": 2}
SAME = {"strides": (1, 1), "pads": (1, 1, 1, 1)}

KINDS = {
    "mmcv_v1": Kind("MMCVDeformConv2d", "mmcv", ("X", "offset", "W"), {**MMCV, "bias": 0, "im2col_step": 32}, OWN, GROUPED_WEIGHT, 12),
    "mmdeploy_v1": Kind(
        "MMCVDeformConv2d", "mmdeploy", ("X", "offset", "W"), {**MMCV, "padding": [1, 1, 0, 0]}, OWN, GROUPED_WEIGHT, taps=12
    ),
    "mmcv_v2": Kind("MMCVModulatedDeformConv2d", "mmcv", ("X", "offset", "mask", "W", "B"), MMCV, OWN, GROUPED_WEIGHT, 12),
    "mmdeploy_v2_no_bias": Kind("MMCVModulatedDeformConv2d", "mmdeploy", ("X", "offset", "mask", "W"), MMCV, OWN, GROUPED_WEIGHT, 12),
    "custom_v2": Kind("MMCVModulatedDeformConv2d", "custom", ("X", "offset", "mask", "W", "B"), MMCV, OWN, GROUPED_WEIGHT, 12),
    "no_domain_v2": Kind("MMCVModulatedDeformConv2d", "", ("X", "offset", "mask", "W", "B"), MMCV, OWN, GROUPED_WEIGHT, 12),
    "tensorrt": Kind(
        "ModulatedDeformConv2d",
        "",
        ("X", "offset", "mask", "W", "B"),
        {"stride": [2, 2], "padding": [1, 1], "dilation": [1, 1], "group": 1, "deformable_group": 1},
        {"strides": (2, 2), "pads": (1, 1, 1, 1)},
    ),
    "dcnv2_mmdetection": Kind(
        "DCNv2", "", ("X", "offset", "mask", "W", "B"), {"stride": 1, "padding": 1, "dilation": 1, "groups": 1, "deformable_group": 1}, SAME
    ),
    "dcnv2_yolact": Kind(
        "DCNv2",
        "yolact",
        ("X", "offset", "mask", "W", "B"),
        {"name": "DCNv2", "deformable_groups": "1"}
        | {f"{name}_{axis}": value for name, value in (("stride", "1"), ("padding", "1"), ("dilation", "1")) for axis in "hw"},
        SAME,
    ),
    "plugin_separate": Kind(
        "Plugin",
        "",
        ("X", "offset", "mask", "W", "B"),
        {"name": "DCNv2", "info": json.dumps({"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "deformable_groups": 1})},
        SAME,
    ),
    "plugin_joined": Kind("Plugin", "", ("X", "offset_mask", "W", "B"), {"name": "DCNv2", "info": ""}, SAME),
}


def feeds(kind: Kind, height: int, width: int, batch: int) -> dict[str, np.ndarray]:
    """Inputs of one size; offsets of a few pixels, so that some samples lie outside."""
    x = (batch, 8, height, width)
    _, _, out_h, out_w = op_named("DeformConv2d").spec.output_shapes({"X": x, "W": kind.weight.shape}, kind.own)[0]
    every = {
        "X": drawn(*x),
        "offset": drawn(batch, 2 * kind.taps, out_h, out_w, scale=2.0),
        "mask": drawn(batch, kind.taps, out_h, out_w),
        "offset_mask": drawn(batch, 3 * kind.taps, out_h, out_w, scale=2.0),
    }
    return {name: every[name] for name in kind.inputs if name in every}


def reference(kind: Kind, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    given = {name: array.astype(np.float64) for name, array in inputs.items()}
    if "offset_mask" in given:
        joined = given.pop("offset_mask")
        given |= {"offset": joined[:, : 2 * kind.taps], "mask": 1 / (1 + np.exp(-joined[:, 2 * kind.taps :]))}
    constants = {"W": kind.weight, **({"B": BIAS} if "B" in kind.inputs else {})}
    return op_named("DeformConv2d").reference({**given, **constants}, kind.own)[0]


def source(path: Path, kind: Kind, *, opset: int = 11, weight: np.ndarray | None = None) -> Path:
    shapes = {name: (("n", array.shape[1], f"{name}_h", f"{name}_w")) for name, array in feeds(kind, 9, 11, 1).items()}
    foreign = node(kind.op_type, kind.inputs, ["y"], domain=kind.domain, **{"name": "dcn"})
    foreign.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in kind.attributes.items())
    constants = {"W": kind.weight if weight is None else weight, **({"B": BIAS} if "B" in kind.inputs else {})}
    return write(path, [foreign], shapes, ["y"], constants, opset=opset, domains=[kind.domain] if kind.domain else [])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", KINDS)
def test_numbers_are_the_reference_s(tmp_path: Path, name: str, target: str) -> None:
    kind, result = KINDS[name], tmp_path / "out.onnx"
    shapes = {name: array.shape for name, array in feeds(kind, 9, 11, 2).items()}
    report = deploydcn.convert(source(tmp_path / "in.onnx", kind), result, target=target, shapes=shapes)
    assert [(item.node, item.becomes) for item in report.mapping] == [("dcn", TARGETS[target].form(op_named("DeformConv2d").spec))]
    assert report.reference == "the source with deploydcn's operators"
    assert len(report.checks) == 1
    runner = deploydcn.load(result, "ort")
    for size in ((9, 11, 2), (14, 8, 1)):
        inputs = feeds(kind, *size)
        wanted = reference(kind, inputs)
        assert np.abs(runner.run(inputs)["y"] - wanted).max() <= TOLERANCE * np.abs(wanted).max()
    if target == "portable":
        assert not any("::" in name or name == "DeformConv" for name in operators(result))


# ------------------------------------------------------------------------------------------------------------ refusals
def broken(path: Path, name: str, changes: Mapping[str, Any]) -> Path:
    """The source of a kind with attributes changed, or removed where the new value is None."""
    kind = KINDS[name]
    attributes = {key: value for key, value in {**kind.attributes, **changes}.items() if value is not None}
    return source(path, Kind(kind.op_type, kind.domain, kind.inputs, attributes, kind.own, kind.weight, kind.taps))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("mmcv_v2", {"stride": None}, "node 'dcn' .mmcv::MMCVModulatedDeformConv2d.: attribute stride is missing; it is required"),
        ("mmcv_v2", {"dilation": [1, 1, 1]}, r"attribute dilation is \[1, 1, 1\]; wanted 1 or 2 numbers"),
        ("mmcv_v2", {"stride": [1.5, 1.0]}, r"attribute stride is \[1.5, 1.0\]; wanted whole numbers"),
        ("mmcv_v2", {"deform_groups": 3}, "C is 8; wanted a multiple of OG = 3"),
        ("mmcv_v2", {"groups": 3}, "C is 8; wanted a multiple of G = 3"),
        ("plugin_separate", {"info": "{"}, "attribute info is '{'; wanted a JSON object"),
        ("plugin_separate", {"info": "[]"}, r"attribute info is '\[\]'; wanted a JSON object"),
        ("plugin_separate", {"info": "{}"}, "attribute stride is missing"),
    ],
)
@pytest.mark.parametrize("target", ["ort", "portable"])
def test_malformed_nodes_are_named(tmp_path: Path, name: str, changes: dict[str, Any], message: str, target: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        deploydcn.convert(broken(tmp_path / "in.onnx", name, changes), tmp_path / "out.onnx", target=target)
    assert [path.name for path in tmp_path.iterdir()] == ["in.onnx"]


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("mmdeploy_v1", {"padding": [1, 0, 1, 0]}, "four different meanings"),
        ("tensorrt", {"stride": [1, 2]}, "reads as .w, h. and its exporters write as .h, w."),
        ("mmcv_v2", {"with_relu": 1}, "attribute with_relu is not known here"),
        ("plugin_joined", {"name": "DCNv9"}, "plugin 'DCNv9' is not known here"),
    ],
)
def test_nodes_without_an_exact_equivalent_are_refused_or_kept(tmp_path: Path, name: str, changes: dict[str, Any], reason: str) -> None:
    path = broken(tmp_path / "in.onnx", name, changes)
    for target in ("standard", "portable"):
        with pytest.raises(ExportError, match=f"node 'dcn' .* has no exact form for target {target}: .*{reason}"):
            deploydcn.convert(path, tmp_path / "out.onnx", target=target)
    assert [file.name for file in tmp_path.iterdir()] == ["in.onnx"]
    report = deploydcn.convert(path, tmp_path / "out.onnx", target="ort")
    assert report.mapping[0].becomes == ""
    assert any("dcn" in note and "stays as it is" in note for note in report.notes)
    assert any("not compared" in note for note in report.notes)
    assert {name.rpartition("::")[2] for name in operators(tmp_path / "out.onnx")} == {KINDS[name].op_type}


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    kind = KINDS["mmcv_v2"]
    path = source(
        tmp_path / "in.onnx", Kind(kind.op_type, kind.domain, ("X", "offset", "", "W"), kind.attributes, kind.own, kind.weight, 12)
    )
    with pytest.raises(InvalidModel, match="input mask is missing; wanted input, offset, mask, weight, bias"):
        deploydcn.convert(path, tmp_path / "out.onnx", target="ort")


def test_a_wrong_rank_is_named(tmp_path: Path) -> None:
    path = source(tmp_path / "in.onnx", KINDS["mmcv_v1"], weight=drawn(6, 4, 3))
    with pytest.raises(InvalidModel, match=r"node 'dcn'.*wanted 4 dimensions"):
        deploydcn.convert(path, tmp_path / "out.onnx", target="standard")


# -------------------------------------------------------------------------------------------------------------- Paddle
@pytest.mark.parametrize("target", TARGETS)
def test_paddle_files_that_lack_their_offset_groups(tmp_path: Path, target: str) -> None:
    """Paddle2ONNX writes the standard node, its pads in ONNX's order, a bias always, and no offset_group."""
    inputs = {"X": drawn(2, 8, 9, 11), "offset": drawn(2, 24, 9, 12, scale=2.0), "mask": drawn(2, 12, 9, 12)}
    layer = node("DeformConv", ["X", "W", "offset", "B", "mask"], ["y"], name="layer", pads=[1, 0, 1, 2], group=1)
    weight, own = drawn(6, 8, 3, 2, scale=0.2), {"pads": (1, 0, 1, 2), "offset_group": 2}
    shapes = {name: ("n", array.shape[1], f"{name}_h", f"{name}_w") for name, array in inputs.items()}
    path = write(tmp_path / "in.onnx", [layer], shapes, ["y"], {"W": weight, "B": np.ones(6, np.float32)})
    model = onnx.load(path)
    with pytest.raises(InvalidModel, match="node 'layer': DeformConv2d input offset: dimension 1 is 24; wanted 12"):
        deploydcn.convert(path, tmp_path / "out.onnx", target=target)
    model.producer_name = "PaddlePaddle"
    onnx.save(model, path)
    report = deploydcn.convert(path, tmp_path / "out.onnx", target=target, check=False)
    assert any("layer: offset_group 2 restored from the offset's 24 channels" in note for note in report.notes)
    assert any("layer: its bias is all ones" in note for note in report.notes)
    wanted = op_named("DeformConv2d").reference({**inputs, "W": weight, "B": np.ones(6)}, own)[0]
    got = deploydcn.load(tmp_path / "out.onnx", "ort").run(inputs)["y"]
    assert np.abs(got - wanted).max() <= TOLERANCE * np.abs(wanted).max()
