"""`deploydcn.drift`: which layer suffers, what all of them cost together, and which to keep in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import deploydcn
from deploydcn.errors import DeployDcnError, ExportError, InvalidArgument
from tests.convert.helpers import operators
from tests.quantize.networks import exported, images

pytestmark = pytest.mark.backend("ort")

PREDICTED_WITHIN_DB = 5.0
"""Roundings are not quite independent: in smooth images neighbours round alike, and biases add up or cancel. Measured: 0.1 to 3.7 dB on the
networks below."""
TARGETS = {"fp16": 80.0, "bf16": 58.0, "int8": 58.0}
"""Beyond what the small network reaches with all layers lowered."""
CALIBRATION = {"input": images(4)["x"]}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("network") / "float.onnx")


def chain(path: Path, *scales: float, channel: float = 1.0) -> Path:
    """Four convolutions, scales: factors on the weights of each. channel: on what the second computes for
    channel 0 and, inverted, on what the third makes of it."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3 if index == 0 else 8, 8, 3, padding=1) for index in range(4)]
    with torch.no_grad():
        for layer, scale in zip(layers, scales, strict=False):
            layer.weight *= scale
        layers[1].weight[0] *= channel
        layers[1].bias[0] *= channel
        layers[2].weight[:, 0] /= channel
    deploydcn.export_onnx(nn.Sequential(*layers), torch.rand(1, 3, 16, 18), path, check=False)
    return path


def loudest(report: deploydcn.DriftReport) -> int:
    """The place of the layer that costs the outputs most."""
    return min(range(len(report.layers)), key=lambda index: report.layers[index].output_db)


# ------------------------------------------------------------------------------------------------------------- planted layers
@pytest.mark.slow
def test_a_layer_beyond_half_precisions_range_is_named_and_kept(tmp_path: Path) -> None:
    """The third layer returns numbers in the hundred thousands; float16 ends at 65504. Who reads them cannot be float16 either."""
    path = chain(tmp_path / "float.onnx", 60, 60, 2000, 1e-3)
    report = deploydcn.drift(path, CALIBRATION, dtype="fp16", target_db=60)
    assert report.everything.predicted_db == report.everything.measured_db == -np.inf
    assert loudest(report) == 3  # its inputs overflow
    assert report.layers[3].output_db == -np.inf
    assert report.layers[0].output_db > 60
    assert report.reached
    assert report.proposal is not None
    assert {report.layers[2].node, report.layers[3].node} <= set(report.proposal.exclude)
    assert report.layers[0].node not in report.proposal.exclude


@pytest.mark.slow
def test_bfloat16_has_the_range(tmp_path: Path) -> None:
    report = deploydcn.drift(chain(tmp_path / "float.onnx", 60, 60, 2000, 1e-3), CALIBRATION, dtype="bf16")
    assert report.everything.measured_db > 35


