"""The page in a browser: it finds by itself the points that Python finds, needs no network, and reacts to clicks and keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import deploydcn
from deploydcn.visual import VisualReport
from deploydcn.visual.page import MOST_POINTS, page_data
from deploydcn.visual.tracing import trace
from tests.browser import Page
from tests.visual.models import photograph
from tests.visual.test_visualize import small_net

READY = "document.body?.dataset.state === 'ready'"  # there is no body while the file is still read
POINTS = "[...document.querySelectorAll('#points tr')].slice(1).map(row => [...row.cells].map(cell => Number(cell.textContent)))"

pytestmark = [pytest.mark.backend("chromium"), pytest.mark.slow]


@pytest.fixture(scope="module")
def report() -> VisualReport:
    example = torch.zeros(1, 3, 48, 64)
    return deploydcn.visualize((small_net(), example), photograph(), pixels=[(3, 4), (9, 9)])


@pytest.fixture
def page(report: VisualReport, tmp_path: Path) -> Iterator[Page]:
    report.write(tmp_path / "page.html")
    with Page(tmp_path / "profile") as browser:
        browser.open(tmp_path / "page.html", READY)
        yield browser
        assert browser.errors == []
        assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data"}


def click_site(page: Page, report: VisualReport, index: int, site: int) -> None:
    """Where the site is drawn on the canvas."""
    y, x = (values[site] for values in report.layers[index].centres())
    box = page.evaluate("(() => { const b = canvas.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()")
    height, width = report.photo.size
    page.click(box[0] + (x + 0.5) / width * box[2], box[1] + (y + 0.5) / height * box[3])
    page.evaluate("drawing")


def test_clicking_a_pixel_shows_its_points(page: Page, report: VisualReport) -> None:
    page.choose("#layer", 1)
    for pixel in ((3, 4), (7, 12), (0, 0)):
        site = report.layers[1].site(pixel)
        click_site(page, report, 1, site)
        assert f"pixel {pixel[0]},{pixel[1]} of 12x16" in page.evaluate("document.querySelector('#info').textContent")
        (wanted,) = trace(report.layers, 1, site, levels=1)
        table = np.array(page.evaluate(POINTS))
        unit = 4 / 64  # positions are kept in 1/64 pixel of a map that has every second pixel twice
        assert np.abs(table[:, 1] - wanted.y).max() <= unit
        assert np.abs(table[:, 2] - wanted.x).max() <= unit
        assert np.abs(table[:, 3] - wanted.weight).max() <= 1 / 255
        assert np.abs(table[:, 4] - wanted.share).max() <= 0.02


def test_points_of_points_are_those_of_python(page: Page, report: VisualReport) -> None:
    """All three levels of both groups. Rounding may put a point that lies midway between two pixels on the other one."""
    for group in (0, 1):
        for site in range(0, 192, 37):
            got = page.evaluate(f"trace(2, {site}, 3, {group}).then(levels => levels.map(points => points.map(p => [p.y, p.x, p.weight])))")
            wanted = trace(report.layers, 2, site, group=group)
            assert [len(level) for level in got] == [len(level.y) for level in wanted]
            for mine, theirs in zip(got, wanted, strict=True):
                y, x, weight = np.array(mine).T
                near = (np.abs(y - theirs.y) < 0.1) & (np.abs(x - theirs.x) < 0.1) & (np.abs(weight - theirs.weight) < 0.02)
                assert near.mean() > 0.95


def test_a_page_with_swapped_axes_would_be_noticed(page: Page, report: VisualReport) -> None:
    """The planted bug: the page's rows and columns exchanged in one layer."""
    page.evaluate("data.layers[0].usual.reverse()")
    (got,) = page.evaluate("trace(0, 40, 1, 0).then(levels => levels.map(points => points.map(p => p.y)))")
    (wanted,) = trace(report.layers, 0, 40, levels=1)
    assert np.abs(np.array(got) - wanted.y).max() > 0.5


