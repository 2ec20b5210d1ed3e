"""`deploydcn.quantize`: whole networks in 8 bits, how close they stay, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import deploydcn
from deploydcn.errors import ExportError, InvalidArgument, InvalidModel
from deploydcn.quantization import METHODS
from tests.convert.helpers import node, operators, run_plain, write
from tests.quantize.networks import ACTIVATIONS, LAYERS, exported, images

pytestmark = [pytest.mark.backend("ort"), pytest.mark.slow]

QLINEAR = "deploydcn::QLinearDeformConv2d"
LEAST_DB = 25.0
"""8 bits leave 40 to 50 dB per layer; offsets react to noise, which costs a few more than in a plain network."""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("network") / "float.onnx")


def optimized(path: Path, folder: Path) -> Counter[str]:
    """The operators that ONNX Runtime makes of a file."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    deploydcn.register_ort_ops(options)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(item.op_type for item in onnx.load(folder / "optimized.onnx").graph.node)


FORMS = [(layer, "relu") for layer in LAYERS] + [("modulated", activation) for activation in ACTIVATIONS if activation != "relu"]


@pytest.mark.parametrize(("layer", "activation"), FORMS)
def test_every_form_of_layer_stays_close(tmp_path: Path, layer: str, activation: str) -> None:
    report = deploydcn.quantize(exported(tmp_path / "float.onnx", layer, activation), tmp_path / "int8.onnx", images())
    (output,) = report.agreement
    assert output.sqnr_db > LEAST_DB
    assert report.operators == {QLINEAR: 1}
    assert report.samples == 12
    kept = {choice.kept for choice in report.layers if choice.kept}
    assert kept == {"makes sampling positions or masks of layer"}
    assert report.quantized == 4  # the stem, the deformable layer, the pointwise one, the classifier


def test_onnxruntime_computes_everything_but_offsets_with_integers(tmp_path: Path, network: Path) -> None:
    deploydcn.quantize(network, tmp_path / "int8.onnx", images())
    found = optimized(tmp_path / "int8.onnx", tmp_path)
    assert found["QLinearConv"] == 2
    assert found["QLinearDeformConv2d"] == found["QLinearAdd"] == found["QGemm"] == 1
    assert found["Conv"] == 1  # makes offsets
    assert found["MaxPool"] == 1
    assert found["DequantizeLinear"] == 2  # before the convolution that makes offsets, and before the mean
    assert not found["Relu"]


@pytest.mark.parametrize("target", ["standard", "tensorrt"])
def test_other_targets_carry_q_and_dq_nodes(tmp_path: Path, network: Path, target: str) -> None:
    report = deploydcn.quantize(network, tmp_path / "int8.onnx", images(), target=target)
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators(tmp_path / "int8.onnx")
    assert QLINEAR not in operators(tmp_path / "int8.onnx")
    assert report.agreement[0].sqnr_db > LEAST_DB
    model = onnx.load(tmp_path / "int8.onnx")
    arrays = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    zero_points = [arrays[item.input[2]] for item in model.graph.node if item.op_type == "QuantizeLinear"]
    if target == "standard":
        assert {zero.dtype.name for zero in zero_points} == {"uint8"}
        x = images()["x"][:1]
        wanted = deploydcn.load(tmp_path / "int8.onnx").run({"x": x})["output"]
        assert np.abs(run_plain(tmp_path / "int8.onnx", {"x": x})[0] - wanted).max() <= 1e-4  # no library of ours needed
    else:  # as TensorRT wants it: int8 around 0, biases in float32
        assert {(zero.dtype.name, int(zero)) for zero in zero_points} == {("int8", 0)}
        assert not any(array.dtype == np.int32 for array in arrays.values())


def test_the_file_takes_every_size_the_float_file_takes(tmp_path: Path, network: Path) -> None:
    deploydcn.quantize(network, tmp_path / "int8.onnx", images())
    for size, batch in (((16, 18), 3), ((31, 22), 1)):
        feeds = {"x": images(batch, size)["x"]}
        wanted, got = (deploydcn.load(path).run(feeds)["output"] for path in (network, tmp_path / "int8.onnx"))
        assert np.linalg.norm(got - wanted) <= 10 ** (-LEAST_DB / 20) * np.linalg.norm(wanted)


@pytest.mark.parametrize("options", [{"method": "percentile"}, {"method": "entropy"}, {"activations": "int8"}, {"narrow_weights": True}])
def test_every_option_stays_close(tmp_path: Path, network: Path, options: dict[str, Any]) -> None:
    report = deploydcn.quantize(network, tmp_path / "int8.onnx", images(), **options)
    assert report.agreement[0].sqnr_db > LEAST_DB - 5
    if options.get("narrow_weights"):
        weights = [onnx.numpy_helper.to_array(item) for item in onnx.load(tmp_path / "int8.onnx").graph.initializer]
        assert max(int(np.abs(array.astype(int)).max()) for array in weights if array.dtype == np.int8 and array.ndim > 1) == 64


