"""Small plots as SVG text: intervals around zero, curves over steps. No library, no script, no network."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 760
COLOURS = ("#3b6fb6", "#d0722e", "#3f8f57", "#a34a9b", "#8a7a2f", "#5b6b7a")
_LEFT, _RIGHT, _ROW = 250, 30, 30


@dataclass(frozen=True, slots=True)
class Interval:
    """One line of an interval plot.

    Attributes:
        label: what it is of.
        low: lower end.
        middle: the point.
        high: upper end.
        kind: CSS class of its colour: better, worse, open.
    """

    label: str
    low: float
    middle: float
    high: float
    kind: str


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between two ends, about `count` of them."""
    span = high - low
    if span <= 0:
        return [low]
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(step * number, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def interval_plot(intervals: Sequence[Interval]) -> str:
    """A line for each interval over one axis, with a mark at zero."""
    ends = [value for one in intervals for value in (one.low, one.high)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    pad = (high - low) * 0.06 or 1.0
    low, high = low - pad, high + pad

    def x(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    height = _ROW * len(intervals) + 44
    parts = [_open(height)]
    bottom = height - 28
    for tick in ticks(low, high):
        parts.append(_line(x(tick), 8, x(tick), bottom, "grid"))
        parts.append(_text(x(tick), bottom + 18, f"{tick:g}", "middle"))
    parts.append(_line(x(0), 8, x(0), bottom, "zero"))
    for row, one in enumerate(intervals):
        y = 8 + _ROW * (row + 0.5)
        parts.append(_text(_LEFT - 14, y + 4, one.label, "end"))
        parts.append(_line(x(one.low), y, x(one.high), y, f"bar {one.kind}"))
        parts += [_line(x(end), y - 5, x(end), y + 5, f"bar {one.kind}") for end in (one.low, one.high)]
        title = f"{one.middle:+.4g} ({one.low:+.4g} to {one.high:+.4g})"
        place = f'cx="{x(one.middle):.1f}" cy="{y:.1f}"'
        parts.append(f'<circle {place} r="5" class="dot {one.kind}"><title>{title}</title></circle>')
    return "".join([*parts, "</svg>"])


def curve_plot(curves: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> str:
    """Lines over steps, each with its name in a legend; a curve of one point is a dot."""
    points = [point for _, curve in curves for point in curve]
    left, top, height = 56, 12, 280
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    y_low, y_high = min(y for _, y in points), max(y for _, y in points)
    pad = (y_high - y_low) * 0.05 or 0.5
    y_low, y_high = y_low - pad, y_high + pad
    bottom = height - 28

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / ((x_high - x_low) or 1.0)
        return left + across * (WIDTH - left - _RIGHT), bottom - (y - y_low) / (y_high - y_low) * (bottom - top)

    parts = [_open(height + 22 * ((len(curves) + 2) // 3))]
    for tick in ticks(y_low, y_high):
        y = place(x_low, tick)[1]
        parts += [_line(left, y, WIDTH - _RIGHT, y, "grid"), _text(left - 8, y + 4, f"{tick:g}", "end")]
    for tick in ticks(x_low, x_high):
        parts.append(_text(place(tick, y_low)[0], bottom + 18, f"{tick:g}", "middle"))
    for number, (name, curve) in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        corners = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in curve)
        parts.append(f'<polyline points="{corners}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        if len(curve) == 1:
            centre = place(*curve[0])
            parts.append(f'<circle cx="{centre[0]:.1f}" cy="{centre[1]:.1f}" r="4" fill="{colour}"/>')
        legend = left + (number % 3) * (WIDTH - left) / 3, height + 12 + 22 * (number // 3)
        parts.append(f'<rect x="{legend[0]:.1f}" y="{legend[1] - 9:.1f}" width="14" height="4" fill="{colour}"/>')
        parts.append(_text(legend[0] + 20, legend[1] - 3, name, "start"))
    return "".join([*parts, "</svg>"])


def _open(height: float) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" xmlns="http://www.w3.org/2000/svg">'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    limit = 40
    shown = text if len(text) <= limit else f"…{text[-limit + 1 :]}"
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(shown)}</text>'
