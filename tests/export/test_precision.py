"""Half precision: what is converted, what stays in float32, and how far the numbers move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import deploydcn
from deploydcn.errors import InvalidArgument, InvalidModel
from deploydcn.parity import compare, default_tolerance
from tests.engine.models import FLOAT, HALF, constant, deformable, model_of, plain, written

pytestmark = pytest.mark.backend("ort")

BATCH = ("n", 3, "h", "w")


def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output], name=output, **attributes)


def number(name: str, *values: float, dtype: type = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values if len(values) > 1 else values[0], dtype), name)


def convert(model: onnx.ModelProto, folder: Path, **options: Any) -> tuple[deploydcn.PrecisionReport, onnx.ModelProto]:
    report = deploydcn.convert_precision(written(model, folder), folder / "half.onnx", **options)
    return report, onnx.shape_inference.infer_shapes(onnx.load(folder / "half.onnx"))


def types(model: onnx.ModelProto) -> dict[str, int]:
    graph = model.graph
    declared = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    return declared | {tensor.name: tensor.data_type for tensor in graph.initializer}


def type_into(model: onnx.ModelProto, name: str) -> list[int]:
    """Types of the inputs of the node with this name."""
    known = types(model)
    return [known[value] for value in next(item for item in model.graph.node if item.name == name).input]


def both(model: onnx.ModelProto, folder: Path, inputs: dict[str, np.ndarray], **options: Any) -> tuple[dict[str, np.ndarray], ...]:
    """Outputs of the file and of its conversion, in ONNX Runtime."""
    convert(model, folder, **options)
    return deploydcn.load(model).run(inputs), deploydcn.load(folder / "half.onnx").run(inputs)


def image(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(shape) * scale).astype(np.float32)


# ----------------------------------------------------------------------------------------------------------- offsets
@pytest.mark.parametrize("form", [{}, {"operator": "DeformConv", "domain": ""}], ids=["ours", "standard"])
def test_offsets_stay_float32_back_to_their_convolution(tmp_path: Path, form: dict[str, str]) -> None:
    report, model = convert(deformable(**form), tmp_path)
    assert report.kept == {"offsets": ("offset_conv",)}
    assert type_into(model, "neck.dcn") == [HALF, HALF, FLOAT, HALF, HALF]
    assert type_into(model, "offset_conv") == [FLOAT, FLOAT]
    assert type_into(model, "mask_conv") == [HALF, HALF]
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 20, "deploydcn": 1}


def test_a_branch_that_makes_offsets_and_mask_at_once(tmp_path: Path) -> None:
    """One convolution of 27 channels, as in most implementations: kept as a whole, the mask's half cast behind it."""
    model = deformable(mask=False, offset_channels=27, inputs=["f", "W", "o", "B", "m"])
    model.graph.initializer.append(number("parts", 18, 9, dtype=np.int64))
    split = [helper.make_node("Split", ["offset", "parts"], ["o", "raw"], axis=1, name="split"), node("Sigmoid", ["raw"], "m")]
    for index, item in enumerate(split):
        model.graph.node.insert(2 + index, item)
    report, half = convert(model, tmp_path)
    assert report.kept == {"offsets": ("split", "offset_conv")}
    assert type_into(half, "m") == [HALF]
    wanted, got = both(model, tmp_path, {"x": image(2, 3, 9, 11)})
    assert compare(wanted, got)[0].worst_channel < default_tolerance("float16").relative


def test_arithmetic_on_offsets_is_kept(tmp_path: Path) -> None:
    """10 * tanh(conv) + flow, as video models have it; the flow's own layer is kept too."""
    model = deformable(mask=False, inputs=["f", "W", "sum", "B"])
    model.graph.initializer.extend([number("ten", 10.0), constant("wf", 18, 6, 1, 1)])
    extra = [
        node("Tanh", ["offset"], "tanh"),
        node("Mul", ["tanh", "ten"], "scaled"),
        node("Conv", ["f", "wf"], "flow"),
        node("Add", ["scaled", "flow"], "sum"),
    ]
    for index, item in enumerate(extra):
        model.graph.node.insert(2 + index, item)
    report, _ = convert(model, tmp_path)
    assert set(report.kept["offsets"]) == {"offset_conv", "tanh", "scaled", "flow", "sum"}


