"""What `verify` found, as text: on a terminal, or in a test's failure."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploydcn.parity import Location, ParityReport
from deploydcn.tables import table


def print_report(report: ParityReport, to: Console, written: Path | None = None) -> None:
    """The table, what was allowed, what `locate` found. written: the folder that shows the layer by itself."""
    to.print(parity_table(report))
    for line in mismatches(report):
        to.print(line, soft_wrap=True, markup=False)
    to.print(f"allowed: {report.tolerance.relative:.2g} of a channel's scale ({report.tolerance.reason})", soft_wrap=True)
    if any(case.detections for case in report.cases):
        to.print(detections_table(report))
    if report.location is not None:
        _print_location(report.location, to)
    if written is not None:
        to.print(f"wrote {written}/; python {written}/reproduce.py shows it", soft_wrap=True)


def parity_table(report: ParityReport) -> Table:
    """Every output of every case in a row; why some cannot be compared is too long for it, see `mismatches`."""
    rows = []
    for case in report.cases:
        for output in case.outputs:
            verdict = "pass" if output.passes(report.tolerance.relative) else "FAIL"
            numbers = [f"{value:.2g}" for value in (output.max_abs, output.max_relative, output.worst_channel)]
            quality = [f"{output.cosine:.6f}", f"{output.sqnr_db:.0f}", "" if output.top1 is None else f"{output.top1:.1%}"]
            if output.mismatch or output.empty:
                numbers, quality = ["" if output.mismatch else "empty", "", ""], ["", "", ""]
            rows.append((case.label, output.name, *numbers, *quality, verdict))
    columns = ["inputs", "output", "max abs", "/range", "/channel", "cosine", "dB", "top-1", ""]
    return table(f"{report.candidate} against {report.reference}", columns, rows)


def mismatches(report: ParityReport) -> list[str]:
    """Why outputs cannot be compared, each reason once: "map, vec (example, seed 0): shape [2, 4], wanted [2, 5]"."""
    found: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for case in report.cases:
        for output in case.outputs:
            if output.mismatch:
                names, labels = found.setdefault(output.mismatch, ({}, {}))
                names[output.name] = labels[case.label] = None
    return [f"{', '.join(names)} ({', '.join(labels)}): {why}" for why, (names, labels) in found.items()]


def detections_table(report: ParityReport) -> Table:
    """Every image's boxes in a row."""
    rows = []
    for case in report.cases:
        for item in case.detections:
            counts = (item.pairs, item.renamed, item.missing, item.extra)
            numbers = [f"{item.score_difference:.1g}", f"{item.shift:.1g}", f"{item.smallest_iou:.4f}"] if item.partners else ["", "", ""]
            boxes = f"{len(item.reference)}/{len(item.candidate)}"
            rows.append((case.label, str(item.image), boxes, *(str(len(some)) for some in counts), *numbers))
    columns = ["inputs", "image", "boxes", "paired", "class", "missing", "extra", "score", "px", "IoU"]
    return table("boxes", columns, rows)


def _print_location(location: Location, to: Console) -> None:
    finding = location.finding
    blamed = None if finding is None else finding.layer.name
    shown = {layer.name for layer in location.contributors} | {blamed, *(finding.before if finding is not None else ())}
    rows = [
        (layer.path or layer.name, layer.name, f"{layer.local_error:.2g}", f"{layer.accumulated_error:.2g}", "<--" * (layer.name == blamed))
        for layer in location.layers
        if layer.name in shown
    ]
    if rows:
        title = f"inside the models, on {location.label}: {len(location.layers)} tensors matched, those of interest"
        to.print(table(title, ["module", "tensor", "local error", "accumulated", ""], rows))
    to.print(location.explanation, soft_wrap=True)
    if finding is not None:
        for source, error in finding.before.items():
            to.print(f"  fed by {source}: accumulated error {error:.2g}", soft_wrap=True)
        for difference in finding.differences:
            to.print(f"  {difference}", soft_wrap=True)
        for name, described in finding.statistics.items():
            to.print(f"  {name}: {described}", soft_wrap=True)
