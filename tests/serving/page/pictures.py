"""README's picture of the page: `python -m tests.serving.page.pictures` after `make demo`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image
from ultralytics.utils import ASSETS

from tests.browser import Page
from tests.serving.page.models import serving

DOCS = Path(__file__).resolve().parents[3] / "docs"
WIDTH = 800
LEAST = 0.55
PLACE = (0.52, 0.62)
"""Of the photograph, (y, x), that is clicked."""


def main() -> None:
    """Use the page and keep what is seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", type=Path, default=Path("demo/yolov8n_dcn.onnx"), help="what sample 02 wrote")
    model: Path = parser.parse_args().model
    with tempfile.TemporaryDirectory() as scratch, serving(model) as url, Page(Path(scratch) / "profile") as page:
        ready = "document.body?.dataset.state === 'ready'"
        page.open(f"{url}/", ready)
        page.upload("#file", ASSETS / "bus.jpg")
        page.wait("document.querySelectorAll('#boxes rect').length")
        page.evaluate("document.querySelector('#repeat').click()")
        page.wait("parseInt(document.querySelector('#count').textContent) >= 40")
        page.evaluate("document.querySelector('#repeat').click()")
        page.wait(ready)
        page.evaluate("document.querySelector('#layers').open = true")
        page.wait("document.querySelectorAll('#layer option').length")
        page.choose("#layer", 1)
        page.evaluate(f"(() => {{ least.value = {LEAST}; least.dispatchEvent(new Event('input')); }})()")
        left, top, width, height = page.evaluate(
            "(() => { const b = overlay.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()"
        )
        page.click(left + PLACE[1] * width, top + PLACE[0] * height)
        page.wait("document.querySelectorAll('#points circle').length")
        page.screenshot(Path(scratch) / "shot.png")
        image = Image.open(Path(scratch) / "shot.png").convert("RGB")
    size = (WIDTH, round(image.height * WIDTH / image.width))
    image.resize(size, Image.Resampling.LANCZOS).save(DOCS / "serve_page.jpg", quality=82, optimize=True)


if __name__ == "__main__":
    main()
