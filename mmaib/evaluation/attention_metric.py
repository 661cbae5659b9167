from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import mean
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor, nn

from mmaib.layers import CapturedMap, capture_attention
from mmaib.layers.attentive_bottleneck import SATURATED
from mmaib.registry import METRICS

from .map_geometry import map_on_image, mean_over_levels, whole_maps
from .scores import (
    catching_rate,
    contrast,
    energy_inside,
    fitting_rate,
    missing_rate,
    pointing_hit,
    roc_auc,
)


@METRICS.register_module()
class AttentionMetric(BaseMetric):
    r"""Where the maps of a model look, beside the host's own metrics.

    Against the boxes of a detector, those of a classifier whose data set has
    them (``gt_bboxes`` among the ``meta_keys`` of its ``PackInputs``), or the
    classes of a segmentor that are named as foreground, of the mean map mu_a,
    averaged over levels, on the original image; the mean over the images that
    have positions inside and outside:

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
    ``fitting``       intersection over union with it, Eq. 21
    ================= ===================================================

    Of the maps alone, the mean over levels and images: ``contrast``, the
    standard deviation over positions; ``saturated``, the share of scores
    within 0.02 of 0 or 1; and behind an :class:`InformationGate`
    ``bits_per_image``. How a map scores says nothing of what it carries: see
    :func:`causal_drops`.

    The maps come from :class:`mmaib.AttentionEvalHook`, which adds this metric
    too where it is not in the evaluator.

    Args:
        foreground: numbers of the classes that a segmentor's map is held
            against; None leaves out all that needs a mask. A detector's is
            held against the boxes of all classes.
        tolerance: of ``pointing``, in pixels of the original image.
        threshold: above which a score counts as attended to.
        by_level: whether to give ``auc_level0`` ... too.
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
        by_level: bool = False,
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
        self.by_level = by_level
        self._model: Any = None
        self._maps: list[CapturedMap] = []

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Take the maps of a model while it is evaluated."""
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
            self.results.append(self.scores(maps, index, sample))
        self._maps.clear()

    def scores(
        self, maps: Sequence[CapturedMap], index: int, sample: dict
    ) -> dict[str, float]:
        """The scores of one image; without a ground truth those of the maps
        alone.

        Args:
            maps: of its batch, of whole images.
            index: its place there.
            sample: its data sample, as a dict.
        """
        means = [captured.mean[index] for captured in maps]
        middle = torch.tensor(0.5) - SATURATED
        scores = {
            'contrast': mean(contrast(x) for x in means),
            'saturated': mean(
                float(((x - 0.5).abs() > middle).double().mean())
                for x in means
            ),
        }
        bits = [b[index].sum() for captured in maps for b in captured.bits]
        if bits:
            scores['bits_per_image'] = float(sum(bits))
        mask = self._mask(sample)
        if mask is None or not mask.any() or mask.all():
            return scores
        attention = mean_over_levels(maps, index, sample)
        sides = [2.0 * x - 1 for x in (attention > self.threshold, mask)]
        norms = [n[index, 0] for captured in maps for n in captured.norms]
        norm = torch.stack([map_on_image(n, sample) for n in norms]).mean(0)
        scores.update(
            auc=roc_auc(attention, mask),
            auc_norm=roc_auc(norm, mask),
            auc_centre=roc_auc(_to_centre(mask), mask),
            energy=energy_inside(attention, mask),
            area=float(mask.double().mean()),
            pointing=pointing_hit(attention, mask, self.tolerance),
            catching=catching_rate(*sides),
            missing=missing_rate(*sides),
            fitting=fitting_rate(*sides),
        )
        if self.by_level:
            for level, x in enumerate(means):
                on_image = map_on_image(x[0], sample)
                scores[f'auc_level{level}'] = roc_auc(on_image, mask)
        return scores

    def _mask(self, sample: dict) -> Tensor | None:
        """What is to be found, on the original image."""
        if 'bboxes' in sample.get('gt_instances', {}):
            boxes = sample['gt_instances']['bboxes']
            boxes = torch.as_tensor(getattr(boxes, 'tensor', boxes))
            return _inside(boxes, *sample['ori_shape'][:2])
        if 'gt_bboxes' in sample:
            # of a classifier, on the image as it was resized
            height, width = sample['ori_shape'][:2]
            seen_height, seen_width = sample['img_shape'][:2]
            x, y = width / seen_width, height / seen_height
            boxes = torch.as_tensor(sample['gt_bboxes'])
            boxes = boxes * boxes.new_tensor([x, y, x, y])
            return _inside(boxes, height, width)
        if self.foreground is not None and 'gt_sem_seg' in sample:
            labels = sample['gt_sem_seg']['data'][0].cpu()
            return torch.isin(labels, torch.tensor(self.foreground))
        return None

    def compute_metrics(self, results: list) -> dict[str, float]:
        found: dict[str, list[float]] = defaultdict(list)
        for scores in results:
            for name, value in scores.items():
                found[name].append(value)
        return {name: mean(values) for name, values in found.items()}


def _inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """The pixels in one box or more."""
    mask = torch.zeros(height, width, dtype=torch.bool)
    corners = boxes.round().long().clamp(min=0)
    for left, top, right, bottom in corners.tolist():
        mask[top:bottom, left:right] = True
    return mask


def _to_centre(mask: Tensor) -> Tensor:
    """Minus the distance to the centre, in half sides."""
    height, width = mask.shape
    rows = torch.linspace(-1, 1, height)[:, None]
    columns = torch.linspace(-1, 1, width)
    return -(rows.square() + columns.square())
