"""The README's pictures of two reports: `python -m tests.report.pictures` after `python samples/s10_parity_report.py`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image

from tests.browser import Page

DOCS = Path(__file__).resolve().parents[2] / "docs"
WIDTH = 800


def main() -> None:
    """Open both pages and keep what is seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo"), help="where the sample wrote its pages")
    folder: Path = parser.parse_args().folder
    for name in ("passing", "failing"):
        with tempfile.TemporaryDirectory() as scratch:
            shot = Path(scratch) / "shot.png"
            with Page(Path(scratch) / "profile") as browser:
                browser.open(folder / f"{name}.html")
                browser.screenshot(shot)
            image = Image.open(shot).convert("RGB")
            image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS).save(
                DOCS / f"report_{name}.jpg", quality=80, optimize=True
            )


if __name__ == "__main__":
    main()
