"""The page in a browser, against a server process: what it draws is what Python finds, and it says what goes wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import deploydcn
from deploydcn.vision import Letterbox, decode_yolo, letterbox, read_image
from deploydcn.visual import watch
from deploydcn.visual.tracing import trace
from tests.browser import Page
from tests.serving.page.models import HEIGHT, WIDTH, answering, detector, picture, serving
from tests.serving.page.test_results import LOGITS

pytestmark = [pytest.mark.backend("chromium"), pytest.mark.backend("ort"), pytest.mark.slow]

READY = "document.body?.dataset.state === 'ready'"
NAMES = {0: "red", 1: "<img src=x onerror=alert(1)>", 2: "blue & <b>bold</b>"}
BOXES = "[...document.querySelectorAll('#boxes rect.box')].map(r => ['x', 'y', 'width', 'height'].map(k => Number(r.getAttribute(k))))"
POINTS = "[...document.querySelectorAll('#points .dot')].map(c => ['cy', 'cx', 'fill-opacity'].map(k => Number(c.getAttribute(k))))"


def text(page: Page, selector: str) -> str:
    return str(page.evaluate(f"document.querySelector({json.dumps(selector)}).textContent"))


def cells(page: Page, selector: str) -> list[list[str]]:
    rows: list[list[str]] = page.evaluate(
        f"[...document.querySelectorAll({json.dumps(selector + ' tr')})].map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and images. The photograph is twice the model's input, with colours that are nowhere the same."""
    path = tmp_path_factory.mktemp("page")
    (path / "models").mkdir()
    detector(path / "models" / "detector.onnx", names=json.dumps(NAMES))
    answering(path / "models" / "classifier.onnx", {"output": LOGITS}, names="{1: 'dog'}")
    for version, name in (("1", "cat"), ("2", "dog")):
        (path / "models" / "two" / version).mkdir(parents=True)
        answering(path / "models" / "two" / version / "model.onnx", {"output": LOGITS}, names=json.dumps({1: name}))
    answering(path / "models" / "other.onnx", {"depth": np.ones((1, 1, 4, 4), np.float32)})
    (path / "photo.png").write_bytes(picture(2 * HEIGHT - 16, 2 * WIDTH))
    (path / "broken.png").write_bytes(b"this is text")
    return path


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with serving(folder / "models") as url:
        yield url


@pytest.fixture
def page(address: str, tmp_path: Path) -> Iterator[Page]:
    with Page(tmp_path / "profile") as browser:
        browser.open(f"{address}/", READY)
        browser.choose("#model", "detector")
        browser.wait(READY)
        yield browser
        assert {url.split("/")[2] for url in browser.requests if not url.startswith(("blob:", "data:"))} == {address.split("/")[2]}


def upload(page: Page, image: Path) -> None:
    page.evaluate("document.body.dataset.state = 'about to change'")
    page.upload("#file", image)
    page.wait(READY)


def local(folder: Path) -> tuple[Letterbox, np.ndarray]:
    """What Python makes of the photograph: as the model takes it, and the head that it gives."""
    boxed = letterbox(read_image(folder / "photo.png"), (HEIGHT, WIDTH))
    return boxed, deploydcn.load(folder / "models" / "detector.onnx").run([boxed.tensor])["output"]


def test_boxes_are_those_that_python_finds(page: Page, folder: Path) -> None:
    upload(page, folder / "photo.png")
    boxed, head = local(folder)
    wanted = boxed.to_original(decode_yolo(head)[0])
    assert len(wanted) > 8
    drawn = np.array(page.evaluate(BOXES))
    drawn[:, 2:] += drawn[:, :2]
    np.testing.assert_allclose(drawn, wanted.boxes, atol=1e-4)  # pixels; a box is drawn by its width, x2 - x1
    rows = cells(page, "#found-rows")
    assert [(label, float(score)) for label, score, *_ in rows] == [
        (NAMES[int(kind)], pytest.approx(float(score), abs=6e-4))
        for kind, score in zip(wanted.classes, wanted.scores, strict=True)  # three digits are shown
    ]
    assert {label for label, *_ in rows} == set(NAMES.values())
    assert page.evaluate("document.querySelectorAll('#found-rows img, #boxes img').length") == 0  # names are text
    assert page.evaluate("document.querySelector('#overlay').viewBox.baseVal.width") == 2 * WIDTH
    least = float(np.median(wanted.scores))
    page.evaluate(f"(() => {{ least.step = 'any'; least.value = {least}; least.dispatchEvent(new Event('input')); }})()")
    assert len(page.evaluate(BOXES)) == (wanted.scores >= least).sum()
    assert page.errors == []


def test_latency_goes_on_while_requests_are_repeated(page: Page, folder: Path) -> None:
    upload(page, folder / "photo.png")
    assert text(page, "#count") == "1 request"
    page.evaluate("document.querySelector('#repeat').click()")
    page.wait("parseInt(document.querySelector('#count').textContent) >= 5")
    assert page.evaluate("document.querySelector('#repeat').getAttribute('aria-pressed')") == "true"
    page.evaluate("document.querySelector('#repeat').click()")
    page.wait(READY)
    numbers = {label: [float(value) for value in values] for label, *values in cells(page, "#times")}
    assert len(numbers) == 5
    assert all(least <= min(last, median) for last, least, median in numbers.values())
    assert numbers["round trip"][1] >= numbers["server, all of it"][1] >= numbers["queue and model"][1]
    assert page.evaluate("document.querySelector('#plot-model').points.numberOfItems") >= 5
    assert page.errors == []