def test_keeping_offsets_is_what_keeps_the_numbers(tmp_path: Path) -> None:
    """At offsets of some ten pixels, rounding them is most of the error."""
    model = deformable(mask=False)
    shifts = np.random.default_rng(1).uniform(-20, 20, 18).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(shifts, "shifts"))
    next(item for item in model.graph.node if item.name == "offset_conv").input.append("shifts")
    x = {"x": image(1, 3, 40, 40)}
    wanted, kept = both(model, tmp_path, x)
    lossy = onnx.load(tmp_path / "half.onnx")
    deform = next(item for item in lossy.graph.node if item.op_type == "DeformConv2d")
    position = list(lossy.graph.node).index(deform)
    lossy.graph.node.insert(position, helper.make_node("Cast", [deform.input[2]], ["rounded"], to=HALF))
    deform.input[2] = "rounded"
    rounded = deploydcn.load(lossy).run(x)
    error = [float(np.sqrt(np.mean((output["y"] - wanted["y"]) ** 2))) for output in (kept, rounded)]
    assert error[0] < error[1] / 3


# ------------------------------------------------------------------------------------------------------- coordinates
def test_grids_and_sizes_stay_float32(tmp_path: Path) -> None:
    """Shape -> Range -> a sampling grid -> GridSample; features around it in half precision."""
    nodes = [
        node("Conv", ["x", "w"], "f", pads=[1] * 4),
        node("Shape", ["x"], "shape"),
        node("Gather", ["shape", "three"], "width"),
        node("Range", ["zero", "width", "one"], "steps"),
        node("Cast", ["steps"], "columns", to=FLOAT),
        node("Cast", ["width"], "float_width", to=FLOAT),
        node("Div", ["columns", "float_width"], "u"),
        node("Reshape", ["u", "row"], "row_u"),
        node("Concat", ["row_u", "row_u"], "grid", axis=3),
        node("GridSample", ["f", "grid"], "sampled", mode="linear"),
        node("Conv", ["sampled", "w1"], "y"),
    ]
    constants = [
        constant("w", 4, 3, 3, 3),
        constant("w1", 5, 4, 1, 1),
        number("three", 3, dtype=np.int64),
        number("zero", 0, dtype=np.int64),
        number("one", 1, dtype=np.int64),
        number("row", 1, 1, -1, 1, dtype=np.int64),
    ]
    model = model_of(nodes, {"x": (FLOAT, (1, 3, "h", "w"))}, {"y": (FLOAT, [None] * 4)}, constants)
    report, half = convert(model, tmp_path)
    assert set(report.kept["coordinates"]) >= {"columns", "float_width", "u", "row_u", "grid", "sampled"}
    assert type_into(half, "y") == [HALF, HALF]
    wanted, got = both(model, tmp_path, {"x": image(1, 3, 6, 3000)})
    assert compare(wanted, got)[0].worst_channel < 3e-3


def test_decoding_behind_the_last_layer_stays_float32(tmp_path: Path) -> None:
    """Boxes of a detector: (anchor + distance) * stride reaches the image's size, where float16 steps by half a pixel."""
    nodes = [
        node("Conv", ["x", "w"], "c"),
        node("Sigmoid", ["c"], "d"),
        node("Add", ["d", "anchors"], "centre"),
        node("Mul", ["centre", "stride"], "y"),
    ]
    anchors = numpy_helper.from_array((np.arange(64, dtype=np.float32) + 0.5).reshape(1, 1, 1, 64), "anchors")
    model = model_of(
        nodes, {"x": (FLOAT, (1, 3, 8, 64))}, {"y": (FLOAT, None)}, [constant("w", 4, 3, 1, 1), anchors, number("stride", 32.0)]
    )
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", FLOAT, (1, 4, 8, 64)))
    report, _ = convert(model, tmp_path)
    assert report.kept == {"outputs": ("d", "centre", "y")}
    wanted, got = both(model, tmp_path, {"x": image(1, 3, 8, 64)})
    assert np.abs(wanted["y"] - got["y"]).max() < 0.02  # pixels, of 2048; float16 alone would be off by up to 0.5


