"""What a detector that finds nothing is worth. COCO's evaluation gives no
figure then, and a mean over what is left would be too good."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

PRECISION = re.compile(
    r'(?:^|[/_])m?AP[rcfsml]?(?:\d|_|$)|(?:^|[/_])AR@|_precision$'
)
# what stands beside the base model's own metrics in a log
OWN = ('train/', 'attention/', 'ablation/', 'calibration/', 'seconds per step')
# of COCO's figures, unless a metric asks for some; of a size there may be
# nothing to find
ITEMS = ('mAP', 'mAP_50', 'mAP_75')
TIMES = {'step', 'time', 'data_time'}
Figures = Mapping[str, float]


def of_nothing(like: Figures) -> dict[str, float]:
    """The average precisions and recalls among these figures, as they are if
    nothing is found: 0; -1 and NaN, where there is nothing to find, stay.

    Example:
        >>> of_nothing({'coco/bbox_mAP': 0.5, 'bbox_mAP_s': -1.0, 'nll': 1.0})
        {'coco/bbox_mAP': 0.0, 'bbox_mAP_s': -1.0}
    """
    return {k: min(v, 0.0) for k, v in like.items() if PRECISION.search(k)}


def expected(evaluator: Any) -> dict[str, float]:
    """The average precisions that an evaluator would give, at 0."""
    if hasattr(evaluator, 'dataset_prefixes'):  # whose names are others
        return {}
    return {
        f'{metric.prefix}/{kind}_{item}': 0.0
        for metric in evaluator.metrics
        if not getattr(metric, 'format_only', False)
        for kind in getattr(metric, 'metrics', None) or ()
        if kind in ('bbox', 'segm')
        for item in getattr(metric, 'metric_items', None) or ITEMS
    }


def completed(
    run: Figures,
    alike: Iterable[Figures],
    others: Iterable[Figures] = (),
) -> dict[str, float]:
    """What a run ended with, with an average precision of 0 where it was
    evaluated and found nothing.

    Args:
        run: the figures of its last evaluation.
        alike: those of runs of the same config.
        others: those of runs that it stands beside: what they were measured
            by counts if it has no metric at all.
    """
    if all(name.startswith(OWN[:1] + OWN[-1:]) for name in run):
        return dict(run)
    like: dict[str, float] = {}
    if all(name.startswith(OWN) or name in TIMES for name in run):
        for other in others:
            own = {k: v for k, v in other.items() if not k.startswith(OWN)}
            like.update(own)
    for other in alike:
        like.update(other)
    for name, value in run.items():
        if name.startswith('ablation/'):  # by the metrics of the whole model
            like.setdefault(name.split('/', 2)[-1], value)
    return {**of_nothing(like), **run}
