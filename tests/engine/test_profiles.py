"""Profiles: read from the command line, completed, and refused with a way out."""

from __future__ import annotations

from typing import Any

import pytest

from deploydcn.cli.options import parse_profiles
from deploydcn.engine.profiles import resolve_profiles
from deploydcn.errors import InvalidArgument, InvalidModel
from deploydcn.runners import TensorInfo

X = TensorInfo("x", "float32", ("n", 3, "h", "w"))
MASK = TensorInfo("mask", "float32", ("n", 1))
FIXED = TensorInfo("scale", "float32", (2,))
SPAN = ((1, 3, 8, 8), (2, 3, 16, 16), (4, 3, 32, 32))


def test_several_inputs_and_profiles() -> None:
    given = parse_profiles(["x:1x3x8x8,2x3x16x16,4x3x32x32; mask:1x1,2x1,4x1", "x:1x3x8x8;mask:1x1"])
    profiles, notes = resolve_profiles((X, MASK, FIXED), given)
    assert profiles[0] == {"x": SPAN, "mask": ((1, 1), (2, 1), (4, 1))}
    assert profiles[1]["x"] == ((1, 3, 8, 8),) * 3
    assert not notes


def test_names_may_hold_colons() -> None:
    assert parse_profiles(["image:0:1x3x8x8"]) == [{"image:0": ((1, 3, 8, 8),) * 3}]


def test_fixed_inputs_need_no_profile_and_may_be_named_with_their_shape() -> None:
    assert resolve_profiles((FIXED,), None) == ((), [])
    assert resolve_profiles((X, FIXED), [{"x": SPAN, "scale": ((2,),) * 3}])[0] == ({"x": SPAN},)
    assert resolve_profiles((FIXED,), [{"scale": ((2,),) * 3}])[0] == ()


def test_a_dynamic_batch_alone_gets_the_documented_profile() -> None:
    batch = TensorInfo("x", "float32", ("n", 3, 8, 8))
    profiles, notes = resolve_profiles((batch,), None)
    assert profiles == ({"x": ((1, 3, 8, 8), (4, 3, 8, 8), (8, 3, 8, 8))},)
    assert "1, 4, 8" in notes[0]


@pytest.mark.parametrize(
    ("inputs", "profiles", "message"),
    [
        ((X,), None, "input x: float32[nx3xhxw] has dynamic sizes and no profile"),
        ((X,), [], '--profile "x:1x3x320x320,4x3x640x640,8x3x1280x1280"'),
        ((X, MASK), [{"x": SPAN}], "profile 1 leaves out input mask: float32[nx1]"),
        ((X,), [{"y": SPAN}], "profile 1 names 'y'; the model takes x: float32[nx3xhxw]"),
        (
            (X,),
            [{"x": SPAN}, {"x": (SPAN[2], SPAN[1], SPAN[0])}],
            "profile 2, input 'x': dimension 0 is 4, 2, 1; wanted smallest <= optimal",
        ),
        ((X,), [{"x": ((1, 3, 8),) * 3}], "the smallest shape 1x3x8 has 3 dimensions; wanted 4"),
        ((X,), [{"x": ((1, 3, 8, 8), (1, 3, 8, 8), (1, 4, 8, 8))}], "dimension 1 of the largest shape is 4; the model has 3 fixed there"),
        ((X,), [{"x": ((0, 3, 8, 8),) * 3}], "dimension 0 of the smallest shape is 0; wanted 1 to 2147483647"),
        ((X,), [{"x": ((2**31, 3, 8, 8),) * 3}], "is 2147483648; wanted 1 to 2147483647"),
        ((X,), [{"x": SPAN[:2]}], "wanted three shapes: (min, opt, max)"),
        ((X,), [{"x": "1x3x8x8"}], "wanted three shapes"),
        ((X,), [{"x": ((1, 3, 8.0, 8),) * 3}], "wanted three shapes"),
        ((X,), {"x": SPAN}, "wanted a list of {input name: (min shape, opt shape, max shape)}"),
        ((X,), "x:1x3x8x8", "wanted a list of"),
        ((X,), [SPAN], "profile 1 is ((1, 3, 8, 8)"),
        ((X, MASK), [{"x": SPAN, "mask": ((1, 1), (2, 1), (8, 1))}], "x[0] and mask[0] are both 'n' in the model and must be equal"),
    ],
)
def test_mistakes_are_explained(inputs: tuple[TensorInfo, ...], profiles: Any, message: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        resolve_profiles(inputs, profiles)
    assert message in str(raised.value)


def test_an_input_without_rank_is_the_models_fault() -> None:
    with pytest.raises(InvalidModel, match="input 'x' has no known rank"):
        resolve_profiles((TensorInfo("x", "float32", None),), None)


@pytest.mark.parametrize(
    "text", ["x", "x:", ":1x3", "x:1x3,2x3", "x:1x3,2x3,3x3,4x3", "x:1x-3", "x:1x\u00b2", "x=1x3", "x:1x3;", "x:nx3", "x:1x3;x:1x3"]
)
def test_malformed_options_name_the_form(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"wanted INPUT:SMALLEST,OPTIMAL,LARGEST|names 'x' twice"):
        parse_profiles([text])
