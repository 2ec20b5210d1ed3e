"""Statistics that do not lie: what is not a number is counted and placed, never averaged in."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

from deploydcn.parity import statistics
from deploydcn.parity.compare import compare_arrays


def test_special_numbers_are_counted_and_placed_and_kept_out_of_the_mean() -> None:
    array = np.array([[1.0, np.nan, 3.0], [np.inf, -np.inf, np.nan], [0.0, 1e-40, 4.0]], np.float32)
    result = statistics(array)
    assert (result.nan, result.positive_infinities, result.negative_infinities, result.zeros, result.denormals) == (2, 1, 1, 1, 1)
    assert dict(result.first) == {
        "nan": (0, 1),
        "positive_infinities": (1, 0),
        "negative_infinities": (1, 1),
        "zeros": (2, 0),
        "denormals": (2, 1),
    }
    assert (result.min, result.max, result.mean) == (0, 4, pytest.approx(8 / 5))
    assert sum(result.histogram) == 5
    assert result.percentiles[50] == 1
    json.dumps(result.to_json(), allow_nan=False)
    assert str(result) == "float32[3x3] 0 to 4, mean 1.6, std 1.625, 2 NaN, 1 +inf, 1 -inf, 1 denormal"


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 4), np.float32),
        np.full((2, 2), np.nan, np.float32),
        np.full((3,), 7.0),
        np.array(5, np.int64),
        np.array([True, False]),
        np.array([1 + 1j, 2]),
        np.array([-1.7e308, 1.7e308]),
        np.float16([1e-7, 6e4]),
    ],
    ids=["empty", "all_nan", "constant", "whole_scalar", "booleans", "complex", "far_apart", "float16"],
)
def test_no_array_makes_warnings_or_numbers_that_are_none(array: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.filterwarnings("ignore", message="overflow", category=RuntimeWarning)  # of the spread of the largest doubles
        result = statistics(array)
        compared = compare_arrays("y", array, array.copy())
    assert result.shape == array.shape
    assert (result.mean is None) == (not np.isfinite(array.astype(complex)).any())
    assert compared.passes(0)
    json.dumps(compared.to_json(), allow_nan=False)


def test_constant_and_zero_references_divide_by_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        zeros = compare_arrays("y", np.zeros((1, 3, 4), np.float32), np.full((1, 3, 4), 1e-9, np.float32))
        constant = compare_arrays("y", np.full((1, 3, 4), 2, np.float32), np.full((1, 3, 4), 2.002, np.float32))
    assert zeros.worst_channel == 1  # nothing was wanted: whatever is there is all wrong
    assert constant.worst_channel == pytest.approx(1e-3, rel=1e-3)


def test_flushed_denormals_are_no_difference_but_small_numbers_are() -> None:
    reference = np.array([1e-40, 0, 0], np.float32)
    assert compare_arrays("y", reference, np.zeros(3, np.float32)).passes(0)
    assert not compare_arrays("y", np.float32([1e-37, 0]), np.zeros(2, np.float32)).passes(0.5)
    assert not compare_arrays("y", np.float32([3e-5, 1e-5]), np.float16([1e-5, 3e-5])).passes(0.5)  # float16 lives among its denormals


def test_the_worst_element_is_told() -> None:
    reference = np.zeros((2, 3, 4), np.float32)
    reference[:, 1] = 100
    candidate = reference.copy()
    candidate[0, 1, 2] += 1
    candidate[1, 0, 3] += 0.5  # half as much, in a channel of zeros
    assert compare_arrays("y", reference, candidate).worst_index == (1, 0, 3)
    candidate[0, 2, 0] = np.nan
    result = compare_arrays("y", reference, candidate)
    assert result.worst_index == (0, 2, 0)
    assert result.mismatch == "NaN or infinity at other places (1 elements)"
    assert compare_arrays("y", reference, reference).worst_index is None