def test_what_a_later_layer_uses_is_no_decoding(tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "w"], "c", pads=[1] * 4), node("Mul", ["c", "c"], "y"), node("Conv", ["y", "w2"], "z")]
    constants = [constant("w", 3, 3, 3, 3), constant("w2", 3, 3, 1, 1)]
    model = model_of(nodes, {"x": (FLOAT, BATCH)}, {"y": (FLOAT, [None] * 4), "z": (FLOAT, [None] * 4)}, constants)
    assert convert(model, tmp_path)[0].kept == {}


# --------------------------------------------------------------------------------------------------------- constants
def small_model(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> onnx.ModelProto:
    """Between two convolutions, so that no output rule applies."""
    around = [node("Conv", ["x", "w0"], "f"), *nodes, node("Conv", ["r", "w1"], "y")]
    return model_of(
        around, {"x": (FLOAT, BATCH)}, {"y": (FLOAT, [None] * 4)}, [constant("w0", 4, 3, 1, 1), constant("w1", 2, 4, 1, 1), *constants]
    )


def test_an_epsilon_keeps_the_root_and_the_quotient_it_protects(tmp_path: Path) -> None:
    nodes = [
        node("Mul", ["f", "f"], "square"),
        node("Add", ["square", "epsilon"], "sum"),
        node("Sqrt", ["sum"], "root"),
        node("Div", ["f", "root"], "r"),
    ]
    model = small_model(nodes, [number("epsilon", 1e-12)])
    report, _ = convert(model, tmp_path)
    assert report.kept == {"constants": ("sum", "root", "r")}
    x = image(1, 3, 4, 4)
    x[..., 0] = 0  # 0 / sqrt(0 + 1e-12): not a NaN only while the epsilon is there
    wanted, got = both(model, tmp_path, {"x": x})
    assert np.isfinite(got["y"]).all()
    assert compare(wanted, got)[0].worst_channel < 5e-3


def test_large_factors_stay_float32_and_large_bounds_are_clamped(tmp_path: Path) -> None:
    nodes = [
        node("Mul", ["f", "factor"], "large"),
        node("Div", ["large", "factor"], "small"),
        node("Clip", ["small", "", "bound"], "clipped"),
        node("Where", ["mask", "clipped", "lowest"], "masked"),
        node("Softmax", ["masked"], "r", axis=1),
    ]
    constants = [number("factor", 1e6), number("bound", 1e9), number("lowest", float(np.finfo(np.float32).min))]
    constants.append(numpy_helper.from_array(np.array([True, True, False, True]).reshape(1, 4, 1, 1), "mask"))
    model = small_model(nodes, constants)
    report, half = convert(model, tmp_path)
    assert set(report.kept["constants"]) == {"large", "small"}
    clamped = [note for note in report.notes if "clamped to" in note]
    assert len(clamped) == 2
    assert "'lowest' of 'masked': clamped to a magnitude of 65504, the largest of float16" in clamped[1]
    assert type_into(half, "r") == [HALF]
    wanted, got = both(model, tmp_path, {"x": image(1, 3, 4, 4)})
    assert compare(wanted, got)[0].worst_channel < 3e-3


def test_infinities_stay_infinite(tmp_path: Path) -> None:
    nodes = [node("Max", ["f", "floor"], "r")]
    report, half = convert(small_model(nodes, [number("floor", -np.inf)]), tmp_path)
    floor = next(numpy_helper.to_array(tensor) for tensor in half.graph.initializer if tensor.name.startswith("floor"))
    assert np.isneginf(floor)
    assert floor.dtype == np.float16
    assert not report.kept


def test_weights_all_too_small_keep_their_layer(tmp_path: Path) -> None:
    model = plain()
    tiny = numpy_helper.to_array(model.graph.initializer[0]) * np.float32(1e-6)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(tiny, "w"))
    report, _ = convert(model, tmp_path)
    assert report.kept == {"constants": ("conv",)}
    assert convert(model, tmp_path, dtype="bf16")[0].kept == {}  # bfloat16 has float32's range


