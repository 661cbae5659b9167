"""Line charts as SVG, in a page's own colours."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from statistics import mean
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure

POINTS = 240  # of a line; a screen shows no more
# nothing of when and by what it was drawn
METADATA = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))


class Line(NamedTuple):
    """A series of a chart, value by step."""

    label: str  # what a pointer over it reads
    group: int  # of its colour, ``g0``, ``g1``, ... in the page's style
    points: Mapping[int, float]


def thinned(points: Mapping[int, float]) -> list[tuple[float, float]]:
    """At most ``POINTS`` of the finite points, each the mean of a bin."""
    pairs = sorted((x, y) for x, y in points.items() if math.isfinite(y))
    size = -(-len(pairs) // POINTS) or 1
    bins = [pairs[i : i + size] for i in range(0, len(pairs), size)]
    return [(mean(x for x, _ in b), mean(y for _, y in b)) for b in bins]


def chart(title: str, lines: Sequence[Line]) -> str:
    """An SVG of one quantity over the steps, a logarithmic one where it is
    positive and spans more than two decades; '' without a finite value."""
    drawn = [(line, thinned(line.points)) for line in lines]
    drawn = [(line, points) for line, points in drawn if points]
    if not drawn:
        return ''
    figure = Figure((3.4, 2.0), layout='constrained')
    axis = figure.subplots()
    axis.set_title(title, loc='left', fontsize=8, color='gray')
    axis.tick_params(colors='gray', labelsize=7)
    axis.grid(alpha=0.3)
    axis.spines[:].set_visible(False)
    ys = [y for _, points in drawn for _, y in points]
    if min(ys) > 0 and max(ys) / min(ys) > 100:
        axis.set_yscale('log')
    for number, (_, points) in enumerate(drawn):
        last = [len(points) - 1]
        axis.plot(
            *zip(*points), '-o', markersize=3, markevery=last,
            gid=f'line-{number}',
        )  # fmt: skip
    buffer = io.StringIO()
    with rc_context({'svg.fonttype': 'none'}):
        figure.savefig(
            buffer, format='svg', transparent=True, metadata=METADATA
        )
    svg = buffer.getvalue()
    svg = svg[svg.index('<svg ') :].replace(
        '<svg ', f'<svg class="chart" role="img" aria-label="{escape(title)}" '
    )
    for number, (line, points) in enumerate(drawn):
        step, value = points[-1]
        svg = svg.replace(
            f'<g id="line-{number}">',
            f'<g class="line g{line.group}"><title>{escape(line.label)}: '
            f'{value:.4g} at {step:.0f}</title>',
        )
    return svg
