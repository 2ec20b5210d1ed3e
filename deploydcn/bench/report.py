"""What a benchmark measured: rows of times, as a table, JSON and a plot."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploydcn._lazy import lazy_import
from deploydcn.bench.timing import Timing
from deploydcn.files import replace_on_success

PACKAGES = ("onnxruntime", "torch", "torchvision", "openvino")


@dataclass(frozen=True)
class Row:
    """One layer or model at one number of threads; `flops` is 0 where it is not known."""

    name: str
    shape: str
    threads: int
    flops: int
    timings: Mapping[str, Timing]
    reference: str

    def ratio(self, label: str, reference: str) -> float | None:
        """Median of `label` over that of `reference`; None where either did not run."""
        if label not in self.timings or reference not in self.timings:
            return None
        return self.timings[label].median / self.timings[reference].median

    def to_json(self) -> dict[str, Any]:
        timings = {label: asdict(timing) for label, timing in self.timings.items()}
        return {"name": self.name, "shape": self.shape, "threads": self.threads, "flops": self.flops, "seconds": timings}


@dataclass(frozen=True)
class BenchReport:
    """Rows, and the machine they were measured on."""

    rows: Sequence[Row]
    machine: Mapping[str, Any]
    notes: Sequence[str] = ()

    def part(self, reference: str) -> BenchReport:
        """The rows that ran `reference` and are not of another table."""
        return BenchReport([row for row in self.rows if row.reference == reference], self.machine, self.notes)

    @property
    def references(self) -> list[str]:
        """Of its tables."""
        return list(dict.fromkeys(row.reference for row in self.rows))

    @property
    def labels(self) -> list[str]:
        """Of the contenders, in the order they appear."""
        return list(dict.fromkeys(label for row in self.rows for label in row.timings))

    def geometric_mean(self, label: str, reference: str, threads: int) -> float | None:
        """Of the ratio over the rows that have both."""
        ratios = [row.ratio(label, reference) for row in self.rows if row.threads == threads]
        found = [ratio for ratio in ratios if ratio is not None]
        return float(np.exp(np.mean(np.log(found)))) if found else None

    def to_json(self) -> dict[str, Any]:
        return {"machine": dict(self.machine), "notes": list(self.notes), "rows": [row.to_json() for row in self.rows]}


def machine(isa: str) -> dict[str, Any]:
    """Processor, versions and date; `isa`: the instruction set our kernels use here."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"processor": _processor(), "kernels": isa, "date": datetime.date.today().isoformat(), "packages": versions}


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def write_json(report: BenchReport, path: Path) -> None:
    """The report with every figure."""
    with replace_on_success(path) as temporary:
        temporary.write_text(json.dumps(report.to_json(), indent=2) + "\n")


def markdown(report: BenchReport, reference: str, threads: int) -> str:
    """One table: times over the reference's at a number of threads."""
    part = report.part(reference)
    labels = [label for label in part.labels if label != reference]
    rows = [row for row in part.rows if row.threads == threads]

    def text(ratios: Sequence[float | None]) -> str:
        return " | ".join("" if ratio is None else f"{ratio:.2f}" for ratio in ratios)

    lines = [f"| layer | {reference}, ms | " + " | ".join(labels) + " |", "|---|" + "---:|" * (len(labels) + 1)]
    for row in rows:
        base = f"{row.timings[reference].median * 1e3:.2f}" if reference in row.timings else ""
        lines.append(f"| {row.name}: {row.shape} | {base} | {text([row.ratio(label, reference) for label in labels])} |")
    if len(rows) > 1:
        lines.append(f"| geometric mean | | {text([part.geometric_mean(label, reference, threads) for label in labels])} |")
    return "\n".join(lines) + "\n"


def write_markdown(report: BenchReport, path: Path) -> None:
    """A table per number of threads and reference, and what they were measured on."""
    packages = ", ".join(f"{name} {version}" for name, version in report.machine["packages"].items())
    parts = [f"{report.machine['processor']}, {report.machine['kernels']} kernels; {packages}; {report.machine['date']}.\n"]
    for threads in dict.fromkeys(row.threads for row in report.rows):
        for reference in report.references:
            title = f"Times over that of {reference}, {threads} thread{'s' * (threads > 1)}:"
            parts.append(f"{title}\n\n{markdown(report, reference, threads)}")
    with replace_on_success(path) as temporary:
        temporary.write_text("\n".join(parts))


def write_plot(report: BenchReport, path: Path) -> None:
    """Dots at time over the first reference's time, one line per row of the first number of threads; PNG, PDF or SVG by the file's name.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    lazy_import("matplotlib", extra="report")
    from matplotlib.figure import Figure

    threads, reference = report.rows[0].threads, report.references[0]
    report = report.part(reference)
    rows = [row for row in report.rows if row.threads == threads]
    figure = Figure(figsize=(9, 1.5 + 0.3 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for label in report.labels:
        if label != reference:
            ratios = [row.ratio(label, reference) or np.nan for row in rows]
            axes.plot(ratios, range(len(rows)), "o", label=label, markersize=9 if label == report.labels[0] else 6)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.axvline(1, color="black", linewidth=0.8)
    axes.grid(axis="y", alpha=0.3)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel(f"time over that of {reference}, {threads} thread{'s' * (threads > 1)}, logarithmic; further left is faster")
    axes.legend(loc="upper right", fontsize="small")
    with replace_on_success(path) as temporary:
        figure.savefig(temporary, dpi=100)
