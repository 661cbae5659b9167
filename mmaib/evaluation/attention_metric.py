from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import mean
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from torch import nn

from mmaib.layers import CapturedMap, capture_attention
from mmaib.layers.attentive_bottleneck import SATURATED
from mmaib.layers.map_changes import to_centre
from mmaib.registry import METRICS

from .ground_truth import misplaced, object_mask, separating
from .map_geometry import (
    image_shares,
    map_on_image,
    mean_over_levels,
    whole_maps,
)
from .scores import (
    catching_rate,
    contrast,
    energy_inside,
    iou,
    missing_rate,
    pointing_hit,
    roc_auc,
    weighted_mean,
)


@METRICS.register_module()
class AttentionMetric(BaseMetric):
    r"""Where the maps of a model look, beside the base metrics.

    Against the boxes of a detector, those of a classifier whose data set has
    them (``gt_bboxes`` among the ``meta_keys`` of its ``PackInputs``), or the
    classes of a segmentor that are named as foreground, of the mean map mu_a,
    averaged over levels, on the original image; the mean over the images that
    have positions inside and outside. Ignored and crowd boxes, where no other
    box is, and void pixels are neither, and left out:

    ================= ===================================================
    ``auc``           area under the ROC curve
    ``auc_norm``      the same of the norm of the features that the map
                      modulates, a baseline without a map
    ``auc_centre``    the same of the distance to the image's centre; a
                      uniform map has 0.5
    ``energy``        share of the map's sum inside
    ``area``          share of the image inside, a uniform map's ``energy``
    ``pointing``      share of images whose highest position lies inside, or
                      within ``tolerance`` of it
    ``catching``      Eq. 11 of [RECT], of where the map is above ``threshold``
    ``missing``       share of positions on the wrong side of it, Eq. 12
    ``iou``           intersection over union with it, Eq. 21
    ================= ===================================================

    Of the maps alone, the mean over levels and images: ``contrast``, the
    standard deviation over positions; ``saturated``, the share of scores
    within 0.02 of 0 or 1; and of an :class:`InformationGate`
    ``bits_per_image``, the sum. Padding counts in none of them.

    All is of the mean map, whatever ``test_draws`` draws: bits are those that
    pass where nothing is drawn.

    An image whose boxes, or whose mask, do not lie on it, as after a
    transform that resizes images alone (mmpretrain's ``ResizeEdge``), is left
    out of the first table, counted and named in a warning. How a map scores
    does not show what depends on it: see :func:`ablation_metrics`.

    The maps come from :class:`mmaib.AttentionEvalHook`, which adds this metric
    too where it is not in the evaluator.

    Args:
        foreground: numbers of the classes that a segmentor's map is held
            against; None leaves out all that needs a mask. A detector's is
            held against the boxes of all classes.
        tolerance: of ``pointing``, in pixels of the original image.
        threshold: above which a score counts as attended to.
        ignore_index: of a segmentor's void pixels.
        kwargs: of MMEngine's ``BaseMetric``.

    Raises:
        ValueError: if ``foreground`` is no list of numbers.
        RuntimeError: at the first batch, if no hook gives maps.
    """

    default_prefix = 'attention'

    def __init__(
        self,
        foreground: Sequence[int] | None = None,
        tolerance: int = 15,
        threshold: float = 0.5,
        ignore_index: int = 255,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if foreground is not None and not (
            isinstance(foreground, list | tuple)
            and all(isinstance(number, int) for number in foreground)
        ):
            raise ValueError(
                'foreground must be a list of the numbers of classes, such as '
                f'[8, 9], got {foreground!r}'
            )
        self.foreground = None if foreground is None else [*foreground]
        self.tolerance = tolerance
        self.threshold = threshold
        self.ignore_index = ignore_index
        # after which boxes do not lie on their image
        self._transform: str | None = None
        self._model: Any = None
        self._maps: list[CapturedMap] = []

    @contextmanager
    def watching(
        self, model: nn.Module, dataset: Any = None
    ) -> Iterator[None]:
        """Take the maps of a model while it is evaluated, on a data set."""
        self._transform = None if dataset is None else separating(dataset)
        with capture_attention(model) as maps:
            self._model, self._maps = model, maps
            try:
                yield
            finally:
                self._model, self._maps = None, []

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        if self._model is None:
            raise RuntimeError(
                'AttentionMetric is given no maps: add '
                "dict(type='mmaib.AttentionEvalHook') to custom_hooks"
            )
        for index, sample in enumerate(data_samples):
            maps = whole_maps(self._model, self._maps, sample)
            scores = self.scores(maps, index, sample)
            self.results.append((scores, self._misplaced(sample)))
        self._maps.clear()

    def scores(
        self, maps: Sequence[CapturedMap], index: int, sample: dict
    ) -> dict[str, float]:
        """The scores of the image ``index`` of a batch, from the maps of whole
        images and its data sample as a dict; without a ground truth those of
        the maps alone."""
        means = [captured.mean[index] for captured in maps]
        own = [image_shares(x, sample) for x in means]
        middle = torch.tensor(0.5) - SATURATED
        scores = {
            'contrast': mean(map(contrast, means, own)),
            'saturated': mean(
                float(weighted_mean((x - 0.5).abs() > middle, shares))
                for x, shares in zip(means, own)
            ),
        }
        bits = [b[index] for captured in maps for b in captured.bits]
        if bits:  # of a cell, as far as it is image
            passed = [(b * image_shares(b, sample)).sum() for b in bits]
            scores['bits_per_image'] = float(sum(passed))
        truth = object_mask(sample, self.foreground, self.ignore_index)
        if truth is None or self._misplaced(sample):
            return scores
        mask, known = truth
        inside = mask[known]
        if not inside.any() or inside.all():
            return scores
        on_image = mean_over_levels(maps, index, sample)
        attention = on_image[known]
        sides = [2.0 * x - 1 for x in (attention > self.threshold, inside)]
        norms = [n[index, 0] for captured in maps for n in captured.norms]
        norm = torch.stack([map_on_image(n, sample) for n in norms]).mean(0)
        scores.update(
            auc=roc_auc(attention, inside),
            auc_norm=roc_auc(norm[known], inside),
            auc_centre=roc_auc(to_centre(mask)[0, 0][known], inside),
            energy=energy_inside(attention, inside),
            area=float(inside.double().mean()),
            pointing=pointing_hit(
                on_image.masked_fill(~known, -torch.inf), mask, self.tolerance
            ),
            catching=catching_rate(*sides),
            missing=missing_rate(*sides),
            iou=iou(*sides),
        )
        return scores

    def _misplaced(self, sample: dict) -> str | None:
        if self._transform is not None:
            return f'{self._transform} changes one and not the other'
        return misplaced(sample, self.foreground)

    def compute_metrics(self, results: list) -> dict[str, float]:
        found: dict[str, list[float]] = defaultdict(list)
        for scores, _ in results:
            for name, value in scores.items():
                found[name].append(value)
        if unfit := [reason for _, reason in results if reason]:
            MMLogger.get_current_instance().warning(
                f'AttentionMetric: {len(unfit)} of {len(results)} images are '
                'left out of auc, energy, pointing and the like, as their '
                f'ground truth does not lie on them: {unfit[0]}. A transform '
                'that changes the image must change its boxes too '
                "(mmcv's Resize does, mmpretrain's ResizeEdge does not), or "
                "stand before a detector's or segmentor's LoadAnnotations"
            )
        return {name: mean(values) for name, values in found.items()}
