"""docs/MODELS.md: the table that `python -m tests.models` writes and the tests read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deploydcn.files import replace_on_success
from tests.models.measure import Result
from tests.models.zoo import Model

FILE = Path(__file__).resolve().parents[2] / "docs" / "MODELS.md"

UNMEASURED = "Not measured yet: "

HEAD = """# Models that export and match

Small configurations with seeded weights; offsets are about a pixel and depend on the image. Each is exported once with the axes named,
and its file compared with PyTorch at the example's size and at larger, odd, smaller and doubled ones; the difference is the largest of
any output channel, over that channel's scale. Where it is above 1e-4, the untrained network itself turns float32 rounding into as much:
the export allows 8 times the distance of PyTorch's own float32 to float64, and no more than 1e-2. TensorRT-RTX: an engine built for
64x64 to 192x256. `python -m tests.models` measures all of it anew.

| Model | From | Dynamic axes | Deformable operators | Sizes tried | Largest difference | TensorRT-RTX 1.7 |
|---|---|---|---|---|---|---|
"""


def row_of(model: Model, result: Result) -> str:
    """One line of the table."""
    axes = "; ".join(f"{name}: {', '.join(spec.values())}" for name, spec in (model.dynamic or {}).items()) or "none"
    if model.note:
        axes += f" ({model.note})"
    if result.report is None:
        return f"| {model.name} | {model.package} | {axes} | | 0 | fails: {result.error.partition('; ')[0]} | |"
    report = result.report
    operators = ", ".join(f"{count} {name.rpartition('::')[2]}" for name, count in report.operators.items()) or "none: grid sampling"
    worst = max(check.worst for check in report.checks)
    return f"| {model.name} | {model.package} | {axes} | {operators} | {len(report.checks)} | {worst:.1e} | {result.engine} |"


def read() -> dict[str, str]:
    """The table's lines by model."""
    lines = FILE.read_text().splitlines() if FILE.is_file() else []
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| Model |")]
    return {row.split(" | ")[0].removeprefix("| "): row for row in rows}


def largest_difference(row: str) -> float:
    """What a line claims."""
    return float(row.split(" | ")[5])


def write(rows: dict[str, str], known: Sequence[str]) -> None:
    """Replace the file; the models of `known` without a line are named as such."""
    left = [name for name in known if name not in rows]
    with replace_on_success(FILE) as temporary:
        body = "\n".join(rows[name] for name in known if name in rows)
        Path(temporary).write_text(f"{HEAD}{body}\n" + (f"\n{UNMEASURED}{'; '.join(left)}\n" if left else ""))


def unmeasured() -> list[str]:
    """Models that the file names as not measured."""
    line = next((line for line in FILE.read_text().splitlines() if line.startswith(UNMEASURED)), UNMEASURED)
    return [name for name in line.removeprefix(UNMEASURED).split("; ") if name]
