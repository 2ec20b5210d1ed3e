"""Files that are no models, or not the ones meant: one sentence each, and nothing is written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import deploydcn
from deploydcn.errors import InvalidArgument, InvalidModel
from tests.convert.helpers import drawn, node, write

pytestmark = pytest.mark.backend("ort")

WEIGHT = drawn(6, 8, 3, 3, scale=0.2)
SHAPES = {"x": ("n", 8, "h", "w"), "offset": ("n", 18, "h", "w")}
INPUTS = ["x: float32[nx8xhxw]", "weight: float32[6x8x3x3]", "offset: float32[nx18xhxw]"]


def good(path: Path, **options: object) -> Path:
    layer = node("DeformConv", ["x", "weight", "offset"], ["y"], name="layer", pads=[1] * 4)
    return write(path, [layer], SHAPES, ["y"], {"weight": WEIGHT}, **options)  # type: ignore[arg-type]


def refused(source: Path, target: str = "ort", **options: object) -> str:
    before = sorted(source.parent.iterdir()) if source.parent.exists() else []
    with pytest.raises((InvalidModel, InvalidArgument)) as caught:
        deploydcn.convert(source, source.parent / "out.onnx", target=target, **options)  # type: ignore[arg-type]
    assert before == (sorted(source.parent.iterdir()) if source.parent.exists() else [])
    return str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    assert "no.onnx does not exist; wanted an ONNX file" in refused(tmp_path / "no.onnx")
    (tmp_path / "folder.onnx").mkdir()
    assert "folder.onnx is a folder; wanted an ONNX file" in refused(tmp_path / "folder.onnx")


@pytest.mark.parametrize("content", [b"", b"hello, this is text", b"\x08\x07", bytes(range(256)) * 4])
def test_not_onnx(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in.onnx").write_bytes(content)
    message = refused(tmp_path / "in.onnx")
    assert "in.onnx" in message
    assert "ONNX" in message


def test_truncated(tmp_path: Path) -> None:
    path = good(tmp_path / "in.onnx")
    path.write_bytes(path.read_bytes()[:-200])
    assert "in.onnx" in refused(path)


def test_missing_weights_file(tmp_path: Path) -> None:
    path = good(tmp_path / "in.onnx", external=True)
    (tmp_path / "in.onnx.weights").unlink()
    assert "keeps weights in 'in.onnx.weights', which is not in" in refused(path)


def test_inputs_without_shape(tmp_path: Path) -> None:
    model = onnx.load(good(tmp_path / "in.onnx"))
    model.graph.input[1].type.tensor_type.ClearField("shape")
    onnx.save(model, tmp_path / "in.onnx")
    assert "input 'offset' has no shape; wanted one, with names for sizes that vary" in refused(tmp_path / "in.onnx")


def test_no_opset(tmp_path: Path) -> None:
    model = onnx.load(good(tmp_path / "in.onnx"))
    del model.opset_import[:]
    (tmp_path / "in.onnx").write_bytes(model.SerializeToString())
    assert "declares no opset of ONNX's operators" in refused(tmp_path / "in.onnx")


def test_source_is_destination(tmp_path: Path) -> None:
    path = good(tmp_path / "in.onnx")
    before = path.read_bytes()
    (tmp_path / "link.onnx").symlink_to(path)
    for destination in (path, tmp_path / "link.onnx", tmp_path / "." / "in.onnx"):
        with pytest.raises(InvalidArgument, match=r"is to be read and written; wanted another file to write, as in .*in.ort.onnx"):
            deploydcn.convert(path, destination, target="ort")
    assert path.read_bytes() == before


def test_arguments(tmp_path: Path) -> None:
    path = good(tmp_path / "in.onnx")
    assert "target is 'gpu'; wanted one of ort, standard, portable, tensorrt" in refused(path, "gpu")
    assert "no input named 'z'" in refused(path, shapes={"z": (1, 2)})
    assert "the source does not run on the given inputs or shapes" in refused(path, shapes={"x": (1, 8, 9, 9), "offset": (1, 18, 4, 4)})
    with pytest.raises(InvalidArgument, match=r"folder .* does not exist"):
        deploydcn.convert(path, tmp_path / "none" / "out.onnx", target="ort")


def test_an_operator_of_a_newer_deploydcn(tmp_path: Path) -> None:
    path = write(
        tmp_path / "in.onnx", [node("Future", ["x"], ["y"], domain="deploydcn", name="f")], {"x": (1,)}, ["y"], {}, domains=["deploydcn"]
    )
    assert "node 'f': deploydcn has no operator 'Future'; it has DeformConv2d" in refused(path)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"strides": [1]}, "node 'layer': DeformConv2d attribute strides has 1 elements; wanted 2: SH, SW"),
        ({"group": 3}, "node 'layer': DeformConv2d: C is 8; wanted a multiple of G = 3"),
        ({"offset_group": 2}, "node 'layer': DeformConv2d input offset: dimension 1 is 18; wanted 36"),
        ({"colour": 3}, "node 'layer': DeformConv2d has no attribute 'colour'"),
    ],
)
@pytest.mark.parametrize("opset", [20, 17])
def test_nodes_that_break_their_spec(tmp_path: Path, attributes: dict[str, object], message: str, opset: int) -> None:
    """Also where the file's opset must be raised first."""
    layer = node("DeformConv2d", ["x", "weight", "offset"], ["y"], name="layer", domain="deploydcn", **attributes)
    path = write(tmp_path / "in.onnx", [layer], SHAPES, ["y"], {"weight": WEIGHT}, domains=["deploydcn"], opset=opset)
    for target in ("ort", "portable"):
        assert message in refused(path, target)


