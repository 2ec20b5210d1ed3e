"""From every target to every target: same numbers, the operators that the target promises, one file for several sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import deploydcn
from deploydcn.errors import ExportError
from deploydcn.export import TARGETS
from deploydcn.ops import op_named
from tests.convert.helpers import drawn, node, operators, run_plain, write
from tests.export import models
from tests.export.helpers import DYNAMIC, NATIVE, image

pytestmark = pytest.mark.backend("ort")

EXPECTED = {
    "ort": {"deploydcn::DeformConv2d"},
    "tensorrt": {"deploydcn::DeformConv2d"},
    "standard": {"DeformConv"},
    "portable": {"Gather", "MatMul"},
}
TOLERANCE = 2e-5  # three layers in float32, of the largest output


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, dict[str, Path]]:
    """One model, exported for every target."""
    folder = tmp_path_factory.mktemp("exported")
    model = models.with_offsets(models.Fusable())
    for target in TARGETS:
        deploydcn.export_onnx(model, image(4), folder / f"{target}.onnx", dynamic_shapes=DYNAMIC, target=target, check=False)
    return model, {target: folder / f"{target}.onnx" for target in TARGETS}


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", TARGETS)
def test_every_direction(exported: tuple[torch.nn.Module, dict[str, Path]], tmp_path: Path, source: str, target: str) -> None:
    model, files = exported
    path = tmp_path / "out.onnx"
    report = deploydcn.convert(files[source], path, target=target)
    assert report.reference == "the source"
    assert len(report.checks) == 2
    lost = source == "portable"  # decomposed operators are not recognised again
    assert EXPECTED["portable" if lost else target] <= operators(path)
    assert not lost or not report.mapping
    for size, batch in (((14, 17), 2), ((9, 30), 1)):
        x = image(4, size, batch)
        with torch.no_grad():
            wanted = model(x)
        got = deploydcn.load(path, "ort", replace_standard=not NATIVE).run({"x": x.numpy()})
        for name, value in wanted.items():
            assert np.abs(got[name] - value.numpy()).max() <= TOLERANCE * value.abs().max()


@pytest.mark.slow
def test_going_back_and_forth_loses_nothing(exported: tuple[torch.nn.Module, dict[str, Path]], tmp_path: Path) -> None:
    """ort -> standard -> ort fuses again what standard took apart."""
    _, files = exported
    deploydcn.convert(files["ort"], tmp_path / "standard.onnx", target="standard")
    report = deploydcn.convert(tmp_path / "standard.onnx", tmp_path / "back.onnx", target="ort")
    first, back = (onnx.load(path) for path in (files["ort"], tmp_path / "back.onnx"))
    assert sorted(item.op_type for item in first.graph.node) == sorted(item.op_type for item in back.graph.node)
    assert [item.name for item in first.graph.input] == [item.name for item in back.graph.input]
    assert [item.name for item in first.graph.output] == [item.name for item in back.graph.output]
    assert {item.operator: item.becomes for item in report.mapping} == {"DeformConv": "deploydcn::DeformConv2d"}


# --------------------------------------------------------------------------------------------- small files made by hand
WEIGHT = drawn(6, 8, 3, 3, scale=0.2)
SHAPES = {"x": ("n", 8, "h", "w"), "offset": ("n", 18, "h", "w"), "mask": ("n", 9, "h", "w")}


def feeds(height: int = 9, width: int = 11, batch: int = 2, dtype: str = "float32") -> dict[str, np.ndarray]:
    arrays = {
        "x": drawn(batch, 8, height, width),
        "offset": drawn(batch, 18, height, width, scale=2),
        "mask": drawn(batch, 9, height, width),
    }
    return {name: array.astype(dtype) for name, array in arrays.items()}


def wanted(inputs: dict[str, np.ndarray], weight: np.ndarray = WEIGHT, activation: str = "") -> np.ndarray:
    given = {"X": inputs["x"], "W": weight, "offset": inputs["offset"], "mask": inputs["mask"]}
    return op_named("DeformConv2d").reference(given, {"pads": (1, 1, 1, 1), "activation": activation})[0]


def deform(output: str = "y", op_type: str = "DeformConv2d", domain: str = "deploydcn", **attributes: object) -> onnx.NodeProto:
    inputs = ["x", "weight", "offset", "", "mask"]
    return node(op_type, inputs, [output], domain=domain, name="dcn", pads=[1, 1, 1, 1], **attributes)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("activation", ["relu", "relu6", "silu"])
def test_fused_activations_come_out_as_the_target_has_them(tmp_path: Path, target: str, activation: str) -> None:
    source = write(tmp_path / "in.onnx", [deform(activation=activation)], SHAPES, ["y"], {"weight": WEIGHT}, domains=["deploydcn"])
    deploydcn.convert(source, tmp_path / "out.onnx", target=target)
    inputs = feeds()
    expected = wanted(inputs, activation=activation)
    plain = {"relu": {"Relu"}, "relu6": {"Clip"}, "silu": {"Sigmoid", "Mul"}}[activation]
    assert TARGETS[target].plain == (plain <= operators(tmp_path / "out.onnx"))
    got = deploydcn.load(tmp_path / "out.onnx", "ort").run(inputs)["y"]
    assert np.abs(got - expected).max() <= 5e-6 * np.abs(expected).max()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("offset_type", ["float16", "float32"])
def test_half_precision(tmp_path: Path, target: str, offset_type: str) -> None:
    types = {"x": "float16", "offset": offset_type, "mask": "float16"}
    weight = WEIGHT.astype(np.float16)
    source = write(
        tmp_path / "in.onnx", [deform()], SHAPES, ["y"], {"weight": weight}, types=types, output_type="float16", domains=["deploydcn"]
    )
    report = deploydcn.convert(source, tmp_path / "out.onnx", target=target)
    assert any("offsets cast" in note for note in report.notes) == (target == "standard" and offset_type == "float32")
    inputs = {name: array.astype(types[name]) for name, array in feeds().items()}
    expected = wanted(inputs, weight)
    got = deploydcn.load(tmp_path / "out.onnx", "ort").run(inputs)["y"]
    assert got.dtype == np.float16
    # Half an ulp of half precision where offsets keep float32; 2 px in half precision are off by up to 2^-10.
    assert np.abs(got - expected).max() <= (6e-4 if target != "standard" else 3e-3) * np.abs(expected).max()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("opset", [20, 22])
def test_bfloat16(tmp_path: Path, target: str, opset: int) -> None:
    """DeformConv has no bfloat16 before opset 22; ONNX Runtime's CPU provider has none at all."""
    casts = [node("Cast", [name], [f"{name}_half"], to=onnx.TensorProto.BFLOAT16) for name in ("x", "offset", "mask", "weight")]
    layer = node(
        "DeformConv2d", ["x_half", "weight_half", "offset_half", "", "mask_half"], ["h"], domain="deploydcn", name="dcn", pads=[1] * 4
    )
    back = node("Cast", ["h"], ["y"], to=onnx.TensorProto.FLOAT)
    source = write(tmp_path / "in.onnx", [*casts, layer, back], SHAPES, ["y"], {"weight": WEIGHT}, opset=opset, domains=["deploydcn"])
    native = target == "standard" and opset == 22
    report = deploydcn.convert(source, tmp_path / "out.onnx", target=target, check=not native)
    assert any("dcn: computed in float32" in note for note in report.notes) == (target == "standard" and opset == 20)
    if not native:
        first, second = (deploydcn.load(tmp_path / name, "ort").run(feeds())["y"] for name in ("in.onnx", "out.onnx"))
        assert np.abs(first - second).max() <= 2**-7 * np.abs(first).max()  # one unit in the last of 8 bits


