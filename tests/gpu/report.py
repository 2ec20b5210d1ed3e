"""What the acceptance on a GPU found: outcomes, a table, and report.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

STATES = ("pass", "fail", "skip")


@dataclass(frozen=True)
class Outcome:
    """One thing that was tried. detail: what was seen, or why it failed or was skipped; never empty for those two."""

    step: str
    item: str
    state: str
    detail: str = ""
    figures: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.state not in STATES or (self.state != "pass" and not self.detail):
            raise ValueError(f"{self}: wanted one of {STATES}, and a reason")


def passed(step: str, item: str, detail: str = "", **figures: float) -> Outcome:
    return Outcome(step, item, "pass", detail, figures)


def failed(step: str, item: str, detail: str, **figures: float) -> Outcome:
    return Outcome(step, item, "fail", detail, figures)


def skipped(step: str, item: str, why: str) -> Outcome:
    return Outcome(step, item, "skip", why)


def judged(step: str, item: str, error: float, tolerance: float, why: str = "") -> Outcome:
    """Pass when error <= tolerance; NaN fails."""
    state = "pass" if error <= tolerance else "fail"
    detail = f"{error:.3g} of the largest value, allowed {tolerance:.3g}{f'; {why}' if why and state == 'fail' else ''}"
    return Outcome(step, item, state, detail, {"error": error, "tolerance": tolerance})


def counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    return {state: sum(outcome.state == state for outcome in outcomes) for state in STATES}


def verdict(outcomes: Sequence[Outcome]) -> bool:
    """True when something passed and nothing failed."""
    return counts(outcomes)["fail"] == 0 and counts(outcomes)["pass"] > 0


def write(path: Path, outcomes: Sequence[Outcome], **about: Any) -> None:
    """report.json: plain values; infinities and NaN as text, since JSON has none."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        return str(value) if isinstance(value, float) and not (abs(value) < float("inf")) else value

    content = {**about, "passed": verdict(outcomes), "counts": counts(outcomes), "outcomes": [asdict(outcome) for outcome in outcomes]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain(content), indent=1) + "\n")


def show(console: Console, outcomes: Sequence[Outcome]) -> None:
    """Failures and skips one by one; of what passed, the worst per step, and all figures of the timing."""
    table = Table("step", "item", "", "", box=box.SIMPLE, show_edge=False)
    for step in dict.fromkeys(outcome.step for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.step == step]
        for outcome in _interesting(own):
            table.add_row(step, outcome.item, outcome.state.upper() if outcome.state == "fail" else outcome.state, outcome.detail)
    console.print(table)
    total = counts(outcomes)
    console.print(f"{total['pass']} passed, {total['fail']} failed, {total['skip']} skipped")


def _interesting(outcomes: Sequence[Outcome]) -> list[Outcome]:
    compared = [outcome for outcome in outcomes if outcome.state == "pass" and "tolerance" in outcome.figures]
    if len(compared) < 20:
        return list(outcomes)
    worst = max(compared, key=lambda outcome: outcome.figures["error"] / outcome.figures["tolerance"])
    summary = passed(worst.step, f"{len(compared)} items", f"the worst, {worst.item}: {worst.detail}")
    return [summary, *(outcome for outcome in outcomes if outcome not in compared)]