def test_a_weight_of_unknown_shape_has_no_portable_form(tmp_path: Path) -> None:
    layer = node("DeformConv", ["x", "weight", "offset"], ["y"], name="layer")
    path = write(tmp_path / "in.onnx", [layer], {**SHAPES, "weight": ("m", "c", 3, 3)}, ["y"], {})
    assert "node 'layer' (DeformConv2d): input W has shape [m,c,3,3]; wanted fixed sizes" in refused(path, "portable")


def test_weights_may_be_inputs(tmp_path: Path) -> None:
    layer = node("DeformConv", ["x", "weight", "offset"], ["y"], name="layer", pads=[1] * 4)
    path = write(tmp_path / "in.onnx", [layer], {**SHAPES, "weight": (6, 8, 3, 3)}, ["y"], {})
    report = deploydcn.convert(path, tmp_path / "out.onnx", target="portable")
    assert len(report.checks) == 2


def test_a_source_that_cannot_be_compared_says_why(tmp_path: Path) -> None:
    layer = node("Reshape", ["x", "shape"], ["y"])
    path = write(tmp_path / "in.onnx", [layer], {"x": ("n", "m")}, ["y"], {"shape": np.array([7, 11, 13])})
    report = deploydcn.convert(path, tmp_path / "out.onnx", target="ort")
    assert report.checks == ()
    assert any("not compared: random inputs do not tell" in note and "give inputs, or their shapes" in note for note in report.notes)
    assert deploydcn.convert(path, tmp_path / "out.onnx", target="ort", shapes={"x": (77, 13)}).checks
    assert deploydcn.convert(path, tmp_path / "out.onnx", target="ort", inputs={"x": drawn(143, 7)}).checks


def test_constant_outputs_prove_nothing(tmp_path: Path) -> None:
    path = write(
        tmp_path / "in.onnx",
        [node("Clip", ["x", "low", "high"], ["y"])],
        {"x": ("n", 3)},
        ["y"],
        {"low": np.float32(90), "high": np.float32(99)},
    )
    report = deploydcn.convert(path, tmp_path / "out.onnx", target="ort")
    assert report.checks == ()
    assert any("every output is constant" in note for note in report.notes)
    assert deploydcn.convert(path, tmp_path / "out.onnx", target="ort", inputs={"x": drawn(4, 3, scale=90)}).checks


# -------------------------------------------------------------------------------------------------------------- inspect
def test_inspect_tells_all_targets_and_why_one_is_impossible(tmp_path: Path) -> None:
    layers = [
        node("DeformConv", ["x", "weight", "offset"], ["a"], name="first", pads=[1] * 4),
        node("TrickyDeformConv", ["a"], ["y"], domain="com.example", name="second"),
    ]
    path = write(tmp_path / "in.onnx", layers, SHAPES, ["y"], {"weight": WEIGHT}, domains=["com.example"], external=True)
    report = deploydcn.inspect(path)
    assert report.bytes == path.stat().st_size + (tmp_path / "in.onnx.weights").stat().st_size
    assert (report.nodes, dict(report.domains)) == (2, {"": 20, "com.example": 1})
    assert [str(info) for info in report.found[0].inputs] == [
        "x: float32[nx8xhxw]",
        "weight: float32[6x8x3x3]",
        "offset: float32[nx18xhxw]",
    ]
    plans = {plan.target: plan for plan in report.plans}
    assert [(item.node, item.operator, item.becomes) for item in plans["ort"].mapping] == [
        ("first", "DeformConv", "deploydcn::DeformConv2d"),
        ("second", "com.example::TrickyDeformConv", ""),
    ]
    assert "node 'second' (com.example::TrickyDeformConv) has no exact form for target portable" in plans["portable"].error
    assert json.loads(json.dumps(report.to_json()))["plans"][0]["mapping"][0]["becomes"] == "deploydcn::DeformConv2d"
    with pytest.raises(InvalidArgument, match="target is 'gpu'"):
        deploydcn.inspect(path, targets=["gpu"])
    with pytest.raises(InvalidModel, match="does not exist"):
        deploydcn.inspect(tmp_path / "no.onnx")


# --------------------------------------------------------------------------------------------------------- command line
def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = "from deploydcn.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True)


@pytest.mark.slow
def test_command_line(tmp_path: Path) -> None:
    good(tmp_path / "in.onnx")
    done = command("convert", "in.onnx", "-o", "out.onnx", "--target", "portable", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["mapping"][0] == {
        "node": "layer",
        "operator": "DeformConv",
        "inputs": INPUTS,
        "becomes": "core ONNX operators",
        "reason": "",
    }
    assert len(report["checks"]) == 2
    done = command(
        "convert", "in.onnx", "-o", "out.onnx", "--target", "ort", "--shape", "x=1x8x9x9", "--shape", "offset=1x18x9x9", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "within" in done.stdout
    done = command("convert", "in.onnx", "-o", "in.onnx", "--target", "ort", cwd=tmp_path)
    assert done.returncode == 2
    assert "is to be read and written" in done.stderr
    done = command("inspect", "in.onnx", "--target", "portable", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 DeformConv -> core ONNX operators" in done.stdout