@pytest.mark.parametrize("target", TARGETS)
def test_nodes_in_subgraphs(tmp_path: Path, target: str) -> None:
    """The branches of an If use tensors and constants of the outer graph."""
    window = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1, "deform_groups": 1}
    foreign = node("MMCVModulatedDeformConv2d", ["x", "offset", "mask", "weight"], ["a"], domain="mmcv", name="dcn", **window)
    dense = [
        node("Squeeze", ["x"], ["s"], axes=[0]),
        node("Unsqueeze", ["s"], ["u"], axes=[0]),
        node("Conv", ["u", "weight"], ["b"], pads=[1] * 4),
    ]
    branches = [
        onnx.helper.make_graph(nodes, name, [], [onnx.helper.make_tensor_value_info(nodes[-1].output[0], 1, ["n", 6, "h", "w"])])
        for name, nodes in (("then", [foreign]), ("else", dense))
    ]
    choose = node("If", ["flag"], ["y"], then_branch=branches[0], else_branch=branches[1])
    shapes = {name: (1, *shape[1:]) for name, shape in SHAPES.items()}
    source = write(
        tmp_path / "in.onnx",
        [choose],
        {**shapes, "flag": ()},
        ["y"],
        {"weight": WEIGHT},
        types={"flag": "bool"},
        opset=11,
        domains=["mmcv"],
    )
    report = deploydcn.convert(source, tmp_path / "out.onnx", target=target)
    assert (report.source_opset, report.opset) == (11, 20)
    assert EXPECTED[target] <= operators(tmp_path / "out.onnx")
    inputs = feeds(batch=1)
    expected = wanted(inputs)
    runner = deploydcn.load(tmp_path / "out.onnx", "ort")
    assert np.abs(runner.run({**inputs, "flag": np.array(True)})["y"] - expected).max() <= 5e-6 * np.abs(expected).max()
    assert not np.allclose(runner.run({**inputs, "flag": np.array(False)})["y"], expected, atol=0.1)