def test_points_are_those_that_python_finds(page: Page, folder: Path) -> None:
    upload(page, folder / "photo.png")
    page.evaluate("document.querySelector('#layers').open = true")
    page.wait("document.querySelectorAll('#layer option').length === 1")
    assert "moving (DeformConv2d)" in text(page, "#layer")
    boxed, _ = local(folder)
    (layer,), _ = watch(folder / "models" / "detector.onnx", {"image": boxed.tensor})
    left, top, width, height = page.evaluate(
        "(() => { const b = overlay.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()"
    )
    site = layer.site((14, 20))
    y, x = ((at[site] + 0.5 - start) / boxed.scale for at, start in zip(layer.centres(), (boxed.top, boxed.left), strict=True))
    page.click(left + x / (2 * WIDTH) * width, top + y / (2 * HEIGHT - 16) * height)

    def check(pixel: tuple[int, int]) -> None:
        page.wait(
            f"document.querySelector('#point-info').textContent.startsWith('pixel {pixel[0]},{pixel[1]} of {HEIGHT}x{WIDTH}: 9 points')"
        )
        page.wait(READY)
        (points,) = trace([layer], 0, layer.site(pixel), levels=1)
        wanted = [(points.y + 0.5 - boxed.top) / boxed.scale, (points.x + 0.5 - boxed.left) / boxed.scale, points.weight]
        np.testing.assert_allclose(page.evaluate(POINTS), np.stack(wanted, 1), atol=1e-6)

    check((14, 20))
    page.evaluate("overlay.focus()")
    page.press("ArrowRight")
    check((14, 21))
    page.press("ArrowUp")
    check((13, 21))
    assert page.errors == []


def test_a_dropped_image_and_another_model(page: Page, folder: Path) -> None:
    content = base64.b64encode((folder / "photo.png").read_bytes()).decode()
    page.evaluate(
        "(() => { const bytes = Uint8Array.from(atob('" + content + "'), letter => letter.charCodeAt(0));"
        "const given = new DataTransfer(); given.items.add(new File([bytes], 'dropped.png', {type: 'image/png'}));"
        "const event = new DragEvent('drop', {dataTransfer: given, bubbles: true, cancelable: true});"
        "document.querySelector('#stage').dispatchEvent(event); })()"
    )
    page.wait(f"{READY} && document.querySelectorAll('#found-rows tr').length")
    assert "detections" in text(page, "#found-title")
    page.choose("#model", "classifier")
    page.wait(f"{READY} && document.querySelector('#found-title').textContent === 'most likely classes'")
    assert page.evaluate(BOXES) == []
    assert cells(page, "#found-rows")[0] == ["dog", f"{np.exp(3) / np.exp(LOGITS).sum():.3f}"]
    page.evaluate("document.querySelector('#layers').open = true")
    page.wait("document.querySelector('#layers-hint').textContent === 'This model has no deformable layer.'")
    for version, name in ((1, "cat"), (2, "dog")):
        page.choose("#model", f"two, version {version}")
        page.wait(f"{READY} && document.querySelector('#found-rows th')?.textContent === {name!r}")
    page.choose("#model", "other")
    page.wait(f"{READY} && document.querySelector('#found').hidden")
    assert cells(page, "#output-rows") == [["depth", "FP32", "1x1x4x4", "1", "1", "1", "0"]]
    assert page.errors == []


def test_what_goes_wrong_is_said(page: Page, folder: Path) -> None:
    upload(page, folder / "broken.png")
    assert "the body is no image" in text(page, "#error")
    assert page.evaluate("document.querySelector('#error').getAttribute('role')") == "alert"
    upload(page, folder / "photo.png")
    assert text(page, "#error") == ""
    assert len(page.evaluate(BOXES)) > 8


def test_a_narrow_screen(page: Page, folder: Path) -> None:
    page.resize(360, 740)
    upload(page, folder / "photo.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("document.querySelector('#picture').clientWidth") > 250


def test_a_token_is_asked_for_and_kept(folder: Path, tmp_path: Path) -> None:
    with serving(folder / "models", token="secret") as url, Page(tmp_path / "profile") as page:
        page.open(f"{url}/", READY)

        def enter(token: str) -> None:
            page.evaluate(f"(() => {{ token.value = {json.dumps(token)}; login.requestSubmit(); }})()")
            page.wait(READY)

        assert "Authorization: Bearer TOKEN" in text(page, "#error")
        assert page.evaluate("document.activeElement.id") == "token"
        enter("wrong")
        assert "Authorization: Bearer TOKEN" in text(page, "#error")
        assert page.evaluate("document.querySelectorAll('#model option').length") == 0
        enter("secret")
        assert text(page, "#error") == ""
        assert page.evaluate("[...document.querySelectorAll('#model option')].map(o => o.value)") == [
            *("classifier", "detector", "other"),
            *("two, version 1", "two, version 2"),
        ]
        upload(page, folder / "photo.png")
        assert len(cells(page, "#found-rows")) == 5
        assert not any("secret" in request for request in page.requests)
        page.open(f"{url}/", READY)  # the same tab again
        assert page.evaluate("document.querySelectorAll('#model option').length") == 5


def test_a_server_without_a_page(folder: Path) -> None:
    import urllib.error
    import urllib.request

    with serving(folder / "models", "--no-page") as url:
        for path, data in (("/", None), ("/demo/detector", b"")):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(f"{url}{path}", data=data)
            assert caught.value.code == 404
