"""Pictures and plots of two sides: what agrees looks so, what differs is marked where it differs."""

from __future__ import annotations

import base64
import io
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from deploydcn.vision import Detections, data_uri, draw_detections_side_by_side, draw_points, svg
from deploydcn.vision.comparison import CANDIDATE, DIFFERENT, GAP, PAIRED, REFERENCE
from tests.browser import Page

GROUND = np.full((120, 160, 3), 200, np.uint8)
BOXES = np.array([[10, 20, 60, 80], [90, 30, 140, 100]], np.float32)


def detections(boxes: np.ndarray, classes: tuple[int, ...] = (0, 1)) -> Detections:
    return Detections(boxes, np.full(len(boxes), 0.9, np.float32), np.array(classes[: len(boxes)]))


def count(image: np.ndarray, colour: str) -> int:
    return int((np.abs(image.astype(int) - ImageColor.getrgb(colour)).max(2) == 0).sum())


def halves(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    width = (image.shape[1] - GAP) // 2
    return image[:, :width], image[:, width + GAP :]


def test_equal_boxes_bear_the_same_colours_on_both_sides() -> None:
    image = draw_detections_side_by_side(GROUND, detections(BOXES), detections(BOXES[::-1], (1, 0)), names=["car", "dog"])
    assert image.shape == (120, 2 * 160 + GAP, 3)
    left, right = halves(image)
    assert count(image, DIFFERENT) == 0
    for colour in PAIRED[:2]:
        assert count(left, colour) == count(right, colour) > 100


@pytest.mark.parametrize(
    ("boxes", "classes"),
    [(BOXES + np.array([[0, 0, 0, 0], [0, 60, 0, 60]]), (0, 1)), (BOXES, (0, 0)), (BOXES[:1], (0,))],
    ids=["moved", "class", "missing"],
)
def test_boxes_without_a_partner_stand_out(boxes: np.ndarray, classes: tuple[int, ...]) -> None:
    left, right = halves(draw_detections_side_by_side(GROUND, detections(BOXES), detections(boxes.astype(np.float32), classes)))
    assert count(left, DIFFERENT) > 100
    assert (count(right, DIFFERENT) > 100) == (len(boxes) == 2)


def test_no_boxes_are_no_error() -> None:
    none = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    assert count(draw_detections_side_by_side(GROUND, none, detections(BOXES)), DIFFERENT) > 100


def test_points_that_differ_are_marked_and_joined() -> None:
    reference = np.array([[20.0, 30.0], [60.0, 80.0], [90.0, 120.0]])
    same = draw_points(GROUND, reference, reference + 0.05, tolerance=0.1, zoom=4)
    assert same.shape == (480, 640, 3)
    assert count(same, DIFFERENT) == 0
    assert min(count(same, REFERENCE), count(same, CANDIDATE)) > 20
    moved = reference.copy()
    moved[1] += [10, 0]
    image = draw_points(GROUND, reference, moved, tolerance=0.1, zoom=4)
    assert count(image, REFERENCE) == pytest.approx(count(same, REFERENCE) * 2 / 3, rel=0.1)
    line = image[4 * 62 : 4 * 68, 4 * 78 : 4 * 84]
    assert count(line, DIFFERENT) > 10
    # A planted swap of rows and columns is a difference, and so is a point that is not a number.
    assert count(draw_points(GROUND, reference, reference[:, ::-1], tolerance=0.1), DIFFERENT) > 20
    lost = np.where([[True], [False], [False]], np.nan, reference)
    assert count(draw_points(GROUND, reference, lost, tolerance=0.1), DIFFERENT) > 5


def test_data_uri_holds_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 255, (5, 7, 3)).astype(np.uint8)
    kind, _, data = data_uri(image, kind="PNG").partition(",")
    assert kind == "data:image/png;base64"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), image)


def circles(text: str) -> list[tuple[float, float]]:
    root = ElementTree.fromstring(text)
    return [(float(item.get("cy", 0)), float(item.get("r", 0))) for item in root.iter("{http://www.w3.org/2000/svg}circle")]


def test_a_curve_rises_where_the_error_does_and_marks_what_is_too_large() -> None:
    marks = circles(svg.curve([1e-7, 1e-6, 1e-3, 1e-2], list("abcd"), title="error", limit=1e-4))
    heights, radii = zip(*marks, strict=True)
    assert sorted(heights, reverse=True) == list(heights)
    assert radii == (2.5, 2.5, 4.5, 4.5)
    # A decade is a decade.
    assert heights[0] - heights[1] == pytest.approx(heights[2] - heights[3], abs=0.2)
    assert heights[1] - heights[2] == pytest.approx(3 * (heights[0] - heights[1]), abs=0.3)


def test_a_curve_leaves_out_what_was_not_measured() -> None:
    text = svg.curve([1e-7, None, 1e-3], list("abc"), title="error")
    assert len(circles(text)) == 2
    assert "b: " not in text


def test_a_histogram_takes_the_largest_numbers_there_are() -> None:
    ElementTree.fromstring(svg.histogram([("x", np.array([-1.7e308, 1.7e308]))], title="h"))


@pytest.mark.parametrize("values", [[], [0.0], [math.nan, 1.0], [math.inf, 0.0, 1e-30]], ids=["none", "zero", "nan", "inf"])
def test_odd_numbers_still_make_a_plot(values: list[float]) -> None:
    text = svg.curve(values, [f"<layer & {index}>" for index in range(len(values))], title='a "title" <of> & more', limit=1e-4)
    root = ElementTree.fromstring(text)
    assert root.get("aria-label") == 'a "title" <of> & more'
    assert text.count("l8 8m0 -8l-8 8") == sum(not math.isfinite(value) for value in values)
    ElementTree.fromstring(svg.histogram([("a", np.array(values)), ("b", np.zeros(0))], title="h"))


def test_a_histogram_has_the_counts() -> None:
    text = svg.histogram([("reference", np.array([0.0, 0, 0, 0, 1])), ("candidate", np.array([0.0, 1, np.nan]))], title="values", bins=2)
    baseline, full = svg.HEIGHT - svg.BOTTOM, svg.HEIGHT - svg.BOTTOM - svg.TOP
    assert f"V{baseline - full:.1f}h" in text  # four of the first bin, the most
    assert text.count(f"V{baseline - full / 2:.1f}h") == 3  # one: half as high on a square-root scale
    assert "candidate (1 not finite)" in text


@pytest.mark.slow
@pytest.mark.backend("chromium")
def test_plots_are_drawn_in_a_page(tmp_path: Path) -> None:
    plots = svg.curve([1e-7, 1e-3], ["a", "b"], title="error", limit=1e-4) + svg.histogram([("x", np.arange(9.0))], title="values")
    (tmp_path / "page.html").write_text(f"<!doctype html><body style='color:#333'>{plots}")
    with Page(tmp_path / "profile") as page:
        page.open(tmp_path / "page.html")
        assert page.evaluate("[...document.querySelectorAll('svg')].map(plot => plot.getBoundingClientRect().width > 300)") == [True, True]
        page.screenshot(tmp_path / "shot.png")
        assert page.errors == []
    assert np.asarray(Image.open(tmp_path / "shot.png").convert("L")).std() > 5
