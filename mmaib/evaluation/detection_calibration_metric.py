from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from mmaib.checks import at_least, one_of
from mmaib.registry import METRICS

from .calibration import (
    at_temperature,
    bin_sums,
    box_overlaps,
    calibration_errors,
    grouped_sums,
    log_of,
    risk_coverage,
    scoring_rules,
    true_positives,
)
from .calibration_metric import areas, draw

UNCERTAINTIES = ('entropy', 'score_std')
MOST_BINS = 16  # to the fifth power they are counted


@METRICS.register_module()
class DetectionCalibrationMetric(BaseMetric):
    """Whether a detector's scores are the share of its detections that are
    right, D-ECE (Kueppers et al., *Multivariate Confidence Calibration for
    Object Detection*, CVPR Workshops 2020).

    A detection is right if it overlaps a box of its class that no higher
    score took, matched as COCO does; one that lies on ignored boxes alone is
    left out.

    ============= =======================================================
    ``d_ece``     by confidence
    ``d_mce``     the largest error of a bin
    ``d_ece_box`` by confidence and the box's centre, width and height,
                  relative to the image
    ``nll``       of being right, in nats
    ``brier``     squared error of the score, from 0 to 1
    ``precision`` share that is right
    ``aurc``      area under the risk-coverage curve by the score; the risk
                  is the share that is wrong
    ============= =======================================================

    and ``aurc_entropy`` and ``aurc_score_std`` where detections have them
    (``test_draws`` with ``uncertainty=True``). Of no detection at all there
    is no figure.

    Args:
        iou_thr: least overlap with the box.
        score_thr: detections below it are not looked at; 0.3 in that paper.
        num_bins: of the confidence.
        box_bins: of each of the five in ``d_ece_box``, 16 at most.
        min_samples: what a bin of ``d_ece_box`` must have, 8 in that paper;
            one with less adds no error, as in its authors' netcal, and
            without any such bin there is no ``d_ece_box``.
        temperature: by which a score's logit is divided; which detections
            are used is known before that.
        out_dir: folder for ``reliability.png`` and ``risk_coverage.png``;
            None draws nothing.
        kwargs: of MMEngine's ``BaseMetric``.

    Raises:
        ValueError: if a field is out of range; at the first batch, if
            predictions are not a detector's.
    """

    default_prefix = 'calibration'

    def __init__(
        self,
        iou_thr: float = 0.5,
        score_thr: float = 0.3,
        num_bins: int = 20,
        box_bins: int = 5,
        min_samples: int = 8,
        temperature: float = 1.0,
        out_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.iou_thr = at_least('iou_thr', iou_thr, 0.0)
        self.score_thr = at_least('score_thr', score_thr, 0.0)
        self.num_bins = at_least('num_bins', num_bins, 1)
        self.box_bins = one_of('box_bins', box_bins, range(1, MOST_BINS + 1))
        self.min_samples = at_least('min_samples', min_samples, 1)
        self.temperature = at_least('temperature', temperature, 0.01)
        self.out_dir = out_dir

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            if not {'pred_instances', 'gt_instances'} <= sample.keys():
                raise ValueError(
                    'DetectionCalibrationMetric needs pred_instances and '
                    f'gt_instances, got {sorted(sample)}'
                )
            self.results.append(self._detections(sample))

    def predictions(self, sample: dict) -> tuple[Tensor, Tensor]:
        """Log-probabilities ``(n, 2)`` of being right, before any
        temperature, and whether each detection is, ``(n,)``."""
        found = self._detections(sample)
        return of_being_right(found['scores']), found['right'].long()

    def _detections(self, sample: dict) -> dict[str, Tensor]:
        """The detections of an image, whether each is right, and where it
        lies."""
        found = sample['pred_instances']
        kept = found['scores'].cpu() >= self.score_thr
        scores, labels = (
            found[name].cpu()[kept] for name in ('scores', 'labels')
        )
        boxes = _boxes(found)[kept]
        right = torch.zeros(len(boxes), dtype=torch.bool)
        left_out = torch.zeros_like(right)
        true = sample['gt_instances']
        ignored = sample.get('ignored_instances') or {}
        for label in labels.unique():
            own = labels == label
            right[own] = true_positives(
                boxes[own],
                scores[own],
                _boxes(true)[true['labels'].cpu() == label],
                self.iou_thr,
            )
            if 'labels' in ignored:
                of_class = ignored['labels'].cpu() == label
                overlap = box_overlaps(
                    boxes[own], _boxes(ignored)[of_class], of_first=True
                )
                left_out[own] = (overlap >= self.iou_thr).any(1)
        left_out &= ~right
        height, width = sample['ori_shape'][:2]
        size = boxes.new_tensor([width, height])
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2 / size
        extent = (boxes[:, 2:] - boxes[:, :2]) / size
        return {
            'scores': scores[~left_out].double(),
            'right': right[~left_out],
            'place': torch.cat([centre, extent], dim=1)[~left_out].double(),
            **{
                name: found[name].cpu()[kept][~left_out].double()
                for name in UNCERTAINTIES
                if name in found
            },
        }

    def compute_metrics(self, results: list) -> dict[str, float]:
        names = [
            name
            for name in (results[0] if results else ())
            if all(name in kept for kept in results)
        ]
        found = {n: torch.cat([kept[n] for kept in results]) for n in names}
        if not len(found.get('scores', ())):
            print_log(
                'DetectionCalibrationMetric: no detection with a score of '
                f'{self.score_thr} or more',
                'current',
            )
            return {}
        scores, right = found['scores'], found['right']
        log_probs = of_being_right(scores)
        if self.temperature != 1:
            log_probs = at_temperature(log_probs, self.temperature)
            scores = log_probs[:, 1].exp()
        bins = bin_sums(scores, right, self.num_bins)
        d_ece, d_mce = calibration_errors(bins)
        rules = scoring_rules(log_probs, right.long()) / len(scores)
        curves = {
            name: risk_coverage(value, (~right).double())
            for name, value in [
                ('', 1 - scores),
                *((n, found[n]) for n in UNCERTAINTIES if n in found),
            ]
        }
        if self.out_dir is not None:
            draw(self.out_dir, bins, curves, 'precision')
        metrics = dict(
            d_ece=d_ece,
            d_mce=d_mce,
            nll=float(rules[0]),
            brier=float(rules[1]) / 2,  # of two classes each error is twice
            precision=float(right.double().mean()),
            **areas(curves),
        )
        sums = self._box_sums(scores, right, found['place'])
        if sums.numel():
            looked_at = float(sums[0].sum()) / len(scores)
            metrics['d_ece_box'] = looked_at * calibration_errors(sums)[0]
        return metrics

    def _box_sums(
        self, scores: Tensor, right: Tensor, place: Tensor
    ) -> Tensor:
        """:func:`bin_sums` over all five, of the bins that count."""
        bins = self.box_bins
        where = torch.cat([scores[:, None], place], dim=1)
        index = (where * bins).long().clamp(0, bins - 1)
        weights = bins ** torch.arange(index.size(1))
        sums = grouped_sums(
            (index * weights).sum(1), scores, right, bins ** index.size(1)
        )
        return sums[:, sums[0] >= self.min_samples]


def of_being_right(scores: Tensor) -> Tensor:
    return log_of(torch.stack([1 - scores, scores], dim=1))


def _boxes(instances: Any) -> Tensor:
    boxes = instances['bboxes']
    return torch.as_tensor(getattr(boxes, 'tensor', boxes)).cpu()