def test_excluded_nodes_stay(tmp_path: Path, network: Path) -> None:
    report = deploydcn.quantize(network, tmp_path / "int8.onnx", images(), exclude=["layer", "node_linear*"])
    assert report.operators == {"deploydcn::DeformConv2d": 1}
    assert sorted(choice.operator for choice in report.layers if choice.kept == "excluded by name") == ["Gemm", "deploydcn::DeformConv2d"]


def test_files_of_torch_itself_and_without_our_operators(tmp_path: Path) -> None:
    """The standard DeformConv, and a plain network: Q and DQ nodes suit both."""
    standard = exported(tmp_path / "standard.onnx", target="standard")
    assert deploydcn.quantize(standard, tmp_path / "a.onnx", images()).operators == {QLINEAR: 1}
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    plain = write(tmp_path / "plain.onnx", [node("Conv", ["x", "w"], ["y"])], {"x": ("n", 3, 9, 9)}, ["y"], {"w": weight}, opset=13)
    report = deploydcn.quantize(plain, tmp_path / "b.onnx", {"x": images(size=(9, 9))["x"]})
    assert report.agreement[0].sqnr_db > 35


# ----------------------------------------------------------------------------------------------------------- as others do it
def test_as_close_as_onnxruntimes_own_quantizer(tmp_path: Path) -> None:
    """An implementation that is not ours, on the same layers: the deformable one in float32 there, in 8 bits here."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    source = exported(tmp_path / "float.onnx", target="standard")

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.items = iter(images()["x"])

        def get_next(self) -> dict[str, np.ndarray] | None:
            item = next(self.items, None)
            return None if item is None else {"x": item[None]}

    report = deploydcn.quantize(source, tmp_path / "ours.onnx", images(), method="minmax")
    offsets = [choice.node for choice in report.layers if choice.kept]
    quantize_static(
        str(source),
        str(tmp_path / "theirs.onnx"),
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Gemm", "Add"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=offsets,
    )
    theirs, reference = deploydcn.load(tmp_path / "theirs.onnx"), deploydcn.load(source)
    wanted, got = (np.concatenate([runner.run({"x": x[None]})["output"] for x in images()["x"]]) for runner in (reference, theirs))
    decibels = 20 * np.log10(np.linalg.norm(wanted) / np.linalg.norm(wanted - got))
    assert report.agreement[0].sqnr_db > decibels - 3


def test_tensorrt_builds_what_is_written_for_it(tmp_path: Path, network: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings")
    deploydcn.quantize(network, tmp_path / "int8.onnx", images(), target="tensorrt")
    shape = (1, 3, 16, 18)
    report = deploydcn.build_engine(
        tmp_path / "int8.onnx", tmp_path / "m.engine", runtime="tensorrt-rtx", profiles=[{"x": (shape, shape, shape)}]
    )
    assert (tmp_path / "m.engine").is_file()
    assert "int8" in report.summary()


# ------------------------------------------------------------------------------------------------------------------- samples
SAMPLES = Path(__file__).resolve().parents[2] / "samples"


class Digits(NamedTuple):
    """Sample 03, trained. accuracy: of PyTorch on the test images."""

    path: Path
    calibration: dict[str, np.ndarray]
    images: np.ndarray
    labels: np.ndarray
    accuracy: float


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Digits]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SAMPLES))
        from s03_digits import digits, train

        model = train()
        train_x, _, test_x, test_y = digits()
        path = tmp_path_factory.mktemp("digits") / "float.onnx"
        deploydcn.export_onnx(model, test_x[:8], path, dynamic_shapes=({0: "n"},), check=False)
        with torch.no_grad():
            accuracy = float((model(test_x).argmax(1) == test_y).float().mean())
        name = deploydcn.load(path).inputs[0].name
        yield Digits(path, {name: train_x[:200].numpy()}, test_x.numpy(), test_y.numpy(), accuracy)


@pytest.mark.parametrize("method", METHODS)
def test_trained_digits_stay_as_accurate(tmp_path: Path, trained: Digits, method: str) -> None:
    report = deploydcn.quantize(trained.path, tmp_path / "int8.onnx", trained.calibration, method=method)
    assert report.operators == {QLINEAR: 2}
    assert report.agreement[0].top1 is not None
    assert report.agreement[0].top1 > 0.98
    got = deploydcn.load(tmp_path / "int8.onnx").run([trained.images])["output"].argmax(1)
    assert float(np.mean(got == trained.labels)) > trained.accuracy - 0.01


def test_resnet50_stays_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SAMPLES))
    from s01_resnet50_dcn import build

    model, image = build(96)
    deploydcn.export_onnx(model, image, tmp_path / "float.onnx", dynamic_shapes=({0: "n", 2: "h", 3: "w"},), check=False)
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.standard_normal((4, 3, 12, 12)).astype(np.float32))
    data = {"x": torch.nn.functional.interpolate(coarse, size=(96, 96), mode="bicubic").numpy()}
    report = deploydcn.quantize(tmp_path / "float.onnx", tmp_path / "int8.onnx", data)
    assert report.operators == {QLINEAR: 13}
    assert report.quantized == 54
    assert report.bytes < 0.3 * report.source_bytes
    assert report.agreement[0].sqnr_db > 22  # 50 layers deep, offsets computed from rounded features; 26 measured


# ----------------------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "method is 'magic'; wanted one of minmax, percentile, entropy"),
        ({"target": "portable"}, "target is 'portable'; wanted one of ort, standard, tensorrt"),
        ({"activations": "int4"}, "activations is 'int4'; wanted one of uint8, int8"),
        ({"exclude": ["backbone.*"]}, "no node is named 'backbone.*'; wanted one of "),
        ({"limit": 0}, "limit is 0; wanted at least 1"),
    ],
)
def test_mistakes_are_named_and_leave_no_file(tmp_path: Path, network: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        deploydcn.quantize(network, tmp_path / "int8.onnx", images(), **options)
    assert message in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_an_activation_that_is_not_finite_is_named(tmp_path: Path) -> None:
    nodes = [node("Log", ["x"], ["log"], name="logarithm"), node("Conv", ["log", "w"], ["y"], name="conv")]
    weight = np.ones((4, 3, 1, 1), np.float32)
    path = write(tmp_path / "float.onnx", nodes, {"x": (1, 3, 4, 4)}, ["y"], {"w": weight})
    data = {"x": np.ones((3, 1, 3, 4, 4), np.float32)}
    data["x"][2, 0, 1, 1, 1] = 0
    with pytest.raises(InvalidArgument, match=r"activation 'log' \(node 'logarithm'\) is not finite on sample 2"):
        deploydcn.quantize(path, tmp_path / "int8.onnx", data)
    assert [file.name for file in tmp_path.iterdir()] == ["float.onnx"]


def test_an_output_with_little_left_has_a_note(tmp_path: Path) -> None:
    """A sum that cancels: two parts of some hundreds, whose difference is about 1."""
    rng = np.random.default_rng(0)
    half = rng.standard_normal((1, 3, 1, 1)).astype(np.float32) * 300
    nodes = [node("Concat", ["x", "x", "x", "x"], ["wide"], axis=1), node("Conv", ["wide", "w"], ["y"], name="conv")]
    weight = np.concatenate([half, 0.5 - half, half, -half], axis=1).repeat(4, axis=0)
    path = write(tmp_path / "float.onnx", nodes, {"x": (1, 3, 16, 18)}, ["y"], {"w": weight})
    report = deploydcn.quantize(path, tmp_path / "int8.onnx", images(3))
    assert report.agreement[0].sqnr_db < 15
    assert any("output 'y' keeps" in note and "exclude layers" in note for note in report.notes)


def test_a_weight_that_is_not_finite_is_named(tmp_path: Path) -> None:
    weight = np.ones((4, 3, 1, 1), np.float32)
    weight[1] = np.nan
    path = write(tmp_path / "float.onnx", [node("Conv", ["x", "w"], ["y"], name="conv")], {"x": (1, 3, 4, 4)}, ["y"], {"w": weight})
    with pytest.raises((InvalidModel, InvalidArgument), match="not finite"):
        deploydcn.quantize(path, tmp_path / "int8.onnx", {"x": np.ones((1, 3, 4, 4), np.float32)})


def test_nothing_to_quantize_and_quantized_already(tmp_path: Path, network: Path) -> None:
    path = write(tmp_path / "relu.onnx", [node("Relu", ["x"], ["y"])], {"x": (1, 3)}, ["y"], {})
    with pytest.raises(ExportError, match="has no layer that could compute with 8 bits: it has no convolutions"):
        deploydcn.quantize(path, tmp_path / "int8.onnx", {"x": np.ones((1, 3), np.float32)})
    deploydcn.quantize(network, tmp_path / "int8.onnx", images())
    with pytest.raises(InvalidArgument, match="is quantized already; wanted a float32 file"):
        deploydcn.quantize(tmp_path / "int8.onnx", tmp_path / "again.onnx", images())
    with pytest.raises(InvalidArgument, match="is to be read and written"):
        deploydcn.quantize(network, network, images())


def test_the_command(tmp_path: Path, network: Path) -> None:
    np.savez(tmp_path / "calib.npz", **images())
    command = [sys.executable, "-c", "from deploydcn.cli import main; main()", "quantize", str(network), "-o", "int8.onnx"]
    done = subprocess.run([*command, "--calibrate", "calib.npz", "--limit", "5"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "4 of 5 layers with 8 bits" in done.stdout
    assert "makes sampling" in done.stdout
    for arguments, message in (
        (["--calibrate", "calib.npz", "--size", "640"], "--size '640'; wanted HEIGHTxWIDTH"),
        (["--calibrate", "calib.npz", "--mean", "a,b"], "--mean 'a,b'; wanted numbers"),
        (["--calibrate", "none"], "none does not exist; wanted a folder of images"),
        (["--calibrate", "calib.npz", "--exclude", "x.*"], "no node is named 'x.*'"),
    ):
        done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr.replace("\n", " ")
