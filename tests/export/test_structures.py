"""Unusual inputs and outputs."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

import deploydcn
from deploydcn.errors import InvalidArgument
from tests.export import models
from tests.export.helpers import image

pytestmark = [pytest.mark.backend("ort"), pytest.mark.slow]  # a quick selection is in test_quick.py


# -------------------------------------------------------------------------------------------- unusual structures
class Pair(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor


class TakesPair(nn.Module):
    def forward(self, pair: Pair, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"scale": pair.left * scale + pair.right, "scale_out": scale * 2}


def test_namedtuples_scalars_and_clashing_names(tmp_path: Path) -> None:
    arguments = (Pair(torch.randn(2, 3), torch.randn(2, 3)), torch.tensor(3.0))
    path = tmp_path / "m.onnx"
    report = deploydcn.export_onnx(TakesPair(), arguments, path, dynamic_shapes=(Pair({0: "n"}, {0: "n"}), None))
    assert [str(info) for info in report.inputs] == ["pair_left: float32[nx3]", "pair_right: float32[nx3]", "scale: float32[]"]
    assert len({info.name for info in (*report.inputs, *report.outputs)}) == 5
    outputs = deploydcn.load(path).run([np.ones((4, 3), np.float32), np.ones((4, 3), np.float32), np.float32(2)])
    assert [value.shape for value in outputs.values()] == [(4, 3), ()]


def test_keyword_arguments_in_any_order(tmp_path: Path) -> None:
    class Ordered(nn.Module):
        def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            return first * 2 + second.sum()

    kwargs = {"second": torch.randn(5), "first": torch.randn(2, 3)}
    path = tmp_path / "m.onnx"
    report = deploydcn.export_onnx(Ordered(), None, path, kwargs=kwargs, dynamic_shapes={"second": {0: "k"}, "first": {0: "n"}})
    assert [str(info) for info in report.inputs] == ["first: float32[nx3]", "second: float32[k]"]


def test_derived_dimensions(tmp_path: Path) -> None:
    from torch.export import Dim

    class Doubles(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + torch.cat([y, y], 1)

    h = Dim("h", min=2, max=100)
    arguments = (torch.randn(3, 8), torch.randn(3, 4))
    report = deploydcn.export_onnx(Doubles(), arguments, tmp_path / "m.onnx", dynamic_shapes=({1: 2 * h}, {1: h}))
    assert {check.shapes["y"][1] * 2 - check.shapes["x"][1] for check in report.checks} == {0}
    assert len({check.shapes["y"] for check in report.checks}) > 2


def test_axes_of_one_name_must_be_equal(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="dynamic axes named 'n' have sizes 4 and 5 in the example"):
        deploydcn.export_onnx(
            TakesPair(),
            (Pair(torch.randn(4, 3), torch.randn(5, 3)), torch.tensor(1.0)),
            tmp_path / "m.onnx",
            dynamic_shapes=(Pair({0: "n"}, {0: "n"}), None),
        )


def test_what_is_used_in_a_branch_is_not_fused(tmp_path: Path) -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(32, 32, 3, padding=1, groups=4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, lambda y, x: torch.relu(y), lambda y, x: x * 2, (self.conv(x), x))

    report = deploydcn.export_onnx(Branches(), image(32), tmp_path / "m.onnx")
    assert report.operators == {"deploydcn::GroupedConv2d": 1}


@pytest.mark.parametrize("bounds", [(0.0, 0.1), (0, 1)], ids=["floats", "mixed"])
def test_clamps_of_one_tensor_keep_their_bounds(tmp_path: Path, bounds: tuple[float, float]) -> None:
    """onnxscript fuses each pair into one Clip and gives all their bounds one name; and knows no clamp by a float and an int."""

    class Clamps(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first, second = bounds
            x = torch.sigmoid(x)
            return x.clamp(min=first, max=0.9).clamp(min=0.2) + x.clamp(min=second / 2, max=1).clamp(min=0.6)

    path = tmp_path / "m.onnx"
    deploydcn.export_onnx(Clamps(), 3 * torch.randn(4, 50), path)
    x = 3 * torch.randn(4, 50)
    np.testing.assert_allclose(deploydcn.load(path).run([x.numpy()])["output"], Clamps()(x), atol=1e-6)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda x: {"a": x, "n": 3}, "output ['n'] is a int; a file returns tensors only"),
        (lambda x: (x, x.shape[2]), "output [1] is a int"),
        (lambda x: "text", "returned str without a tensor in it"),
    ],
)
def test_outputs_that_are_no_tensors_are_named(tmp_path: Path, result, message: str) -> None:
    class Returns(nn.Module):
        def forward(self, x: torch.Tensor):
            return result(x + 1)

    with pytest.raises(deploydcn.UserError) as raised:
        deploydcn.export_onnx(Returns(), image(3), tmp_path / "m.onnx")
    assert message in str(raised.value)


def test_batch_norm_without_statistics_and_a_name_for_the_batch(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8, track_running_stats=False))
    report = deploydcn.export_onnx(model, image(3), tmp_path / "m.onnx", dynamic_shapes=({0: "n"},))
    assert report.outputs[0].shape == ("n", 8, 14, 17)


WRONG_TYPES = [
    {"opset": "20"},
    {"target": ["ort"]},
    {"dynamic_shapes": 5},
    {"dynamic_shapes": {"x": 5}},
    {"dynamic_shapes": {"x": {0: 1.5}}},
    {"path": None},
    {"output_names": [1]},
    {"output_names": ["a", "a"]},
    {"kwargs": [1]},
]


@pytest.mark.parametrize("arguments", WRONG_TYPES, ids=str)
def test_arguments_of_a_wrong_type(tmp_path: Path, arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        deploydcn.export_onnx(**{"model": models.PureDeform(), "args": image(3), "path": tmp_path / "m.onnx", **arguments})