def test_a_constant_used_in_both_precisions_exists_twice(tmp_path: Path) -> None:
    nodes = [node("Add", ["f", "scalar"], "a"), node("Cast", ["a"], "i", to=TensorProto.INT32), node("Cast", ["i"], "b", to=FLOAT)]
    nodes += [
        node("Mul", ["b", "scalar"], "c"),
        node("Conv", ["f", "w2"], "d"),
        node("Mul", ["d", "scalar"], "e"),
        node("Add", ["c", "e"], "r"),
    ]
    _, half = convert(small_model(nodes, [number("scalar", 0.5), constant("w2", 4, 4, 1, 1)]), tmp_path)
    assert sorted(tensor.data_type for tensor in half.graph.initializer if tensor.name.startswith("scalar")) == [FLOAT, HALF]


def test_excluded_nodes_stay_float32(tmp_path: Path) -> None:
    report, half = convert(plain(), tmp_path, exclude=["con*"])
    assert report.kept == {"excluded by name": ("conv",)}
    assert type_into(half, "conv")[1] == FLOAT
    with pytest.raises(InvalidArgument, match="no node is named 'head'; wanted one of conv"):
        convert(plain(), tmp_path, exclude=["head"])


# ------------------------------------------------------------------------------------------------------ inputs, files
def test_inputs_and_outputs_keep_float32_unless_told(tmp_path: Path) -> None:
    _, half = convert(plain(), tmp_path)
    assert (types(half)["x"], types(half)["y"]) == (FLOAT, FLOAT)
    _, half = convert(plain(), tmp_path, keep_io_types=False)
    assert (types(half)["x"], types(half)["y"]) == (HALF, HALF)
    assert not [item for item in half.graph.node if item.op_type == "Cast"]
    assert [item.name for item in half.graph.input] == ["x"]
    assert [item.name for item in half.graph.output] == ["y"]


def test_an_output_inside_the_network_is_cast_once(tmp_path: Path) -> None:
    model = plain()
    model.graph.output.append(helper.make_tensor_value_info("c", FLOAT, ["n", 8, "h", "w"]))
    _, half = convert(model, tmp_path)
    assert types(half)["c"] == FLOAT
    assert len([item for item in half.graph.node if item.op_type == "Cast"]) == 3
    wanted, got = both(model, tmp_path, {"x": image(1, 3, 5, 5)})
    assert max(output.worst_channel for output in compare(wanted, got)) < 3e-3


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_converting_twice_changes_nothing(tmp_path: Path, dtype: str) -> None:
    _, once = convert(deformable(), tmp_path, dtype=dtype)
    report = deploydcn.convert_precision(tmp_path / "half.onnx", tmp_path / "half.onnx", dtype=dtype)
    twice = onnx.load(tmp_path / "half.onnx")
    assert [item.SerializeToString() for item in once.graph.node] == [item.SerializeToString() for item in twice.graph.node]
    assert types(once).items() <= types(onnx.shape_inference.infer_shapes(twice)).items()
    assert report.casts == 0


def test_a_file_in_half_precision_stays_as_it_is(tmp_path: Path) -> None:
    model = model_of([node("Relu", ["x"], "y")], {"x": (HALF, BATCH)}, {"y": (HALF, BATCH)}, domains=())
    report, half = convert(model, tmp_path)
    assert (report.converted, report.casts) == (0, 0)
    assert half.graph.node[0].SerializeToString() == model.graph.node[0].SerializeToString()


def test_subgraphs_stay_float32_and_still_run(tmp_path: Path) -> None:
    branch = helper.make_graph([node("Mul", ["f", "f"], "t")], "then", [], [helper.make_tensor_value_info("t", FLOAT, None)])
    other = helper.make_graph([node("Neg", ["f"], "e")], "else", [], [helper.make_tensor_value_info("e", FLOAT, None)])
    choice = helper.make_node("If", ["yes"], ["r"], name="if", then_branch=branch, else_branch=other)
    model = small_model([choice], [numpy_helper.from_array(np.array(True), "yes")])
    report, _ = convert(model, tmp_path)
    assert set(report.kept["no half form"]) == {"if", "t", "e"}
    wanted, got = both(model, tmp_path, {"x": image(1, 3, 4, 4)})
    assert compare(wanted, got)[0].worst_channel < 3e-3