@pytest.mark.parametrize("target", TARGETS)
def test_external_data(tmp_path: Path, target: str) -> None:
    source = write(tmp_path / "in.onnx", [deform()], SHAPES, ["y"], {"weight": WEIGHT}, domains=["deploydcn"], external=True)
    deploydcn.convert(source, tmp_path / "out.onnx", target=target)
    (tmp_path / "in.onnx.weights").unlink()  # the result must stand alone
    inputs = feeds()
    expected = wanted(inputs)
    got = deploydcn.load(tmp_path / "out.onnx", "ort").run(inputs)["y"]
    assert np.abs(got - expected).max() <= 5e-6 * np.abs(expected).max()


def test_weights_too_large_for_one_file_go_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deploydcn.export import graph

    monkeypatch.setattr(graph, "EXTERNAL_DATA_THRESHOLD", 1000)
    source = write(tmp_path / "in.onnx", [deform()], SHAPES, ["y"], {"weight": WEIGHT}, domains=["deploydcn"])
    deploydcn.convert(source, tmp_path / "out.onnx", target="portable")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.onnx", "out.onnx", "out.onnx.data"]
    inputs = feeds()
    expected = wanted(inputs)
    assert np.abs(run_plain(tmp_path / "out.onnx", inputs)[0] - expected).max() <= 5e-6 * np.abs(expected).max()


@pytest.mark.parametrize("target", ["standard", "portable", "ort"])
def test_batch_norm_is_folded(tmp_path: Path, target: str) -> None:
    parameters = {
        "scale": np.abs(drawn(6)),
        "shift": drawn(6, seed=1),
        "mean": drawn(6, seed=2),
        "variance": np.abs(drawn(6, seed=3)) + 0.5,
    }
    norm = node("BatchNormalization", ["d", *parameters], ["y"])
    source = write(tmp_path / "in.onnx", [deform("d", "DeformConv", ""), norm], SHAPES, ["y"], {"weight": WEIGHT, **parameters})
    report = deploydcn.convert(source, tmp_path / "out.onnx", target=target)
    assert "BatchNormalization" not in operators(tmp_path / "out.onnx")
    assert any("1 batch normalizations folded" in note for note in report.notes)


@pytest.mark.slow
@pytest.mark.parametrize("opset", range(11, 19))
@pytest.mark.parametrize("target", TARGETS)
def test_old_files_are_raised(tmp_path: Path, target: str, opset: int) -> None:
    """Operators whose attributes became inputs, or that changed their meaning, around ours; the foreign node and metadata survive."""
    if opset < 13:
        squeezed, summed = node("Squeeze", ["r"], ["s"], axes=[0]), node("ReduceSum", ["s"], ["t"], axes=[1], keepdims=0)
        axes: dict[str, np.ndarray] = {}
    else:
        squeezed, summed = node("Squeeze", ["r", "first"], ["s"]), node("ReduceSum", ["s", "second"], ["t"], keepdims=0)
        axes = {"first": np.array([0]), "second": np.array([1])}
    if opset < 18:
        mean = node("ReduceMean", ["t"], ["m"], axes=[0], keepdims=1)
    else:
        mean, axes["zero"] = node("ReduceMean", ["t", "zero"], ["m"], keepdims=1), np.array([0])
    unknown = node("Scramble", ["m"], ["y"], domain="com.example", name="scramble", strength=3)
    nodes = [deform("d"), node("Relu", ["d"], ["r"]), squeezed, summed, mean]
    shapes = {name: (1, *shape[1:]) for name, shape in SHAPES.items()}
    constants = {"weight": WEIGHT, **axes}
    source = write(tmp_path / "in.onnx", nodes, shapes, ["m"], constants, opset=opset, domains=["deploydcn"])
    report = deploydcn.convert(source, tmp_path / "out.onnx", target=target)
    kept = target == "portable" and opset >= 16
    assert report.opset == (opset if kept else 20)
    assert ("opset" in " ".join(report.notes)) != kept
    assert report.reference == "the source"  # our operators run at any opset
    assert len(report.checks) == 2
    with_unknown = write(
        tmp_path / "unknown.onnx", [*nodes, unknown], shapes, ["y"], constants, opset=opset, domains=["deploydcn", "com.example"]
    )
    report = deploydcn.convert(with_unknown, tmp_path / "unknown_out.onnx", target=target)
    (scramble,) = [item for item in onnx.load(tmp_path / "unknown_out.onnx").graph.node if item.domain == "com.example"]
    assert (scramble.name, scramble.attribute[0].i) == ("scramble", 3)
    assert any("scramble (com.example::Scramble) stays as it is" in note for note in report.notes)


