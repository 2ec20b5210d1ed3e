"""`python -m tests.models [NAME ...]`: export models, compare them with PyTorch, build them for TensorRT-RTX, and update docs/MODELS.md."""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from pathlib import Path

from rich.console import Console

from tests.models.measure import measured
from tests.models.table import read, row_of, write
from tests.models.zoo import everything

SAMPLES = Path(__file__).resolve().parents[2] / "samples"


def main() -> None:
    """Rows named on the command line, else all."""
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(SAMPLES))
    console = Console(highlight=False)
    wanted = sys.argv[1:]
    known = [model.name for model in everything()]
    for name in wanted:
        if name not in known:
            raise SystemExit(f"there is no model {name!r}; wanted one of {', '.join(known)}")
    for model in everything():
        if wanted and model.name not in wanted:
            continue
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            result = measured(model, Path(folder))
        rows = {**read(), model.name: row_of(model, result)}
        write(rows, known)
        console.print(f"{time.monotonic() - start:.0f} s  {rows[model.name]}", soft_wrap=True)


if __name__ == "__main__":
    main()
