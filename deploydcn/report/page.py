"""The page: one HTML file without scripts that needs no network; see page.html for what stands where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from deploydcn._lazy import lazy_import
from deploydcn.parity import DetectionComparison, Location, ParityCase, ParityReport
from deploydcn.report.images import images_of, is_picture, window_around, zoom_of
from deploydcn.report.sampling import TOLERANCE, Sampling
from deploydcn.vision import Detections, data_uri, draw_detections_side_by_side, draw_points, svg

MOST_PICTURES = 4
"""Of detections, and of sampling points: those that differ most, and the first layers that differ. Tables hold all."""

MOST_BOXES = 60
"""Rows of a table of boxes: pairs that differ most."""

SIDES = {
    "expected": "reference",
    "got": "candidate, fed with the reference's tensors",
    "accumulated": "candidate, with all that was wrong before",
}


@dataclass(frozen=True)
class Picture:
    """An image with what to say of it; alt: for those who do not see it. rows: a table beside it."""

    title: str
    alt: str
    uri: str
    rows: tuple[tuple[str, ...], ...] = ()
    more: int = 0


def page(report: ParityReport, sampling: Sampling | None, environment: Mapping[str, str], command: str) -> str:
    """The document."""
    jinja2 = lazy_import("jinja2", extra="report")
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    engine = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    # Plots are ours, and escape what they are told; everything else is escaped here.
    safe = lazy_import("markupsafe", extra="report").Markup
    plots = {name: [safe(plot) for plot in drawn] for name, drawn in _plots(report).items()}
    case, output = report.worst
    text = engine.get_template("page.html").render(
        report=report,
        worst_case=case,
        worst=output,
        plots=plots,
        sides=SIDES,
        detections=list(_detection_pictures(report)),
        sampling=sampling,
        sampling_tolerance=TOLERANCE,
        sampling_pictures=list(_sampling_pictures(sampling)),
        environment=environment,
        command=command,
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )
    return str(text)


def _plots(report: ParityReport) -> dict[str, list[str]]:
    """ "network", "layer" and "output": plots of each, as SVG."""
    plots: dict[str, list[str]] = {"network": [], "layer": [], "output": []}
    if report.location is not None and report.location.layers:
        plots["network"] = _network(report, report.location)
    finding = None if report.location is None else report.location.finding
    if finding is not None:
        evidence = finding.evidence
        plots["layer"] = _histograms(evidence.expected, evidence.accumulated if evidence.got is None else evidence.got)
    if report.worst_tensors is not None:
        plots["output"] = _histograms(*report.worst_tensors)
    return plots


def _network(report: ParityReport, location: Location) -> list[str]:
    layers = location.layers
    labels = [layer.path or layer.name for layer in layers]
    local = [None if layer.local is None else layer.local_error for layer in layers]
    accumulated = [None if layer.accumulated is None else layer.accumulated_error for layer in layers]
    limit = max(layer.limit for layer in layers) if location.finding is None else location.finding.layer.limit
    return [
        svg.curve(
            local, labels, title="local error: each layer fed with the reference's tensors", limit=limit, limit_name="rounding explains"
        ),
        svg.curve(accumulated, labels, title="accumulated error: with all that was wrong before", limit=report.tolerance.relative),
    ]


def _histograms(expected: np.ndarray, got: np.ndarray | None) -> list[str]:
    """Both sides, and the difference where they have one."""
    first = _numbers(expected)
    if got is None:
        return [svg.histogram([("reference", first)], title="values")]
    second = _numbers(got)
    plots = [svg.histogram([("reference", first), ("candidate", second)], title="values of both sides")]
    if expected.shape == got.shape:
        with np.errstate(invalid="ignore", over="ignore"):
            plots.append(svg.histogram([("candidate - reference", second - first)], title="the difference"))
    return plots


def _numbers(array: np.ndarray) -> np.ndarray:
    """Of complex numbers the magnitudes."""
    return np.asarray(np.abs(array) if array.dtype.kind == "c" else array).astype(np.float64)


def _detection_pictures(report: ParityReport) -> Iterator[Picture]:
    """The images on which the sides differ most, both sides next to each other; noise last."""
    found = []
    for case in report.cases:
        images = images_of(case.inputs)
        drawn = [item for item in case.detections if (len(item.reference) or len(item.candidate)) and item.image < len(images)]
        found += [(case, item, images[item.image]) for item in drawn]

    def interest(of: tuple[ParityCase, DetectionComparison, np.ndarray]) -> tuple[bool, int, float]:
        _, item, image = of
        return is_picture(image), len(item.missing) + len(item.extra) + len(item.renamed), item.score_difference

    for case, item, image in sorted(found, key=interest, reverse=True)[:MOST_PICTURES]:
        zoom = zoom_of(image)
        large = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
        sides = [Detections(side.boxes * zoom, side.scores, side.classes) for side in (item.reference, item.candidate)]
        uri = data_uri(draw_detections_side_by_side(large, *sides))
        rows = _boxes(item)
        alt = f"Left the {len(item.reference)} boxes of the reference, right the {len(item.candidate)} of the candidate."
        yield Picture(f"{case.label}, image {item.image} of {item.output}", alt, uri, rows[:MOST_BOXES], max(len(rows) - MOST_BOXES, 0))


def _boxes(item: DetectionComparison) -> tuple[tuple[str, ...], ...]:
    """Class, score and box of both sides, and how they overlap: without a partner first, then those that differ most."""

    def side(detections: Detections, index: int) -> tuple[str, str, str]:
        box = ", ".join(f"{at:.1f}" for at in detections.boxes[index])
        return f"{detections.classes[index]:g}", f"{detections.scores[index]:.4f}", box

    nothing = ("-", "-", "-")
    alone = [(*side(item.reference, a), *nothing, "only in the reference") for a in item.missing]
    alone += [(*nothing, *side(item.candidate, b), "only in the candidate") for b in item.extra]
    order = sorted(item.partners, key=lambda pair: (pair not in item.renamed, -item.score_change(pair)))
    pairs = [(*side(item.reference, a), *side(item.candidate, b), f"{item.iou((a, b)):.4f}") for a, b in order]
    return (*alone, *pairs)


def _sampling_pictures(sampling: Sampling | None) -> Iterator[Picture]:
    """The first layers that look elsewhere, at the output pixel where they do most."""
    images = [] if sampling is None else images_of(sampling.case.inputs)
    if sampling is None or not images:
        return
    image = images[0]
    for layer in sampling.different[:MOST_PICTURES]:
        rows, columns = window_around(image, np.concatenate([layer.reference, layer.candidate]))
        part, corner = image[rows, columns], np.array([rows.start, columns.start])
        drawn = draw_points(part, layer.reference - corner, layer.candidate - corner, tolerance=TOLERANCE, zoom=zoom_of(part))
        where = f"output pixel {', '.join(map(str, layer.pixel))}" if len(layer.pixel) > 1 else f"query {layer.pixel[0]}"
        shown = f"rows {rows.start} to {rows.stop - 1}, columns {columns.start} to {columns.stop - 1} of the image"
        alt = f"{len(layer.reference)} sampling points on both sides, at most {layer.largest:.3g} pixels apart, over {shown}."
        yield Picture(f"{layer.layer}, {where}", alt, data_uri(drawn))
