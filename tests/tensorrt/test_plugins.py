"""Plugin objects as TensorRT sees them: what they decide, what they store, what they refuse, and how they say so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from deploydcn.ops import op_named
from deploydcn.testing import PluginFailure, run_plugin
from deploydcn.testing.plugins import restore_plugin, trace_plugin

pytestmark = [pytest.mark.backend("emulation"), pytest.mark.slow]

ATTRIBUTES: dict[str, Any] = {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1), "offset_group": 2, "activation": "relu"}
LINEAR, HWC8 = 0, 2  # nvinfer1::TensorFormat


def inputs(dtype: Any = np.float32, *, batch: int = 2, offset_dtype: Any = None) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"X": (batch, 12, 7, 9), "W": (20, 12, 3, 3), "offset": (batch, 36, 7, 9), "B": (20,), "mask": (batch, 18, 7, 9)}
    dtypes = dict.fromkeys(shapes, dtype) | {"offset": offset_dtype or dtype}
    return {name: rng.standard_normal(shape).astype(dtypes[name]) for name, shape in shapes.items()}


def formats(report: str) -> list[int]:
    return [int(line.split()[-1]) for line in report.splitlines() if line.startswith("tensor")]


def workspace(report: str) -> int:
    return next(int(line.split()[1]) for line in report.splitlines() if line.startswith("workspace"))


def test_half_precision_takes_channels_last_and_float32_linear() -> None:
    assert formats(trace_plugin("DeformConv2d", inputs(np.float16), ATTRIBUTES).report) == [HWC8, LINEAR, LINEAR, LINEAR, LINEAR, HWC8]
    assert formats(trace_plugin("DeformConv2d", inputs(np.float32), ATTRIBUTES).report) == [LINEAR] * 6


def test_workspace_does_not_grow_with_the_batch() -> None:
    sizes = {workspace(trace_plugin("DeformConv2d", inputs(np.float16, batch=batch), ATTRIBUTES).report) for batch in (1, 2, 8)}
    assert sizes == {2 * 20 * 9 * 16}  # the packed weight: outputs x taps x channels rounded up to 8


def test_engines_store_every_attribute_and_the_format() -> None:
    report = trace_plugin("DeformConv2d", inputs(), ATTRIBUTES).report
    stored = [line.removeprefix("stores ") for line in report.splitlines() if line.startswith("stores")]
    assert stored == [attr.name for attr in op_named("DeformConv2d").spec.attributes] + ["allow_tf32", "deploydcn_format"]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_optional_inputs_are_told_apart_when_left_out(dtype: Any) -> None:
    op, tolerance = op_named("DeformConv2d"), 5e-6 if dtype == np.float32 else 1e-3
    for left_out in ({"B"}, {"mask"}, {"B", "mask"}):
        given = {name: value for name, value in inputs(dtype).items() if name not in left_out}
        wanted = op.reference(given, ATTRIBUTES)[0]
        assert np.abs(run_plugin("DeformConv2d", given, ATTRIBUTES)[0] - wanted).max() <= tolerance * np.abs(wanted).max(), left_out


def test_the_standard_operator_has_a_creator() -> None:
    attributes = {name: value for name, value in ATTRIBUTES.items() if name != "activation"}
    wanted = op_named("DeformConv2d").reference(inputs(), attributes)[0]
    got = run_plugin("DeformConv", inputs(), attributes)[0]
    assert np.abs(got - wanted).max() <= 5e-6 * np.abs(wanted).max()


def test_tf32_is_used_only_when_allowed() -> None:
    wanted = op_named("DeformConv2d").reference(inputs(), ATTRIBUTES)[0]
    outputs = {allowed: run_plugin("DeformConv2d", inputs(), {**ATTRIBUTES, "allow_tf32": allowed})[0] for allowed in (0, 1)}
    error = {allowed: np.abs(output - wanted).max() / np.abs(wanted).max() for allowed, output in outputs.items()}
    assert error[0] < 5e-6
    assert 2e-5 < error[1] < 1e-3  # 10 bits of mantissa


def without(mapping: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key != name}


def with_shape(name: str, *shape: int) -> dict[str, np.ndarray]:
    return {**inputs(), name: np.zeros(shape, np.float32)}


REFUSED = {
    "wrong_offset_channels": (with_shape("offset", 2, 20, 7, 9), ATTRIBUTES, "input offset: dimension 1 is 20; wanted 36 = 2*OG*KH*KW"),
    "wrong_mask_channels": (with_shape("mask", 2, 9, 7, 9), ATTRIBUTES, "input mask: dimension 1 is 9; wanted 18"),
    "wrong_offset_size": (with_shape("offset", 2, 36, 7, 8), ATTRIBUTES, "input offset: dimension 3 is 8; wanted 9"),
    "wrong_weight_channels": (with_shape("W", 20, 5, 3, 3), ATTRIBUTES, "input W: dimension 1 is 5; wanted 12"),
    "wrong_batch": (with_shape("mask", 3, 18, 7, 9), ATTRIBUTES, "input mask: dimension 0 is 3; wanted 2"),
    "wrong_rank": (with_shape("offset", 2, 36, 7), ATTRIBUTES, "input offset has 3 dimensions; wanted 4"),
    "offset_missing": (without(without(without(inputs(), "offset"), "B"), "mask"), ATTRIBUTES, "wanted X, W, offset, B?, mask?"),
    "mixed_types": ({**inputs(), "mask": inputs()["mask"].astype(np.float16)}, ATTRIBUTES, "supportsFormatCombination"),
    "half_offsets_beside_float32": (
        {**inputs(), "offset": inputs()["offset"].astype(np.float16)},
        ATTRIBUTES,
        "positions may be float32",
    ),
    "float64": (inputs(np.float64), ATTRIBUTES, "wanted one of float32, float16, bfloat16"),
    "stride_zero": (inputs(), {**ATTRIBUTES, "strides": (0, 1)}, "attribute strides is [0, 1]; wanted every element at least 1"),
    "negative_padding": (inputs(), {**ATTRIBUTES, "pads": (0, 0, -1, 0)}, "wanted every element at least 0"),
    "short_attribute": (inputs(), {**ATTRIBUTES, "pads": (1, 1)}, "attribute pads has 2 elements; wanted 4: PT, PL, PB, PR"),
    "float_attribute": (inputs(), {**ATTRIBUTES, "strides": (1.0, 1.0)}, "attribute strides has plugin field type 1; wanted integers"),
    "string_attribute": (inputs(), {**ATTRIBUTES, "strides": "1,1"}, "wanted integers"),
    "list_for_one": (inputs(), {**ATTRIBUTES, "group": (1, 1)}, "attribute group has 2 elements; wanted 1"),
    "int64_attribute": (inputs(), {**ATTRIBUTES, "offset_group": 2**40 + 2}, "wanted a value that fits 32 bits"),
    "unknown_activation": (inputs(), {**ATTRIBUTES, "activation": "gelu"}, "'gelu'; wanted one of '', 'relu', 'relu6', 'silu'"),
    "group_does_not_divide": (inputs(), {**ATTRIBUTES, "group": 5}, "input W: dimension 1 is 12; wanted 2"),
    "tf32_is_a_flag": (inputs(), {**ATTRIBUTES, "allow_tf32": 7}, "attribute allow_tf32 is 7; wanted 0 or 1"),
}


@pytest.mark.parametrize("versioned_logger", [False, True], ids=["tensorrt10", "tensorrt11"])
@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_node_and_fix(name: str, versioned_logger: bool) -> None:
    given, attributes, message = REFUSED[name]
    with pytest.raises(PluginFailure) as failure:
        trace_plugin("DeformConv2d", given, attributes, versioned_logger=versioned_logger)
    assert message in str(failure.value)
    if name != "mixed_types":  # there the builder only sees that no format fits
        assert "deploydcn: node 'node': DeformConv2d" in str(failure.value)


def test_sizes_beyond_the_kernels_are_refused_before_anything_runs() -> None:
    huge = {"X": np.zeros((1, 1, 1, 1), np.float32), "W": np.zeros((1, 1, 1, 1), np.float32)}
    with pytest.raises(PluginFailure, match=r"padded height is .*; the GPU kernels take at most 1073741824"):
        run_plugin("GroupedConv2d", huge, {"pads": (2**31 - 2, 0, 0, 0), "strides": (2**31 - 1, 1)})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "in format 0; this plugin library reads format 1; rebuild the engine"),
        ({"deploydcn_format": 9}, "in format 9; this plugin library reads format 1"),
        ({"deploydcn_format": 1, "strides": (1,)}, "attribute strides has 1 elements; wanted 2"),
        ({"deploydcn_format": 1, "group": 0}, "attribute group is 0; wanted every element at least 1"),
        ({"deploydcn_format": 1, "activation": "\x07"}, "wanted one of ''"),
    ],
)
def test_damaged_engines_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PluginFailure, match="deploydcn: node 'node'") as failure:
        restore_plugin("DeformConv2d", fields)
    assert message in str(failure.value)


def test_an_intact_engine_is_restored() -> None:
    restore_plugin("DeformConv2d", {"deploydcn_format": 1, "offset_group": 2})