def test_large_weights_go_to_a_side_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploydcn.export.graph.EXTERNAL_DATA_THRESHOLD", 100)
    (tmp_path / "in").mkdir()
    source = written(deformable(), tmp_path / "in", external=True)
    deploydcn.convert_precision(source, tmp_path / "half.onnx")
    assert (tmp_path / "half.onnx.data").stat().st_size > 1000
    x = {"x": image(1, 3, 6, 6)}
    assert compare(deploydcn.load(source).run(x), deploydcn.load(tmp_path / "half.onnx").run(x))[0].worst_channel < 3e-3


# ---------------------------------------------------------------------------------------------------------- bfloat16
def test_bfloat16_raises_the_opset_and_rounds_weights_once(tmp_path: Path) -> None:
    source = deformable()
    report, half = convert(source, tmp_path, dtype="bf16")
    assert report.dtype == "bfloat16"
    assert {entry.domain: entry.version for entry in half.opset_import}[""] == 22
    weight = next(numpy_helper.to_array(tensor) for tensor in half.graph.initializer if tensor.name.startswith("W"))
    original = next(numpy_helper.to_array(tensor) for tensor in source.graph.initializer if tensor.name == "W")
    assert np.array_equal(weight.astype(np.float32), original.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_bfloat16_is_refused_where_raising_the_opset_would_change_the_meaning(tmp_path: Path) -> None:
    for opset, operator in ((18, "Relu"), (20, "GroupNormalization")):
        model = plain()
        model.opset_import[0].version = opset
        if operator != "Relu":
            model.graph.node[1].CopyFrom(node(operator, ["c", "s", "s"], "y", num_groups=2))
            model.graph.initializer.append(number("s", 1.0, 1.0))
            model.opset_import[0].version = opset = 19  # deprecated, yet found in files
        with pytest.raises((InvalidArgument, InvalidModel)) as raised:
            convert(model, tmp_path, dtype="bf16")
        assert "opset" in str(raised.value) or "GroupNormalization" in str(raised.value)


# --------------------------------------------------------------------------------------------------------- mistakes
def test_mistakes_are_explained(tmp_path: Path) -> None:
    path = written(plain(), tmp_path)
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(InvalidArgument, match="dtype is 'int8'; wanted fp16 or bf16"):
        deploydcn.convert_precision(path, tmp_path / "h.onnx", dtype="int8")
    with pytest.raises(InvalidModel, match=r"none.onnx does not exist"):
        deploydcn.convert_precision(tmp_path / "none.onnx", tmp_path / "h.onnx")
    with pytest.raises(InvalidModel, match=r"text.onnx is not a valid ONNX file"):
        deploydcn.convert_precision(tmp_path / "text.onnx", tmp_path / "h.onnx")
    with pytest.raises(InvalidArgument, match=r"folder .* does not exist"):
        deploydcn.convert_precision(path, tmp_path / "no" / "h.onnx")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "text.onnx"]


# ------------------------------------------------------------------------------------------------------- whole models
@pytest.mark.slow
@pytest.mark.backend("ultralytics")
def test_a_detector_in_half_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """float16 differs from float32 no more than float32 with weights rounded to float16 does, within a factor of three."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "samples"))
    from s02_yolov8n_dcn import build

    model, example = build()
    path = tmp_path / "m.onnx"
    deploydcn.export_onnx(model, None, path, kwargs=example, check=False)
    report = deploydcn.convert_precision(path, tmp_path / "half.onnx")
    assert len(report.kept["offsets"]) == 6
    rounded = onnx.load(path)
    for tensor in rounded.graph.initializer:
        if tensor.data_type == FLOAT and len(tensor.dims) == 4:
            values = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    x = {"x": example["x"].numpy()}
    wanted, half, by_weights = (deploydcn.load(item).run(x)["output"] for item in (path, tmp_path / "half.onnx", rounded))
    for channels in (slice(0, 4), slice(4, None)):  # boxes in pixels, scores
        errors = [float(np.sqrt(np.mean((got - wanted)[:, channels] ** 2))) for got in (half, by_weights)]
        assert errors[0] < 3 * errors[1]
    assert np.sqrt(np.mean((half - wanted)[:, :4] ** 2)) < 0.3  # pixels, of 640
