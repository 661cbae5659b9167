"""Whether a model depends on where a map looks: its metrics without it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import Evaluator

from mmaib.layers import changed_maps
from mmaib.layers.map_changes import MAP_CHANGES
from mmaib.models.wrapping import unwrapped

from .attention_metric import AttentionMetric
from .discarded_writes import without_files
from .nothing_found import expected


@torch.no_grad()
def evaluate(
    model: Any, dataloader: Any, evaluator: Evaluator
) -> dict[str, float]:
    """The metrics of a model, as a loop of MMEngine's has them, without its
    hooks; the AP of a detector that finds nothing is 0. What metrics write is
    left to that loop, and discarded here."""
    training = model.training
    model.eval()
    try:
        with without_files(evaluator):
            for batch in dataloader:
                samples = model.test_step(batch)
                evaluator.process(data_samples=samples, data_batch=batch)
            found = evaluator.evaluate(len(dataloader.dataset))
        return {**expected(evaluator), **found}
    finally:
        model.train(training)
        for metric in evaluator.metrics:  # of an evaluation that was cut off
            metric.results.clear()


def ablation_metrics(
    model: Any,
    dataloader: Any,
    evaluator: Evaluator,
    changes: Sequence[str] = tuple(MAP_CHANGES),
) -> dict[str, float]:
    """The base metrics when every map is changed: mirrored, flattened
    to its mean, shuffled over positions. If none changes the metric, the model
    does not depend on where the map looks.

    Args:
        model: with maps inside.
        dataloader: of the images to evaluate on.
        evaluator: of MMEngine; metrics of maps themselves are left out.
        changes: as :func:`mmaib.layers.changed_maps` has them.

    Returns:
        ``{'mirror/coco/bbox_mAP': ...}``: the metric, not the difference.
    """
    inner = unwrapped(model)
    base = copy.copy(evaluator)
    base.metrics = [
        m for m in evaluator.metrics if not isinstance(m, AttentionMetric)
    ]
    found = {}
    for change in changes:
        with changed_maps(inner, change):
            metrics = evaluate(model, dataloader, base)
        found.update({f'{change}/{k}': v for k, v in metrics.items()})
    return found
