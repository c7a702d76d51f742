"""Charts: points and lines over two axes, as SVG text. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

_FONT = 'font-family="sans-serif" font-size="12"'
_COLOURS = ("#3b6ea5", "#c05a2a", "#4a8f4a", "#8a5aa5", "#777777", "#b08a1e")
_WIDTH, _HEIGHT = 560, 320
_LEFT, _TOP, _RIGHT, _BOTTOM = 70, 40, 24, 52
_MOST_POINTS = 400
_ROUND = (1, 1.5, 2, 2.5, 3, 4, 5, 10)
"""Ends of axes whose fifths are easily read."""


class Series(NamedTuple):
    """Points of one kind, in the order of a line through them."""

    name: str
    points: Sequence[tuple[float, float]]
    line: bool = True
    marks: bool = True
    notes: Sequence[str] = ()
    """Shown where the mouse rests on a point; as many as there are points, or none."""


def chart(title: str, x_name: str, y_name: str, series: Sequence[Series]) -> str:
    """A picture with all series from 0 on, and a legend where there are several."""
    points = [point for one in series for point in one.points]
    x_most = round_up(max((x for x, _ in points), default=1.0))
    y_most = round_up(max((y for _, y in points), default=1.0))
    height = _HEIGHT + _TOP + _BOTTOM + 18 * len(series)

    def at(x: float, y: float) -> tuple[float, float]:
        return _LEFT + _WIDTH * x / x_most, _TOP + _HEIGHT * (1 - y / y_most)

    width, middle = _LEFT + _WIDTH + _RIGHT, _TOP + _HEIGHT / 2
    turned = f'x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {_FONT}>',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="8" y="20" font-weight="bold">{escape(title)}</text>',
        _centred(_LEFT + _WIDTH / 2, _TOP + _HEIGHT + 38, x_name),
        f"<text {turned}>{escape(y_name)}</text>",
    ]
    for step in range(6):
        x, y = at(x_most * step / 5, y_most * step / 5)
        lines += [
            f'<line x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_grey(step)}"/>',
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_TOP + _HEIGHT}" stroke="{_grey(step)}"/>',
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_figure(y_most * step / 5)}</text>',
            _centred(x, _TOP + _HEIGHT + 18, _figure(x_most * step / 5)),
        ]
    for number, one in enumerate(series):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [at(*point) for point in one.points]
        if one.line and places:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in _thinned(places))
            lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if one.marks:
            notes = one.notes or [""] * len(places)
            lines += [_mark(x, y, colour, note) for (x, y), note in zip(places, notes, strict=True)]
        y = _TOP + _HEIGHT + _BOTTOM + 6 + 18 * number
        lines += [
            f'<rect x="{_LEFT}" y="{y - 9}" width="10" height="10" fill="{colour}"/>',
            f'<text x="{_LEFT + 16}" y="{y}">{escape(one.name)}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def shares(name: str, values: Iterable[float]) -> Series:
    """The distribution of values: over each, the share in per cent that does not exceed it."""
    ordered = sorted(values)
    points = [(value, 100 * (place + 1) / len(ordered)) for place, value in enumerate(ordered)]
    return Series(name, points, marks=False)


def _grey(step: int) -> str:
    """Of the axes, and of the lines beside them."""
    return "#dddddd" if step else "#888888"


def _centred(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(text)}</text>'


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _mark(x: float, y: float, colour: str, note: str) -> str:
    title = f"<title>{escape(note)}</title>" if note else ""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}">{title}</circle>'


def _thinned(places: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    step = max(1, len(places) // _MOST_POINTS)
    return [*places[:-1:step], places[-1]]


def round_up(most: float) -> float:
    """A round number that is not below."""
    if most <= 0 or not math.isfinite(most):
        return 1.0
    power = 10.0 ** math.floor(math.log10(most))
    return next(factor * power for factor in _ROUND if factor * power >= most * (1 - 1e-9))
