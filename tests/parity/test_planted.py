"""Bugs planted one by one into ResNet-50 and YOLOv8 with deformable convolutions: each must show, and each must be located exactly."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import deploydcn
from deploydcn.parity import Location
from tests.parity.plants import (
    Plant,
    attribute,
    between,
    channels,
    drop,
    half_coordinates,
    node_of,
    operator,
    planted,
    split_pairs,
    swap_pairs,
    weight,
)

pytestmark = [pytest.mark.slow, pytest.mark.backend("ort"), pytest.mark.backend("torch")]

SAMPLES = Path(__file__).resolve().parents[2] / "samples"


@pytest.fixture(scope="module")
def samples() -> Iterator[None]:
    sys.path.insert(0, str(SAMPLES))
    yield
    sys.path.remove(str(SAMPLES))


@pytest.fixture(scope="module")
def resnet(samples: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[deploydcn.Runner, onnx.ModelProto]:
    import s01_resnet50_dcn

    model, image = s01_resnet50_dcn.build(96)
    path = tmp_path_factory.mktemp("resnet") / "resnet.onnx"
    deploydcn.export_onnx(model, image, path, check=False)
    return deploydcn.load((model, image), "torch"), onnx.load(path)


@pytest.fixture(scope="module")
def yolo(samples: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[deploydcn.Runner, onnx.ModelProto]:
    import s02_yolov8n_dcn

    model, example = s02_yolov8n_dcn.build()
    path = tmp_path_factory.mktemp("yolo") / "yolo.onnx"
    dynamic = {"x": {0: "n", 2: "h", 3: "w"}}
    deploydcn.export_onnx(model, None, path, kwargs=example, dynamic_shapes=dynamic, check=False)  # tests/test_samples.py does
    return deploydcn.load((model, example), "torch"), onnx.load(path)


def stride_one_layer_early(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """Caffe's ResNet has the stride in a block's first convolution, torchvision's in its second: shapes agree again after both."""
    attribute("strides", [2, 2])(model, node)
    for path, kind in (("layer3.0.conv2.offset_conv", "Conv"), ("layer3.0.conv2", "DeformConv2d")):
        attribute("strides", [1, 1])(model, node_of(model, path, kind))


def dilated(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    attribute("dilations", [2, 2])(model, node)
    attribute("pads", [2, 2, 2, 2])(model, node)


def wrong_epsilon(weights: np.ndarray) -> np.ndarray:
    """Folded with an epsilon of 1e-2 for 1e-5, at a variance of 1."""
    return weights * np.float32(np.sqrt((1 + 1e-5) / (1 + 1e-2)))


# The module is that of the convolution's weight where a norm was folded into it.
PLANTS = [
    Plant("offsets_as_x_y", "layer2.0.conv2", "DeformConv2d", channels(2, swap_pairs, 18)),
    Plant("offsets_y_then_x", "layer4.1.conv2", "DeformConv2d", channels(2, split_pairs, 18)),
    Plant("stride_one_layer_early", "layer3.0.bn1", "Conv", stride_one_layer_early),
    Plant("padding_at_the_other_side", "layer3.1.conv2", "DeformConv2d", attribute("pads", [0, 1, 2, 1])),
    Plant("half_precision_coordinates", "layer2.1.conv2", "DeformConv2d", half_coordinates),
    Plant("whole_offsets", "layer3.5.conv2", "DeformConv2d", between(2, ("Floor", {}))),
    Plant("no_mask", "layer4.0.conv2", "DeformConv2d", drop(4)),
    Plant("sigmoid_of_the_mask_twice", "layer2.3.conv2", "DeformConv2d", between(4, ("Sigmoid", {}))),
    Plant("dilation", "layer4.2.conv2", "DeformConv2d", dilated),
    Plant("epsilon_of_the_norm", "layer1.1.bn2", "Conv", weight(1, wrong_epsilon)),
    Plant("transposed_kernel", "layer1.2.bn2", "Conv", weight(1, lambda kernel: kernel.swapaxes(2, 3))),
    Plant("bias_of_the_next_channel", "layer2.2.bn3", "Conv", weight(2, lambda bias: np.roll(bias, 1))),
    Plant("another_activation", "layer2.3.relu", "Relu", operator("LeakyRelu", alpha=0.1)),
    Plant("bias_of_the_classifier", "fc", "Gemm", weight(2, lambda bias: bias + np.float32(1e-3))),
]


def check_located(location: Location | None, plant: Plant, node: str) -> None:
    """The node at fault is in the finding, and no other one with weights is."""
    assert location is not None
    assert location.verdict == "layer", location.explanation
    assert location.finding is not None
    operators = location.finding.layer.operators
    assert node in [step.name for step in operators], location.explanation
    assert {step.name for step in operators if step.parameters} <= {node, f"{node}.planted_2_0", f"{node}.planted_2_3"}
    assert location.finding.layer.path.rpartition(".")[0] == plant.path.rpartition(".")[0]
    assert location.finding.layer.local_error > 10 * max(location.noise, *(location.finding.before.values()))


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.label)
def test_resnet_against_torch(resnet: tuple[Any, onnx.ModelProto], plant: Plant) -> None:
    runner, good = resnet
    bad, node = planted(good, plant)
    report = deploydcn.verify(runner, bad, runner.example, locate=True)
    assert not report.passed  # first of all: the plant exceeds the tolerance
    check_located(report.location, plant, node)