def test_an_opset_that_cannot_be_raised_names_the_operator(tmp_path: Path) -> None:
    tile = node("Tile", ["x", "tiles", "axis"], ["y"])
    constants = {"tiles": np.array(2, np.float32), "axis": np.array(0, np.float32)}
    source = write(tmp_path / "in.onnx", [tile], {"x": (1, 8, 4, 4)}, ["y"], constants, opset=1)
    with pytest.raises(ExportError, match=r"opset 1 cannot be raised to 20: .*Tile.*; export the model again"):
        deploydcn.convert(source, tmp_path / "out.onnx", target="ort")
    assert [path.name for path in tmp_path.iterdir()] == ["in.onnx"]


def test_large_constants_survive_the_upgrade(tmp_path: Path) -> None:
    """They wait outside onnx's converter, which takes 2 GiB at most."""
    weight = drawn(64, 64, 3, 3, scale=0.05)
    nodes = [node("Conv", ["x", "weight"], ["c"], pads=[1] * 4), node("Squeeze", ["c"], ["y"], axes=[0])]
    source = write(tmp_path / "in.onnx", nodes, {"x": (1, 64, "h", "w")}, ["y"], {"weight": weight}, opset=11)
    deploydcn.convert(source, tmp_path / "out.onnx", target="ort")
    model = onnx.load(tmp_path / "out.onnx")
    assert np.array_equal(next(numpy_helper.to_array(item) for item in model.graph.initializer if item.name == "weight"), weight)
    assert [item.name for item in model.graph.input] == ["x"]


def test_a_portable_file_runs_without_our_library_in_opset_16(tmp_path: Path) -> None:
    source = write(tmp_path / "in.onnx", [deform()], SHAPES, ["y"], {"weight": WEIGHT}, opset=16, domains=["deploydcn"])
    report = deploydcn.convert(source, tmp_path / "out.onnx", target="portable")
    assert report.opset == 16
    assert {entry.domain for entry in onnx.load(tmp_path / "out.onnx").opset_import} == {""}
    for size in ((9, 11, 2), (5, 40, 1)):
        inputs = feeds(*size)
        expected = wanted(inputs)
        (got,) = run_plain(tmp_path / "out.onnx", inputs)
        assert np.abs(got - expected).max() <= 5e-6 * np.abs(expected).max()


# ---------------------------------------------------------------------------------------------------------- detectors
@pytest.mark.parametrize("bug", ["negated", "shifted"])
def test_a_conversion_that_changes_numbers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    """Planted bugs: offsets of the other sign; a hundredth added."""
    from deploydcn.export import portable

    right = portable.DECOMPOSITIONS["DeformConv2d"]

    def wrong(op: object, read: object) -> object:
        if bug == "negated":
            read.inputs["offset"] = op.Neg(read.inputs["offset"])  # type: ignore[attr-defined]
        result = right(op, read)  # type: ignore[arg-type]
        return [op.Add(result[0], 1e-2)] if bug == "shifted" else result  # type: ignore[attr-defined]

    monkeypatch.setitem(portable.DECOMPOSITIONS, "DeformConv2d", wrong)  # type: ignore[arg-type]
    source = write(tmp_path / "in.onnx", [deform()], SHAPES, ["y"], {"weight": WEIGHT}, domains=["deploydcn"])
    with pytest.raises(ExportError, match=r"output 'y' differs from the source's at .*; no file was written"):
        deploydcn.convert(source, tmp_path / "out.onnx", target="portable")
    assert [path.name for path in tmp_path.iterdir()] == ["in.onnx"]
    report = deploydcn.convert(source, tmp_path / "out.onnx", target="portable", check=False)
    assert report.checks == ()
    assert report.summary().endswith("not compared")
