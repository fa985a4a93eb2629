"""Scatter charts as inline SVG: accuracy against a cost, limits as lines, verdicts by shape and colour.

Drawn here so that a report needs no script and no network. Colours come from the page's style sheet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 560, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 28, 48
_LOG_SPAN = 12.0
"""A cost axis that spans more than this factor is logarithmic."""
_LABEL_GAP = 14.0


@dataclass(frozen=True, slots=True)
class Mark:
    """One trial in a chart."""

    x: float
    y: float
    label: str
    title: str
    kind: str
    """`pass`, `fail`, `open` (inconclusive), `void` (invalid), `reference`."""
    x_interval: tuple[float, float] | None = None
    y_interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A limit: `at` on the cost axis (`x`) or on the accuracy axis (`y`)."""

    axis: str
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float
    log: bool
    start: float
    end: float

    def place(self, value: float) -> float:
        """Where a value lies, in pixels."""
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            return [m * 10.0**d for d in decades for m in (1, 2, 5) if self.low <= m * 10.0**d <= self.high]
        step = _round_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step)
        return [n * step for n in range(first, math.floor(self.high / step) + 1)]


def scatter(
    marks: Sequence[Mark], lines: Sequence[Line], x_title: str, y_title: str, x_tick: Callable[[float], str]
) -> str:
    """Return an SVG element; without marks an empty string. Positions of `x` must be positive."""
    if not marks:
        return ""
    x_axis = _axis(
        [end for m in marks for end in (m.x, *(m.x_interval or ()))] + [line.at for line in lines if line.axis == "x"],
        (_LEFT, WIDTH - _RIGHT),
        positive=True,
    )
    y_axis = _axis(
        [end for m in marks for end in (m.y, *(m.y_interval or ()))] + [line.at for line in lines if line.axis == "y"],
        (HEIGHT - _BOTTOM, _TOP),
    )
    label = f"{y_title} against {x_title}"
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    parts += _grid(x_axis, y_axis, x_title, y_title, x_tick)
    parts += [_limit(line, x_axis, y_axis) for line in lines]
    parts += [_whiskers(mark, x_axis, y_axis) for mark in marks]
    parts += _draw_marks(marks, x_axis, y_axis)
    parts.append("</svg>")
    return "".join(parts)


def _axis(values: list[float], pixels: tuple[int, int], *, positive: bool = False) -> _Axis:
    low, high = min(values), max(values)
    if positive and low > 0 and high / low > _LOG_SPAN:
        return _Axis(low / 1.25, high * 1.25, log=True, start=pixels[0], end=pixels[1])
    pad = (high - low) * 0.12 or abs(high) * 0.1 or 1.0
    low, high = low - pad, high + pad
    return _Axis(max(low, 0.0) if positive else low, high, log=False, start=pixels[0], end=pixels[1])


def _round_step(raw: float) -> float:
    scale = 10.0 ** math.floor(math.log10(raw))
    return next(step * scale for step in (1, 2, 2.5, 5, 10) if step * scale >= raw * 0.999)


def _grid(x_axis: _Axis, y_axis: _Axis, x_title: str, y_title: str, x_tick: Callable[[float], str]) -> list[str]:
    parts = []
    for value in x_axis.ticks():
        x = x_axis.place(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{HEIGHT - _BOTTOM}"/>')
        parts.append(_text(x, HEIGHT - _BOTTOM + 16, x_tick(value), "tick", "middle"))
    digits = max(0, -math.floor(math.log10((y_axis.high - y_axis.low) / 5)) + 1)
    for value in y_axis.ticks():
        y = y_axis.place(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{WIDTH - _RIGHT}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{value:.{min(digits, 6)}f}", "tick", "end"))
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 8, x_title, "axis", "middle"))
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    parts.append(
        f'<text class="axis" text-anchor="middle" transform="translate(14 {middle:.0f}) rotate(-90)">'
        f"{escape(y_title)}</text>"
    )
    return parts


def _limit(line: Line, x_axis: _Axis, y_axis: _Axis) -> str:
    title = f"<title>{escape(line.label)}</title>"
    if line.axis == "x":
        x = x_axis.place(line.at)
        anchor = "start" if x < WIDTH / 2 else "end"
        return (
            f'<g><line class="limit" x1="{x:.1f}" y1="{_TOP - 6}" x2="{x:.1f}" y2="{HEIGHT - _BOTTOM}">{title}</line>'
            + _text(x + (3 if anchor == "start" else -3), _TOP - 10, line.label, "limit-label", anchor)
            + "</g>"
        )
    y = y_axis.place(line.at)
    return (
        f'<g><line class="limit" x1="{_LEFT}" y1="{y:.1f}" x2="{WIDTH - _RIGHT}" y2="{y:.1f}">{title}</line>'
        + _text(WIDTH - _RIGHT, y - 5, line.label, "limit-label", "end")
        + "</g>"
    )


def _whiskers(mark: Mark, x_axis: _Axis, y_axis: _Axis) -> str:
    x, y = x_axis.place(mark.x), y_axis.place(mark.y)
    parts = []
    if mark.x_interval is not None:
        low, high = map(x_axis.place, mark.x_interval)
        parts.append(f'<line class="whisker" x1="{low:.1f}" y1="{y:.1f}" x2="{high:.1f}" y2="{y:.1f}"/>')
    if mark.y_interval is not None:
        low, high = map(y_axis.place, mark.y_interval)
        parts.append(f'<line class="whisker" x1="{x:.1f}" y1="{low:.1f}" x2="{x:.1f}" y2="{high:.1f}"/>')
    return "".join(parts)


def _draw_marks(marks: Sequence[Mark], x_axis: _Axis, y_axis: _Axis) -> list[str]:
    """Marks, then labels, each moved down until it covers no other label."""
    by_kind: list[tuple[float, float]] = []
    shapes, labels = [], []
    for mark in sorted(marks, key=lambda m: y_axis.place(m.y)):
        x, y = x_axis.place(mark.x), y_axis.place(mark.y)
        shapes.append(f'<g class="mark {mark.kind}"><title>{escape(mark.title)}</title>{shape(mark.kind, x, y)}</g>')
        across, down = x + 9, y + 4
        if across > WIDTH - _RIGHT - 24:
            across = x - 9
        while any(abs(across - px) < 22 and abs(down - py) < _LABEL_GAP - 3 for px, py in by_kind):
            down += _LABEL_GAP - 3
        by_kind.append((across, down))
        labels.append(_text(across, down, mark.label, "mark-label", "end" if across < x else "start"))
    return [*shapes, *labels]


def shape(kind: str, x: float, y: float) -> str:
    """The shape of a verdict: never told by colour alone."""
    match kind:
        case "pass":
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>'
        case "fail":
            return f'<path d="M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10" fill="none"/>'
        case "reference":
            return f'<path d="M{x:.1f} {y - 7:.1f}l7 7l-7 7l-7 -7z"/>'
        case "void":
            return f'<path d="M{x:.1f} {y - 6:.1f}l6 11h-12z" fill="none"/>'
        case _:
            return f'<rect x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10" fill="none"/>'


def _text(x: float, y: float, words: str, kind: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