def test_layers_keys_and_overlays(page: Page, report: VisualReport, tmp_path: Path) -> None:
    info = "document.querySelector('#info').textContent"
    assert "pixel 3,4 of 12x16" in page.evaluate(info)
    page.evaluate("canvas.focus()")
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowUp"):
        page.press(key)
    page.evaluate("drawing")
    assert "pixel 4,5 of 12x16" in page.evaluate(info)
    before = page.evaluate(info)
    page.choose("#layer", 0)
    page.evaluate("drawing")
    assert "of 24x32" in page.evaluate(info)
    assert page.evaluate("[...document.querySelector('#layer').options].map(option => option.text)") == ["1", "3", "4"]
    page.choose("#layer", 2)
    page.choose("#levels", 1)
    page.evaluate("drawing")
    assert "9 points through 1 layer" in page.evaluate(info)
    assert page.evaluate(info) != before
    legends = {}
    click_site(page, report, 2, report.layers[2].site((3, 4)))
    for overlay in ("none", "field", "offset", "mask"):
        page.choose("#overlay", overlay)
        page.evaluate("drawing")
        legends[overlay] = page.evaluate("document.querySelector('#legend').textContent")
        page.screenshot(tmp_path / f"{overlay}.png")
    assert legends["none"] == ""
    assert legends["field"] == "receptive field, by gradient, square root"
    assert legends["offset"].startswith("mean |offset|, px of the map: ")
    assert legends["mask"].startswith("mean mask: ")
    pictures = [np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")).astype(int) for name in legends]
    assert all(np.abs(picture - pictures[0]).max(2).mean() > 1 for picture in pictures[1:])
    click_site(page, report, 2, 0)
    page.choose("#overlay", "field")
    page.evaluate("drawing")
    assert page.evaluate("document.querySelector('#legend').textContent") == "receptive fields are in this page for 3,4; 9,9"


def test_dark_is_dark_and_light_is_light(report: VisualReport, tmp_path: Path) -> None:
    report.write(tmp_path / "page.html")
    corners = []
    for dark in (False, True):
        with Page(tmp_path / f"profile_{dark}", dark=dark) as browser:
            browser.open(tmp_path / "page.html", READY)
            browser.screenshot(tmp_path / "shot.png")
        corners.append(np.asarray(Image.open(tmp_path / "shot.png").convert("L"))[-3:, -3:].mean())
    assert corners[0] > 240
    assert corners[1] < 40


def test_names_cannot_break_out_of_the_page(report: VisualReport, tmp_path: Path) -> None:
    from dataclasses import replace

    hostile = "</script><script>document.body.dataset.state = 'broken'</script><b>"
    replace(report, image=hostile, notes=(hostile,)).write(tmp_path / "page.html")
    with Page(tmp_path / "profile") as browser:
        browser.open(tmp_path / "page.html", READY)
        assert hostile in browser.evaluate("document.title")
        assert browser.evaluate("document.querySelectorAll('b').length") == 0


def test_large_models_make_small_pages() -> None:
    """Groups are left out first, and the page says so."""
    torch.manual_seed(0)
    layers = [deploydcn.nn.DeformConv2d(16, 16, 3, padding=1, offset_groups=16) for _ in range(3)]
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 1), *layers)
    for layer in layers:
        torch.nn.init.normal_(layer.offset_conv.weight, std=0.1)
    report = deploydcn.visualize((model, torch.zeros(1, 3, 96, 128)), photograph(96, 128), layers=["3"], pixels=[(5, 5)], group=7)
    data = page_data(report)
    assert all(7 in layer["groups"] and len(layer["groups"]) < 16 for layer in data["layers"])
    assert sum(len(layer["groups"]) * 96 * 128 * 9 for layer in data["layers"]) <= MOST_POINTS
    assert any("to keep this page small it holds 1 offset group or head of each layer" in note for note in data["notes"])
