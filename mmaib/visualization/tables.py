"""Tables of what runs ended with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from mmaib.evaluation.nothing_found import completed
from mmaib.layers.map_changes import CHANGES

METRICS = (
    'coco/bbox_mAP',
    'coco/bbox_mAP_50',
    'coco/segm_mAP',
    'mIoU',
    'aAcc',
    'accuracy/top1',
)
OF_MAPS = {
    'attention/auc': 'AUC',
    'attention/auc_norm': "AUC of the features' norm",
    'attention/auc_centre': 'AUC of the centre',
    'attention/energy': 'energy',
    'attention/area': 'area',
    'attention/iou': 'IoU',
    'attention/contrast': 'contrast',
    'attention/saturated': 'saturated',
    'attention/bits_per_image': 'bits an image',
}


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table whose first row is its head."""
    head, *body = ['| ' + ' | '.join(row) + ' |' for row in rows]
    return [head, '|' + ' --- |' * len(rows[0]), *body]


def cell(
    values: Sequence[float], digits: int = 4, interval: bool = False
) -> str:
    """Mean, and the standard deviation of more than one, or half of the
    95 % interval of their mean, by Student's t."""
    if not values:
        return 'not run'
    text = f'{np.mean(values):.{digits}f}'
    if len(values) > 1:
        spread = _half_interval(values) if interval else np.std(values, ddof=1)
        text += f' ± {spread:.{digits}f}'
    return text


def difference(values: Sequence[float]) -> str:
    """A mean difference, its 95 % interval by Student's t, and a star if that
    is off zero. (A bootstrap of five values is too narrow by a third.)"""
    if not values:
        return 'not run'
    mean = np.mean(values)
    text = f'{mean:+.4f}'
    if len(values) > 1:
        half = _half_interval(values)
        text += f' [{mean - half:+.4f}, {mean + half:+.4f}]'
        text += ' *' if abs(mean) > half else ''
    return text


def _half_interval(values: Sequence[float]) -> float:
    from scipy.stats import sem, t

    return float(t.ppf(0.975, len(values) - 1) * sem(values))


Runs = Mapping[Any, Mapping[str, float]]  # by seed


class Column(NamedTuple):
    """A column of a table in which a row is some runs."""

    head: str
    # of each run that has one: by its name, or by what gives them
    figures: str | Callable[[Runs], Sequence[float]]
    show: Callable[[Sequence[float]], str] = cell

    def text(self, runs: Runs) -> str:
        """A cell, with the count of the runs if not all have a figure; '-'
        if none has."""
        if isinstance(self.figures, str):
            found: Sequence[float] = values(runs, self.figures)
        else:
            found = self.figures(runs)
        if runs and not found:
            return '-'
        few = len(found) < len(runs)
        return self.show(found) + few * f' ({len(found)} of {len(runs)})'


def tabulate(
    head: str, rows: Mapping[str, Runs], columns: Sequence[Column]
) -> list[list[str]]:
    """A table's rows, its head first: label, seeds, and these columns."""
    found = [[head, 'seeds', *(column.head for column in columns)]]
    for label, runs in rows.items():
        seeds = ', '.join(map(str, runs)) or 'not run'
        found.append([label, seeds, *(c.text(runs) for c in columns)])
    return found


def values(runs: Runs, name: str) -> list[float]:
    """A figure of the runs that have it."""
    return [run[name] for run in runs.values() if name in run]


def lost(runs: Runs, metric: str, change: str) -> list[float]:
    """What the runs lose of a metric under a change of their maps."""
    changed = f'ablation/{change}/{metric}'
    both = [run for run in runs.values() if {metric, changed} <= run.keys()]
    return [run[metric] - run[changed] for run in both]


def paired(runs: Runs, base: Runs, metric: str) -> list[float]:
    """Differences in the seeds that both have; none of a base to itself."""
    return [
        run[metric] - base[seed][metric]
        for seed, run in runs.items()
        if runs is not base
        if metric in run and metric in base.get(seed, {})
    ]


def columns_of_metrics(
    metrics: Iterable[str],
    base: Runs,
    show: Callable[..., str] = cell,
) -> list[Column]:
    """Each metric, and its paired difference to the base model's runs."""
    columns = []
    for name in metrics:
        paired_to_base = partial(paired, base=base, metric=name)
        columns += [
            Column(name, name, show),
            Column('paired difference', paired_to_base, show),
        ]
    return columns


def columns_of_maps(
    rows: Iterable[Runs],
    metrics: Sequence[str],
    show: Callable[..., str] = cell,
    of_maps: Mapping[str, str] = OF_MAPS,
) -> list[Column]:
    """What the first metric loses with changed maps, and where they look, as
    far as any run has it."""
    there = {name for runs in rows for run in runs.values() for name in run}
    lost_by = {
        change: partial(lost, metric=metric, change=change)
        for metric in metrics[:1]
        for change in CHANGES
        if f'ablation/{change}/{metric}' in there
    }
    columns = [Column(f'lost by {k}', v, show) for k, v in lost_by.items()]
    return columns + [
        Column(title, name, partial(show, digits=0 if 'bits' in name else 3))
        for name, title in of_maps.items()
        if name in there
    ]


def with_nothing_found(
    logs: Mapping[str, Runs],
) -> dict[str, dict[Any, dict[str, float]]]:
    """See :func:`completed`."""
    everywhere = [run for runs in logs.values() for run in runs.values()]
    return {
        config: {
            seed: completed(run, runs.values(), everywhere)
            for seed, run in runs.items()
        }
        for config, runs in logs.items()
    }
