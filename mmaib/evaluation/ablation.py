"""Whether a model depends on where a map looks: its metrics without it."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from mmengine.dist import broadcast_object_list
from mmengine.evaluator import Evaluator

from mmaib.layers import changed_maps
from mmaib.layers.capture import MAP_CHANGES
from mmaib.models import known
from mmaib.models.wrapping import unwrapped

from .attention_metric import AttentionMetric
from .nothing_found import expected


@contextmanager
def without_files(evaluator: Any, kept: str | None = None) -> Iterator[None]:
    """An evaluator of MMEngine whose metrics write what is thrown away, as
    far as a field of :data:`known.FILES` names it.

    Args:
        evaluator: it writes as ever afterwards.
        kept: a folder that is written to all the same.
    """
    with TemporaryDirectory() as scratch, ExitStack() as stack:
        shared = [scratch]  # the first rank may read what others wrote
        broadcast_object_list(shared)
        for number, metric in enumerate(evaluator.metrics):
            for field in known.FILES & vars(metric).keys():
                path = getattr(metric, field)
                if not isinstance(path, str) or (
                    kept and Path(path).resolve().is_relative_to(kept)
                ):
                    continue
                other = Path(shared[0], str(number), field, Path(path).name)
                folder = other if os.path.isdir(path) else other.parent
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(patch.object(metric, field, str(other)))
        yield


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
