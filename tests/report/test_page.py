"""The page in a browser: everything is drawn, nothing is fetched, no script runs, dark is dark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploydcn.report import write_report
from tests.browser import Page
from tests.report.models import IMAGE, Boxes, net, report_of, swapped

pytestmark = [pytest.mark.backend("chromium"), pytest.mark.backend("torch"), pytest.mark.backend("jinja2"), pytest.mark.slow]

SIZES = "[...document.querySelectorAll({!r})].map(item => item.getBoundingClientRect().width)"
LOADED = "[...document.images].map(image => image.complete && image.naturalWidth)"


def opened(browser: Page, path: Path) -> None:
    browser.open(path)
    assert browser.errors == []
    assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data"}


def test_a_failure_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_report(report_of(net(), swapped()), path, models=(net(), swapped()))
    with Page(tmp_path / "profile") as browser:
        opened(browser, path)
        assert browser.evaluate("document.querySelector('#verdict h1').textContent").startswith("FAIL")
        assert browser.evaluate("document.querySelectorAll('#outputs tbody tr').length") == 2
        assert browser.evaluate("[...document.querySelectorAll('tr.blamed th')].map(cell => cell.textContent)") == ["3.offset_conv"]
        # Above the limit: by itself one layer, with all that was wrong before it every one from there on.
        marks = "[...document.querySelectorAll('#network svg')].map(plot => plot.querySelectorAll('circle[r=\"4.5\"]').length)"
        assert browser.evaluate(marks) == [1, 4]
        assert all(width > 300 for width in browser.evaluate(SIZES.format("svg")))
        assert all(browser.evaluate(LOADED))
        assert browser.evaluate("[...document.querySelectorAll('img, svg')].every(item => item.alt || item.getAttribute('aria-label'))")
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_boxes_stand_next_to_each_other(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_report(report_of((Boxes(), IMAGE), (Boxes(label=5), IMAGE), seeds=0), path)
    with Page(tmp_path / "profile") as browser:
        opened(browser, path)
        (width,) = browser.evaluate(LOADED)
        assert width == 2 * 64 * 9 + 8
        row = browser.evaluate("[...document.querySelectorAll('#detections tbody td')].map(cell => cell.textContent)")
        assert row[:8] == ["example", "0", "3", "3", "2", "1", "0", "0"]


def test_dark_is_dark_and_light_is_light(tmp_path: Path) -> None:
    write_report(report_of(net(), net()), tmp_path / "page.html")
    corners = []
    for dark in (False, True):
        with Page(tmp_path / f"profile_{dark}", dark=dark) as browser:
            opened(browser, tmp_path / "page.html")
            assert browser.evaluate("document.querySelector('#verdict h1').textContent").startswith("PASS")
            browser.screenshot(tmp_path / "shot.png")
        corners.append(np.asarray(Image.open(tmp_path / "shot.png").convert("L"))[-3:, -3:].mean())
    assert corners[0] > 240
    assert corners[1] < 40
