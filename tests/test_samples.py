"""The samples beyond what README's commands show: claims made about them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import deploydcn

SAMPLES = Path(__file__).resolve().parents[1] / "samples"

pytestmark = [pytest.mark.slow, pytest.mark.backend("ort"), pytest.mark.backend("ultralytics")]


@pytest.fixture(autouse=True)
def samples_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SAMPLES))


def offsets_of(model: torch.nn.Module, call) -> list[torch.Tensor]:
    """What every deformable layer's offset branch predicts during a call."""
    from deploydcn.nn import DeformConv2d

    seen: list[torch.Tensor] = []
    hooks = []
    for module in model.modules():
        if isinstance(module, DeformConv2d):
            count = 2 * module.offset_groups * module.kernel_size[0] * module.kernel_size[1]
            hooks.append(module.offset_conv.register_forward_hook(lambda _m, _i, out, count=count: seen.append(out[:, :count])))
    with torch.no_grad():
        call()
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("target", ["ort", "standard"])
def test_resnet50(tmp_path: Path, target: str) -> None:
    from s01_resnet50_dcn import build

    model, images = build(128)
    offsets = offsets_of(model, lambda: model(images))
    assert len(offsets) == 13
    assert all(0.3 < offset.std() < 3 for offset in offsets)
    path = tmp_path / "m.onnx"
    report = deploydcn.export_onnx(model, images, path, dynamic_shapes=({0: "n", 2: "h", 3: "w"},), target=target)
    assert sum(report.operators.values()) == 13
    assert len(report.checks) == 5  # the example, larger, odd, smaller and doubled


def test_wrong_offset_order_would_be_seen() -> None:
    """The sample is sensitive: reading (x, y) for (y, x) in one layer changes the output far beyond the tolerance."""
    from s01_resnet50_dcn import build

    from deploydcn.parity import compare, default_tolerance

    model, images = build(128)
    with torch.no_grad():
        before = model(images).numpy()
        branch = model.layer3[2].conv2.offset_conv
        swap = torch.arange(18).view(9, 2).flip(1).flatten()
        branch.weight.data[:18], branch.bias.data[:18] = branch.weight.data[swap], branch.bias.data[swap]
        after = model(images).numpy()
    assert not compare({"y": before}, {"y": after})[0].passes(10 * default_tolerance("float32").relative)


def test_yolo_layer_outputs_are_alive() -> None:
    """Neither constant outputs nor zero offsets: nothing of the comparison is trivially equal."""
    from s02_yolov8n_dcn import build

    model, example = build()
    runner = deploydcn.load((model, example), "torch")
    offsets = offsets_of(model, lambda: runner.run([example["x"]]))
    assert len(offsets) == 3
    assert all(0.3 < offset.std() < 3 for offset in offsets)
    output = next(iter(runner.run([example["x"]]).values()))
    assert output.shape == (1, 24, 8400)
    assert np.all(output.std(axis=2) > 1e-3)


def test_ultralytics_fuse_folds_into_our_module() -> None:
    """ultralytics' own fuse() folds batch norm into `conv.weight` and `conv.bias`: our module has them where it looks."""
    from s02_yolov8n_dcn import build

    model, example = build()
    with torch.no_grad():
        before = deploydcn.load((model, example), "torch").run([example["x"]])["output"]
        fused = model.fuse(verbose=False)
        after = deploydcn.load((fused, example), "torch").run([example["x"]])["output"]
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in fused.modules()) == 0
    assert np.abs(before - after).max() < 0.05


def test_yolo_object_is_unwrapped(tmp_path: Path) -> None:
    from ultralytics import YOLO

    model = YOLO("yolov8n.yaml", verbose=False)
    torch.manual_seed(0)
    path = tmp_path / "m.onnx"
    report = deploydcn.export_onnx(model, torch.rand(1, 3, 96, 128), path, dynamic_shapes=({0: "n", 2: "h", 3: "w"},))
    assert [str(info) for info in report.inputs] == ["x: float32[nx3xhxw]"]
    assert len(report.outputs) == 1
    assert not getattr(model.model.model[-1], "export", False)  # its head is back in its own mode


def test_digits_train_in_seconds_and_export_as_accurate(tmp_path: Path) -> None:
    import s03_digits

    model = s03_digits.train()
    _, _, images, labels = s03_digits.digits()
    path = tmp_path / "m.onnx"
    deploydcn.export_onnx(model, images[:4], path, dynamic_shapes=({0: "n"},))
    with torch.no_grad():
        expected = model(images).argmax(1).numpy()
    got = deploydcn.load(path).run([images.numpy()])["output"].argmax(1)
    assert np.array_equal(expected, got)
    assert np.mean(got == labels.numpy()) > 0.95
    assert s03_digits.mean_offset(model, images) > 0.1
