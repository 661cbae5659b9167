"""Line charts as SVG, without a library and without a script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 340, 200
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 24, 22
POINTS = 240  # of a line; a screen shows no more


class Line(NamedTuple):
    """A series of a chart.

    Attributes:
        label: what a pointer over it reads.
        group: number of its colour, ``g0``, ``g1``, ... in the page's style.
        points: step -> value.
    """

    label: str
    group: int
    points: Mapping[int, float]


def thinned(points: Mapping[int, float]) -> list[tuple[float, float]]:
    """At most ``POINTS`` of the finite points, each the mean of a bin."""
    pairs = sorted((x, y) for x, y in points.items() if math.isfinite(y))
    size = -(-len(pairs) // POINTS) or 1
    bins = [pairs[i : i + size] for i in range(0, len(pairs), size)]
    return [
        (sum(x for x, _ in b) / len(b), sum(y for _, y in b) / len(b))
        for b in bins
    ]


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers from ``low`` to ``high``, about as many as wanted.

    Example:
        >>> ticks(0, 1)
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    unit = min((1, 2, 2.5, 5, 10), key=lambda u: abs(u * power - raw)) * power
    first, last = math.ceil(low / unit - 1e-9), math.floor(high / unit + 1e-9)
    return [round(n * unit, 12) for n in range(first, last + 1)]


def short(value: float) -> str:
    """As few characters as distinguish it.

    Example:
        >>> short(1200000), short(0.25), short(30)
        ('1.2M', '0.25', '30')
    """
    for unit, name in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if abs(value) >= 10 * unit or abs(value) >= unit >= 1e6:
            return f'{value / unit:.4g}{name}'
    return f'{value:.4g}'


def chart(title: str, lines: Sequence[Line]) -> str:
    """An SVG of one quantity over the steps, a logarithmic one where it is
    positive and spans more than two decades; '' without a finite value."""
    drawn = [(line, thinned(line.points)) for line in lines]
    drawn = [(line, points) for line, points in drawn if points]
    if not drawn:
        return ''
    xs = [x for _, points in drawn for x, _ in points]
    ys = [y for _, points in drawn for _, y in points]
    logarithmic = min(ys) > 0 and max(ys) / min(ys) > 100

    def scaled(value: float) -> float:
        return math.log10(value) if logarithmic else value

    low, high = scaled(min(ys)), scaled(max(ys))
    spare = (high - low) * 0.06 or abs(high) * 0.1 or 1
    low, high = low - spare, high + spare
    start, end = min(xs), max(max(xs), min(xs) + 1)

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - start) / (end - start)
        up = (scaled(y) - low) / (high - low)
        return (
            LEFT + across * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM),
        )

    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">',
        f'<text x="{LEFT}" y="14" class="title">{escape(title)}'
        f'{" (log)" if logarithmic else ""}</text>',
    ]
    for value in ticks(low, high):
        shown = 10**value if logarithmic else value
        if logarithmic and value != round(value) and high - low > 2:
            continue
        _, y = at(start, shown)
        parts.append(
            f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
            f'<text class="tick" text-anchor="end" x="{LEFT - 5}" '
            f'y="{y + 3:.1f}">{short(shown)}</text>'
        )
    for value in ticks(start, end):
        x, _ = at(value, ys[0])
        anchor = 'end' if x > WIDTH - 30 else 'middle'
        parts.append(
            f'<text class="tick" text-anchor="{anchor}" x="{x:.1f}" '
            f'y="{HEIGHT - 7}">{short(value)}</text>'
        )
    for line, points in drawn:
        places = [at(x, y) for x, y in points]
        path = 'M' + 'L'.join(f'{x:.1f} {y:.1f}' for x, y in places)
        x, y = places[-1]
        parts.append(
            f'<g class="line g{line.group}"><title>{escape(line.label)}: '
            f'{points[-1][1]:.4g} at {points[-1][0]:.0f}</title>'
            f'<path d="{path}"/><circle cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>'
            '</g>'
        )
    return ''.join([*parts, '</svg>'])
