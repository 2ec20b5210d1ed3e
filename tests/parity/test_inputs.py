"""What models are compared on, and how wrong requests are answered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import deploydcn
from deploydcn.errors import InvalidArgument
from tests.parity.graphs import residual_network

pytestmark = pytest.mark.backend("ort")


def labels(**options: object) -> list[str]:
    return [case.label for case in deploydcn.verify(residual_network(), residual_network(), **options).cases]  # type: ignore[arg-type]


def test_sets_by_default_and_on_request() -> None:
    assert labels() == ["seed 0", "seed 1"]
    assert labels(seed=5, seeds=1, kinds=("zeros", "large")) == ["seed 5", "zeros", "large"]
    assert labels(inputs={"x": np.ones((1, 4, 8, 8), np.float32)}, kinds=("zeros",)) == ["given", "zeros"]


def test_kinds_are_what_they_are_called() -> None:
    seen = []

    class Recorder:
        def __init__(self) -> None:
            self.runner = deploydcn.load(residual_network())
            self.name, self.inputs, self.outputs = self.runner.name, self.runner.inputs, self.runner.outputs

        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            seen.append(inputs["x"])
            return self.runner.run(inputs)

    deploydcn.verify(Recorder(), residual_network(), seeds=2, kinds=("zeros", "large"))
    assert not np.array_equal(seen[0], seen[1])
    assert not seen[2].any()
    assert seen[3].std() == pytest.approx(10, rel=0.2)


def write_image(path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(exist_ok=True)
    image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)).save(path)


def three_channels() -> object:
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (2, 3, 16, 16)) for name in ("image", "y")]
    graph = helper.make_graph([helper.make_node("Sin", ["image"], ["y"])], "sine", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_images_of_a_folder(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg"):
        write_image(tmp_path / "images" / name)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    report = deploydcn.verify(three_channels(), three_channels(), seeds=0, images=tmp_path / "images")
    assert [(case.label, case.shapes["image"]) for case in report.cases] == [("a.jpg", (2, 3, 16, 16)), ("b.png", (2, 3, 16, 16))]
    assert report.passed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": "none"}, "none is not a folder; wanted a folder of .jpg"),
        ({"images": "."}, "holds no images"),
        ({"images": "broken"}, "broken.png is not a readable image"),
        ({"kinds": ("huge",)}, "no kind of inputs is called 'huge'; wanted zeros, large"),
        ({"seeds": -1}, "seeds is -1; wanted a whole number, 0 or more"),
        ({"shapes": {"y": (1,)}}, "no input named 'y'"),
    ],
)
def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(InvalidArgument, match=message):
        deploydcn.verify(three_channels(), three_channels(), **options)  # type: ignore[arg-type]


def test_whatever_a_loader_raises_of_an_image_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages put a loader of their own into Pillow; ultralytics' looks for a further package when it does not know a file."""
    import PIL.Image

    def fail(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'pi_heif'")

    (tmp_path / "a.png").write_bytes(b"not a picture")
    monkeypatch.setattr(PIL.Image, "open", fail)
    with pytest.raises(InvalidArgument, match=r"a\.png is not a readable image: No module named 'pi_heif'"):
        deploydcn.verify(three_channels(), three_channels(), images=tmp_path)


def test_images_need_a_model_that_takes_one(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png")
    with pytest.raises(InvalidArgument, match=r"images are for models of one input \(N, 3, H, W\)"):
        deploydcn.verify(residual_network(), residual_network(), images=tmp_path / "images")


def test_no_sets_are_no_success() -> None:
    with pytest.raises(InvalidArgument, match="there is nothing to compare: no inputs were asked for"):
        deploydcn.verify(residual_network(), residual_network(), seeds=0)


def test_other_inputs_on_either_side() -> None:
    from onnx import TensorProto, helper

    two = residual_network()
    two.graph.input.append(helper.make_tensor_value_info("unused", TensorProto.FLOAT, (1,)))
    with pytest.raises(InvalidArgument, match=r"the reference takes x: .*; the candidate x: .*, unused: .*; wanted as many"):
        deploydcn.verify(residual_network(), two)


def test_a_file_in_half_precision_is_fed_with_rounded_inputs() -> None:
    """float32 against float16 inputs and outputs: the rounding of inputs is part of what half precision costs."""
    from onnx import TensorProto, helper

    def doubled(kind: int) -> onnx.ModelProto:
        ends = [helper.make_tensor_value_info(name, kind, (2, 3)) for name in ("x", "y")]
        graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", ends[:1], ends[1:])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    for sides in ((TensorProto.FLOAT, TensorProto.FLOAT16), (TensorProto.FLOAT16, TensorProto.FLOAT)):
        report = deploydcn.verify(*map(doubled, sides), locate=True)
        assert report.passed
        assert report.tolerance.reason.startswith("11 significant bits")
