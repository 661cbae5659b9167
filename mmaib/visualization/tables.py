"""Tables of what runs ended with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from mmaib.evaluation.nothing_found import completed
from mmaib.layers.capture import MAP_CHANGES

METRICS = (
    'coco/bbox_mAP',
    'coco/bbox_mAP_50',
    'coco/segm_mAP',
    'mIoU',
    'aAcc',
    'accuracy/top1',
)
CHANGES = tuple(MAP_CHANGES)
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


def markdown(rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return ['| ' + ' | '.join(row) + ' |' for row in rows]


def cell(
    values: Sequence[float], digits: int = 4, interval: bool = False
) -> str:
    """Mean, and the standard deviation of more than one, or half of the
    95 % interval of their mean."""
    if not values:
        return 'not run'
    text = f'{np.mean(values):.{digits}f}'
    if len(values) > 1:
        spread = float(np.std(values, ddof=1))
        if interval:
            from scipy.stats import t

            quantile = t.ppf(0.975, len(values) - 1)
            spread *= float(quantile) / len(values) ** 0.5
        text += f' ± {spread:.{digits}f}'
    return text


def counted(
    values: Sequence[float], show: Callable = cell, of: int = 0
) -> str:
    """A cell, with the count of the runs if not all have a value; '-' if
    none has."""
    if of and not values:
        return '-'
    missing = f' ({len(values)} of {of})' if len(values) < of else ''
    return show(values) + missing


Runs = Mapping[int, Mapping[str, float]]  # by seed


def values(runs: Runs, name: str) -> list[float]:
    """A figure of the runs that have it."""
    return [run[name] for run in runs.values() if name in run]


def lost(runs: Runs, metric: str, changed: str) -> list[float]:
    """What the runs that have both lose of a metric."""
    both = [run for run in runs.values() if {metric, changed} <= run.keys()]
    return [run[metric] - run[changed] for run in both]


def paired(runs: Runs, base: Runs, metric: str) -> list[float]:
    """Differences in the seeds that both have."""
    return [
        run[metric] - base[seed][metric]
        for seed, run in runs.items()
        if metric in run and metric in base.get(seed, {})
    ]


def with_nothing_found(
    logs: Mapping[str, Runs],
) -> dict[str, dict[int, dict[str, float]]]:
    """See :func:`completed`."""
    everywhere = [run for runs in logs.values() for run in runs.values()]
    return {
        config: {
            seed: completed(run, runs.values(), everywhere)
            for seed, run in runs.items()
        }
        for config, runs in logs.items()
    }


def metrics_to_tabulate(
    asked: Sequence[str], logs: Iterable[Mapping[int, Mapping[str, float]]]
) -> Sequence[str]:
    """The metrics to tabulate.

    Raises:
        SystemExit: if the logs have none, or not one that was asked for.
    """
    runs = [run for config in logs for run in config.values()]
    # a detector that finds nothing has no calibration, for instance
    join = set.union if asked else set.intersection
    there = join(*map(set, runs)) if runs else set(asked)
    metrics = asked or [metric for metric in METRICS if metric in there]
    if runs and not (metrics and there.issuperset(metrics)):
        sys.exit(
            f'--metrics {" ".join(metrics)}: the logs have {sorted(there)}'
        )
    return metrics