class Selecting(nn.Module):
    """Returns the pixels above 1; one of four is there by less than float16 tells apart."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.constant_(self.convolution.weight, 1 + 2**-12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.convolution(x)
        return y[y > 1]


@pytest.mark.slow
def test_why_an_output_cannot_be_compared_is_told(tmp_path: Path) -> None:
    pixels = torch.tensor([0.5, 1.0, 2.0, 3.0]).reshape(1, 1, 2, 2)
    deploydcn.export_onnx(Selecting(), pixels, tmp_path / "float.onnx", check=False)
    report = deploydcn.drift(tmp_path / "float.onnx", {"x": pixels.numpy()}, dtype="fp16")
    assert report.everything.measured_db == -np.inf
    assert "cannot be compared: shape [2], wanted [3]" in report.summary()


@pytest.mark.slow
def test_one_loud_channel_ruins_8_bits_for_the_others(tmp_path: Path) -> None:
    """A scale per tensor, set by a channel a thousand times as loud, leaves nothing of the other channels of that tensor."""
    quiet = deploydcn.drift(chain(tmp_path / "a.onnx"), CALIBRATION, dtype="int8")
    report = deploydcn.drift(chain(tmp_path / "b.onnx", channel=1000), CALIBRATION, dtype="int8", target_db=30)
    assert loudest(report) == 2  # it reads that tensor
    assert quiet.layers[2].output_db > 35
    assert report.layers[2].output_db < 15
    assert report.layers[1].local_db > 30  # the tensor it makes is loud, not wrong
    assert report.reached
    assert report.proposal is not None
    assert report.layers[2].node in report.proposal.exclude


# -------------------------------------------------------------------------------------------------------- what all cost together
@pytest.mark.slow
@pytest.mark.parametrize("dtype", TARGETS)
def test_the_prediction_is_close_and_the_proposal_reaches_its_target(tmp_path: Path, network: Path, dtype: str) -> None:
    report = deploydcn.drift(network, images(), dtype=dtype, target_db=TARGETS[dtype], output=tmp_path / "lowered.onnx")
    assert report.everything.measured_db < TARGETS[dtype]
    assert abs(report.everything.predicted_db - report.everything.measured_db) < PREDICTED_WITHIN_DB
    assert report.reached
    assert report.proposal is not None
    assert report.proposal.exclude
    assert report.proposal.measured_db >= TARGETS[dtype]
    assert report.path == tmp_path / "lowered.onnx"
    assert report.path.is_file()
    reasons = {"int8": "makes sampling positions or masks of layer"}
    assert [layer.kept for layer in report.layers if layer.kept] == [reasons.get(dtype, "offsets")]


def test_the_written_file_is_what_the_other_command_makes_of_the_proposal(tmp_path: Path, network: Path) -> None:
    report = deploydcn.drift(network, images(), dtype="int8", target_db=TARGETS["int8"], output=tmp_path / "ours.onnx")
    assert report.proposal is not None
    other = deploydcn.quantize(network, tmp_path / "other.onnx", images(), exclude=report.proposal.exclude)
    assert (tmp_path / "ours.onnx").read_bytes() == (tmp_path / "other.onnx").read_bytes()
    assert other.agreement[0].sqnr_db == pytest.approx(report.proposal.measured_db, abs=0.5)


def test_without_a_target_all_layers_are_lowered(tmp_path: Path, network: Path) -> None:
    report = deploydcn.drift(network, images(), dtype="fp16", output=tmp_path / "half.onnx")
    assert report.proposal is None
    assert report.reached
    assert "Cast" in operators(tmp_path / "half.onnx")


def test_a_target_out_of_reach_writes_nothing(tmp_path: Path, network: Path) -> None:
    report = deploydcn.drift(network, images(4), dtype="int8", target_db=200, output=tmp_path / "int8.onnx")
    assert not report.reached
    assert report.proposal is None
    assert "200 dB cannot be reached" in report.summary()
    assert not list(tmp_path.iterdir())


def test_fewer_probes_than_samples(network: Path) -> None:
    report = deploydcn.drift(network, images(6), dtype="bf16", probes=2)
    assert (report.samples, report.probes) == (6, 2)


# ------------------------------------------------------------------------------------------------------------------- refusals
def test_mistakes_are_named_and_leave_no_file(tmp_path: Path, network: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"dtype": "fp8"}, "dtype is 'fp8'; wanted one of fp16, bf16, int8"),
        ({"dtype": "int8", "method": "magic"}, "method is 'magic'; wanted one of"),
        ({"dtype": "fp16", "target_db": float("nan")}, "target_db is nan; wanted decibels"),
        ({"dtype": "fp16", "probes": 0}, "probes is 0; wanted at least 1"),
        ({"dtype": "fp16", "calibration": {"y": np.zeros((2, 3, 8, 8))}}, "calibration data has arrays y; wanted one per input: x"),
        ({"dtype": "bf16", "calibration": tmp_path / "photos"}, "photos does not exist; wanted a folder of images, or an .npz file"),
        (
            {"dtype": "fp16", "calibration": {"x": np.full((2, 3, 16, 18), np.nan, np.float32)}},
            "sample 0 of input 'x' holds NaN",
        ),
    ]
    for options, message in cases:
        with pytest.raises(InvalidArgument) as raised:
            deploydcn.drift(network, **{"calibration": images(2), "output": tmp_path / "out.onnx", **options})
        assert message in str(raised.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TARGETS)
def test_a_file_with_nothing_to_lower(tmp_path: Path, dtype: str) -> None:
    torch_like = nn.ReLU()
    path = tmp_path / "relu.onnx"
    torch.onnx.export(torch_like, (torch.rand(1, 3, 4, 4),), path, dynamo=True, verbose=False)
    with pytest.raises(ExportError, match="no layer that could compute"):
        deploydcn.drift(path, [{deploydcn.load(path).inputs[0].name: np.ones((1, 3, 4, 4), np.float32)}], dtype=dtype)


def test_files_that_are_lowered_already(tmp_path: Path, network: Path) -> None:
    deploydcn.convert_precision(network, tmp_path / "half.onnx")
    deploydcn.quantize(network, tmp_path / "int8.onnx", images(2))
    with pytest.raises(InvalidArgument, match="holds half precision already"):
        deploydcn.drift(tmp_path / "half.onnx", images(2), dtype="fp16")
    with pytest.raises(DeployDcnError, match="quantized already"):
        deploydcn.drift(tmp_path / "int8.onnx", images(2), dtype="int8")


# -------------------------------------------------------------------------------------------------------------------- samples
SAMPLES = Path(__file__).resolve().parents[2] / "samples"


@pytest.fixture(scope="module")
def trained_digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """Sample 03 and images for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SAMPLES))
        from s03_digits import digits, train

        model, (train_x, _, test_x, _) = train(epochs=3), digits()
    path = tmp_path_factory.mktemp("digits") / "float.onnx"
    deploydcn.export_onnx(model, test_x[:8], path, dynamic_shapes=({0: "n"},), check=False)
    return path, {deploydcn.load(path).inputs[0].name: train_x[:40].numpy()}


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "target_db"), [("fp16", 72), ("bf16", 54), ("int8", 45)])
def test_trained_digits(trained_digits: tuple[Path, dict[str, np.ndarray]], dtype: str, target_db: float) -> None:
    report = deploydcn.drift(*trained_digits, dtype=dtype, target_db=target_db, probes=40)
    assert report.everything.measured_db < target_db
    assert abs(report.everything.predicted_db - report.everything.measured_db) < PREDICTED_WITHIN_DB
    assert report.reached


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TARGETS)
def test_resnet50(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    monkeypatch.syspath_prepend(str(SAMPLES))
    from s01_resnet50_dcn import build

    model, image = build(64)
    deploydcn.export_onnx(model, image, tmp_path / "float.onnx", check=False)
    coarse = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32))
    data = {"x": torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bicubic").numpy()}
    report = deploydcn.drift(tmp_path / "float.onnx", data, dtype=dtype, probes=2)
    assert abs(report.everything.predicted_db - report.everything.measured_db) < PREDICTED_WITHIN_DB
    assert sum(not layer.kept for layer in report.layers) == 54
