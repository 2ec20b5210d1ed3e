"""Small plots as SVG text, to be put into a page: they take the page's text colour, and need no script."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import numpy as np

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 26, 34
COLOURS = ("#0072b2", "#e69f00")
"""Blue and orange of Okabe and Ito: told apart by colour-blind readers, visible on white and on black."""

FARTHEST = 1e300
"""Numbers beyond it are counted there: their distances would overflow."""


def curve(
    values: Sequence[float | None], labels: Sequence[str], *, title: str, limit: float | None = None, limit_name: str = "allowed"
) -> str:
    """One number per step on a logarithmic scale, as an error along a network; each point tells its label and value when pointed at.

    limit: a dashed line, limit_name what it is; points above it are drawn large. Numbers that are not finite are drawn as crosses at the
    top, zeros at the bottom; where there is None, nothing is.
    """
    points = [(index, value, label) for index, (value, label) in enumerate(zip(values, labels, strict=True)) if value is not None]
    drawable = [value for value in [*(value for _, value, _ in points), *([limit] if limit else [])] if math.isfinite(value) and value > 0]
    low, high = math.floor(math.log10(min(drawable, default=1e-8))), math.ceil(math.log10(max(drawable, default=1.0)))
    high = max(high, low + 1)

    def at_y(value: float) -> float:
        if not math.isfinite(value):
            return TOP
        part = (math.log10(value) - low) / (high - low) if value > 0 else 0.0
        return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)

    def at_x(index: int) -> float:
        return LEFT + (index + 0.5) / max(len(values), 1) * (WIDTH - LEFT - RIGHT)

    parts = [_text(LEFT - 6, at_y(10.0**power) + 4, f"1e{power}", "end") for power in _ticks(low, high)]
    parts += [_line(LEFT, at_y(10.0**power), WIDTH - RIGHT, at_y(10.0**power), "currentColor", 0.2) for power in _ticks(low, high)]
    path = " ".join(f"{at_x(i):.1f},{at_y(value):.1f}" for i, value, _ in points if math.isfinite(value))
    parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[0]}" stroke-width="1.5"/>')
    for index, value, label in points:
        x, y = at_x(index), at_y(value)
        above = not math.isfinite(value) or (limit is not None and value > limit)
        mark = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{4.5 if above else 2.5}" fill="{COLOURS[above]}"/>'
        if not math.isfinite(value):
            mark = f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8" stroke="{COLOURS[1]}" stroke-width="2"/>'
        parts.append(f"<g>{_title(f'{label}: {value:.3g}')}{mark}</g>")
    if limit:
        parts.append(_line(LEFT, at_y(limit), WIDTH - RIGHT, at_y(limit), COLOURS[1], 1.0, dashed=True))
        parts.append(_text(WIDTH - RIGHT, at_y(limit) - 4, f"{limit_name} {limit:.2g}", "end"))
    return _frame(title, parts)


def histogram(series: Sequence[tuple[str, np.ndarray]], *, title: str, bins: int = 60) -> str:
    """One or two sets of numbers over common bins, counts on a square-root scale; the legend counts those left out: not finite."""
    finite = [np.asarray(values, np.float64).ravel() for _, values in series]
    finite = [np.clip(values[np.isfinite(values)], -FARTHEST, FARTHEST) for values in finite]
    together = np.concatenate([*finite, np.zeros(0)])
    low, high = (float(together.min()), float(together.max())) if together.size else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    counts = [np.histogram(values, edges)[0] for values in finite]
    most = max((int(count.max()) for count in counts), default=0) or 1
    step = (WIDTH - LEFT - RIGHT) / bins
    parts = []
    for order, ((name, values), count) in enumerate(zip(series, counts, strict=True)):
        heights = np.sqrt(count / most) * (HEIGHT - TOP - BOTTOM)
        path = "".join(f"V{HEIGHT - BOTTOM - tall:.1f}h{step:.2f}" for tall in heights)
        look = f'fill="{COLOURS[order]}" fill-opacity="0.35"' if order == 0 else f'fill="none" stroke="{COLOURS[order]}" stroke-width="1.5"'
        lost = np.asarray(values).size - finite[order].size
        parts.append(f'<path d="M{LEFT} {HEIGHT - BOTTOM}{path}V{HEIGHT - BOTTOM}" {look}/>')
        parts.append(f'<rect x="{WIDTH - 200}" y="{TOP + 18 * order}" width="10" height="10" {look}/>')
        parts.append(_text(WIDTH - 184, TOP + 18 * order + 10, name + (f" ({lost} not finite)" if lost else ""), "start"))
    parts += [_text(LEFT - 6, TOP + 8, str(most), "end"), _line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "currentColor", 0.6)]
    middle = (edges[0] + edges[-1]) / 2, (LEFT + WIDTH - RIGHT) / 2
    for (value, place), anchor in zip(((edges[0], LEFT), middle, (edges[-1], WIDTH - RIGHT)), ("start", "middle", "end"), strict=True):
        parts.append(_text(place, HEIGHT - BOTTOM + 16, f"{value:.3g}", anchor))
    return _frame(title, parts)


def _ticks(low: int, high: int) -> range:
    return range(low, high + 1, max(1, (high - low) // 5))


def _frame(title: str, parts: Sequence[str]) -> str:
    text = _text(LEFT, 14, title, "start")
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}" xmlns="http://www.w3.org/2000/svg" '
        f'font-family="system-ui, sans-serif" font-size="12">{text}{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor">{html.escape(text)}</text>'


def _title(text: str) -> str:
    return f"<title>{html.escape(text)}</title>"


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, opacity: float, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="6 4"' if dashed else ""
    place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {place} stroke="{colour}" stroke-opacity="{opacity}"{dash}/>'
