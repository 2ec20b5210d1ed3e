"""Statistics that do not lie: each planted error is seen, each harmless difference is not."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from deploydcn.errors import InvalidArgument
from deploydcn.parity import Tolerance, compare, default_tolerance, random_inputs
from deploydcn.parity.compare import compare_arrays
from deploydcn.parity.verify import ParityCase, ParityReport
from deploydcn.runners import TensorInfo

RNG = np.random.default_rng(0)


def detector_output() -> np.ndarray:
    """(1, 84, 100): four box channels up to 640, eighty scores up to 1."""
    output = RNG.random((1, 84, 100)).astype(np.float32)
    output[:, :4] *= 640
    return output


def test_equal_arrays_are_perfect() -> None:
    result = compare_arrays("y", detector_output(), detector_output() * 0 + 1)
    assert not result.passes(1e-4)
    reference = detector_output()
    same = compare_arrays("y", reference, reference.copy())
    assert (same.max_abs, same.max_relative, same.worst_channel, same.sqnr_db) == (0, 0, 0, math.inf)
    assert same.cosine == pytest.approx(1)
    assert same.passes(0)


def test_a_wrong_score_is_not_hidden_by_large_boxes() -> None:
    reference = detector_output()
    candidate = reference.copy()
    candidate[0, 50, 7] += 0.05
    result = compare_arrays("y", reference, candidate)
    assert result.max_relative < 1e-4  # what a comparison by the whole range would have let pass
    assert result.worst_channel == pytest.approx(0.05, rel=0.1)
    assert not result.passes(1e-4)


def test_a_channel_of_rounding_noise_does_not_fail_the_output() -> None:
    reference = detector_output()
    reference[:, 60] = 1e-12
    candidate = reference.copy()
    candidate[:, 60] = 2e-12
    assert compare_arrays("y", reference, candidate).passes(1e-4)


@pytest.mark.parametrize("plant", ["nan", "inf", "shape"])
def test_incomparable_outputs_fail(plant: str) -> None:
    reference = detector_output()
    candidate = reference.copy()
    if plant == "shape":
        candidate = candidate[:, :, :-1]
    else:
        candidate[0, 0, 0] = np.nan if plant == "nan" else np.inf
    result = compare_arrays("y", reference, candidate)
    assert result.mismatch
    assert not result.passes(1e9)
    json.dumps(result.to_json(), allow_nan=False)


def test_nan_and_infinity_at_the_same_places_are_equal() -> None:
    reference = np.array([[1.0, np.nan, np.inf, -np.inf]])
    assert compare_arrays("y", reference, reference.copy()).passes(0)
    assert not compare_arrays("y", reference, np.array([[1.0, np.nan, -np.inf, np.inf]])).passes(1e9)


def test_top1_counts_rows() -> None:
    reference = np.array([[0.1, 0.9], [0.8, 0.2]], np.float32)
    assert compare_arrays("y", reference, np.array([[0.9, 0.1], [0.8, 0.2]], np.float32)).top1 == 0.5
    assert compare_arrays("y", reference[None], reference[None]).top1 is None


def test_sqnr_and_cosine_have_their_textbook_values() -> None:
    reference, noise = np.ones(1000), np.full(1000, 0.1)
    assert compare_arrays("y", reference, reference + noise).sqnr_db == pytest.approx(20)
    assert compare_arrays("y", np.array([1.0, 0.0]), np.array([0.0, 1.0])).cosine == 0
    assert compare_arrays("y", np.zeros(3), np.zeros(3)).cosine == 1


def test_an_empty_comparison_is_no_success() -> None:
    with pytest.raises(InvalidArgument, match="nothing to compare"):
        compare({"y": np.zeros((0, 4))}, {"y": np.zeros((0, 4))})
    with pytest.raises(InvalidArgument, match="nothing to compare"):
        compare({}, {})
    assert not ParityReport("a", "b", Tolerance(1, ""), ()).passed


def test_output_counts_must_agree() -> None:
    with pytest.raises(InvalidArgument, match="the reference has 1 outputs"):
        compare({"y": np.ones(1)}, {"y": np.ones(1), "z": np.ones(1)})


def test_names_pair_outputs_before_order_does() -> None:
    reference = {"a": np.zeros(2), "b": np.ones(2)}
    assert all(output.passes(0) for output in compare(reference, {"b": np.ones(2), "a": np.zeros(2)}))
    assert all(output.passes(0) for output in compare(reference, {"x": np.zeros(2), "y": np.ones(2)}))


def test_one_failing_case_fails_the_report() -> None:
    good, bad = (tuple(compare({"y": np.ones(3)}, {"y": np.ones(3) + error})) for error in (0, 0.5))
    report = ParityReport("a", "b", Tolerance(0.1, "test"), (ParityCase("1", {}, good), ParityCase("2", {}, bad)))
    assert not report.passed
    assert report.summary().startswith("FAIL: b against a, 2 inputs; worst output 'y' (2): 0.5")


def test_every_precision_has_a_policy_with_a_reason() -> None:
    allowed = [default_tolerance(name) for name in ("float64", "float32", "float16", "bfloat16")]
    assert [tolerance.relative for tolerance in allowed] == sorted(tolerance.relative for tolerance in allowed)
    assert all(tolerance.reason for tolerance in allowed)
    with pytest.raises(InvalidArgument, match="no tolerance policy for 'int8'"):
        default_tolerance("int8")


def test_random_inputs_are_seeded_and_need_sizes() -> None:
    infos = [TensorInfo("x", "float32", ("n", 3)), TensorInfo("i", "int64", (2,))]
    first, again, other = (random_inputs(infos, {"x": (4, 3)}, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first["x"], again["x"])
    assert not np.array_equal(first["x"], other["x"])
    assert first["i"].dtype == np.int64
    with pytest.raises(InvalidArgument, match="--shape x="):
        random_inputs(infos)
    with pytest.raises(InvalidArgument, match="no input named 'y'"):
        random_inputs(infos, {"y": (1,)})


def detections(order: list[int]) -> dict[str, np.ndarray]:
    boxes = np.array([[0, 0, 10, 10], [20, 0, 40, 10], [0, 30, 10, 60], [50, 50, 90, 90]], np.float32)
    scores, labels = np.array([0.9, 0.5, 0.5, 0.1], np.float32), np.array([1, 2, 1, 2])
    return {"boxes": boxes[order], "scores": scores[order], "labels": labels[order], "masks": np.arange(4.0)[order]}


def test_detections_are_compared_as_a_set() -> None:
    reference, reordered = detections([0, 1, 2, 3]), detections([0, 2, 1, 3])
    assert all(output.passes(0) for output in compare(reference, reordered))
    moved = detections([0, 2, 1, 3])
    moved["boxes"][1] += 3
    assert not all(output.passes(1e-3) for output in compare(reference, moved))
    relabelled = detections([0, 2, 1, 3])
    relabelled["labels"][0] = 2
    assert not all(output.passes(1e-3) for output in compare(reference, relabelled))
    fewer = {name: value[:3] for name, value in reference.items()}
    assert all(output.mismatch for output in compare(reference, fewer))


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [
        (np.array([20000]), np.array([20001])),
        (np.array([True]), np.array([1.0])),
        (np.array([1 + 1j]), np.array([1 + 5j])),
        (np.array([1.0]), np.array([1])),
    ],
)
def test_types_that_must_be_equal(reference: np.ndarray, candidate: np.ndarray) -> None:
    assert not compare_arrays("y", reference, candidate).passes(1e-4)
    assert compare_arrays("y", reference, reference.copy()).passes(0)


def test_boxes_that_one_side_lacks_are_a_difference_and_not_nothing() -> None:
    (found,) = compare({"boxes": np.zeros((0, 4))}, {"boxes": np.ones((3, 4))})
    assert found.mismatch == "shape [3, 4], wanted [0, 4]"


def test_an_empty_output_beside_another_is_told_as_empty() -> None:
    empty, full = compare({"boxes": np.zeros((0, 4)), "y": np.ones(3)}, {"boxes": np.zeros((0, 4)), "y": np.ones(3)})
    assert (empty.empty, full.empty) == (True, False)
    assert empty.passes(0)