@pytest.mark.parametrize("plant", PLANTS[::3], ids=lambda plant: plant.label)
def test_resnet_against_a_file(resnet: tuple[Any, onnx.ModelProto], plant: Plant) -> None:
    runner, good = resnet
    bad, node = planted(good, plant)
    report = deploydcn.verify(good, bad, runner.example, locate=True)
    assert not report.passed  # first of all: the plant exceeds the tolerance
    check_located(report.location, plant, node)


@pytest.mark.parametrize("reference", ["torch", "onnx"])
def test_no_plant_no_finding(resnet: tuple[Any, onnx.ModelProto], reference: str) -> None:
    runner, good = resnet
    report = deploydcn.verify(runner if reference == "torch" else good, good, runner.example, locate=True)
    assert report.passed
    assert report.location is not None
    assert (report.location.verdict, report.location.finding) == ("agree", None)
    assert len(report.location.layers) > 100


@pytest.mark.parametrize("path", ["layer1.1.bn2", "layer4.2.conv3", "layer3.4.conv2.offset_conv"])
@pytest.mark.parametrize("reference", ["torch", "onnx"])
def test_plants_in_torch_modules(resnet: tuple[Any, onnx.ModelProto], path: str, reference: str) -> None:
    """The candidate is the PyTorch model: a norm's epsilon, one filter's weights, the offsets' bias."""
    runner, good = resnet
    module = runner.model.get_submodule(path)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    try:
        if path.endswith("bn2"):
            module.eps = 1e-2
        elif path.endswith("offset_conv"):
            module.bias.data[3] += 0.5
        else:
            module.weight.data[7] *= 2
        expected = good if reference == "onnx" else deploydcn.load(good)
        report = deploydcn.verify(expected, runner, runner.example, locate=True)
    finally:
        module.eps = 1e-5
        module.load_state_dict(before)
    assert not report.passed
    assert report.location is not None
    assert report.location.finding is not None
    names = [step.name for step in report.location.finding.layer.operators]
    assert path in names
    assert len(names) <= 3  # a convolution, its norm and its activation, which the file has as one node


@pytest.mark.backend("ultralytics")
@pytest.mark.parametrize(
    "plant",
    [
        Plant("offsets_as_x_y", "model.8.m.0.cv2.conv", "DeformConv2d", channels(2, swap_pairs, 18)),
        Plant("bias_of_the_next_channel", "model.15.cv2.bn", "Conv", weight(2, lambda bias: np.roll(bias, 1))),
        Plant("upsampling", "model.10", "Resize", attribute("nearest_mode", b"ceil")),
    ],
    ids=lambda plant: plant.label,
)
@pytest.mark.parametrize("limit", [1 << 30, 1 << 25], ids=["at_once", "bisection"])
def test_detector_of_300_nodes(yolo: tuple[Any, onnx.ModelProto], plant: Plant, limit: int) -> None:
    """640 x 640: its tensors have 226 MB on either side; with 32 MB for both, it is bisected."""
    runner, good = yolo
    assert len(good.graph.node) >= 300
    bad, node = planted(good, plant)
    report = deploydcn.verify(runner, bad, runner.example, locate=True, memory_limit=limit)
    assert not report.passed
    check_located(report.location, plant, node)
    assert report.location is not None
    assert report.location.peak_bytes <= limit
