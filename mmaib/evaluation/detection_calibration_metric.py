from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmaib.checks import at_least, one_of
from mmaib.functional import enclosing
from mmaib.registry import METRICS

from .calibration import (
    calibration_errors,
    grouped_sums,
    log_of,
)
from .calibration_metric import CalibrationMetric, Predictions
from .ground_truth import box_overlaps, boxes_of

MOST_BINS = 16  # to the fifth power they are counted


@METRICS.register_module()
class DetectionCalibrationMetric(CalibrationMetric):
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
        kwargs: of :class:`CalibrationMetric`. Which detections are used is
            known before a ``calibrator``.

    Raises:
        ValueError: if a field is out of range; at the first batch, if
            predictions are not a detector's.
    """

    uncertainties = ('entropy', 'score_std')

    def __init__(
        self,
        iou_thr: float = 0.5,
        score_thr: float = 0.3,
        num_bins: int = 20,
        box_bins: int = 5,
        min_samples: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_bins, **kwargs)
        self.iou_thr = at_least('iou_thr', iou_thr, 0.0)
        self.score_thr = at_least('score_thr', score_thr, 0.0)
        self.box_bins = one_of('box_bins', box_bins, range(1, MOST_BINS + 1))
        self.min_samples = at_least('min_samples', min_samples, 1)
        self.nothing = f'no detection with a score of {score_thr} or more'

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            found = self.calibrated(sample)
            assert found.boxes is not None
            columns = [found.boxes, found.labels[:, None]]
            boxes = torch.cat([found.log_probs[:, 1:].exp(), *columns], dim=1)
            self.results.append({**self.sums(found), 'boxes': boxes})

    def predictions(self, sample: dict) -> Predictions:
        """Whether each detection is right, of two classes."""
        if not {'pred_instances', 'gt_instances'} <= sample.keys():
            raise ValueError(
                'DetectionCalibrationMetric needs pred_instances and '
                f'gt_instances, got {sorted(sample)}'
            )
        found, true = sample['pred_instances'], sample['gt_instances']
        ignored = sample.get('ignored_instances') or {}
        kept = found['scores'].cpu() >= self.score_thr
        scores, labels = (found[n].cpu()[kept] for n in ('scores', 'labels'))
        boxes = boxes_of(found['bboxes'])[kept]
        right = torch.zeros(len(boxes), dtype=torch.bool)
        left_out = torch.zeros_like(right)
        for label in labels.unique():
            own = labels == label
            right[own] = true_positives(
                boxes[own], scores[own], _of_class(true, label), self.iou_thr
            )
            if 'labels' in ignored:
                there = _of_class(ignored, label)
                overlaps = box_overlaps(boxes[own], there, 'iof')
                left_out[own] = (overlaps >= self.iou_thr).any(1)
        used = right | ~left_out
        scores, right = scores[used].double(), right[used]
        boxes = enclosing(boxes[used])
        height, width = sample['ori_shape'][:2]
        size = boxes.new_tensor([width, height])
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2 / size
        extent = (boxes[:, 2:] - boxes[:, :2]) / size
        return Predictions(
            log_of(torch.stack([1 - scores, scores], dim=1)),
            right.long(),
            {
                name: found[name].cpu()[kept][used]
                for name in self.uncertainties
                if name in found
            },
            torch.ones_like(right).long(),
            boxes=torch.cat([centre, extent], dim=1),
            classes=labels[used],
        )

    def compute_metrics(self, results: list) -> dict[str, float]:
        found = super().compute_metrics(results)
        if not found:
            return found
        metrics = dict(
            d_ece=found.pop('ece'),
            d_mce=found.pop('mce'),
            precision=found.pop('accuracy'),
            **found,
        )
        metrics['brier'] /= 2  # of two classes each error is twice
        *where, right = torch.cat([kept['boxes'] for kept in results]).T
        bins = self.box_bins
        index = torch.zeros_like(right).long()
        for value in where:  # all five as the digits of one number
            index = bins * index + (value * bins).long().clamp(0, bins - 1)
        sums = grouped_sums(index, where[0], right, bins ** len(where))
        sums = sums[:, sums[0] >= self.min_samples]
        if sums.numel():
            looked_at = float(sums[0].sum()) / len(right)
            metrics['d_ece_box'] = looked_at * calibration_errors(sums)[0]
        return metrics


def true_positives(
    boxes: Tensor, scores: Tensor, true_boxes: Tensor, iou_thr: float
) -> Tensor:
    """Which detections of one class are right, ``(n,)``, as COCO's evaluation
    has it: from the highest score on, each takes the box that it overlaps
    most among those not yet taken."""
    right = torch.zeros(len(boxes), dtype=torch.bool)
    overlaps = box_overlaps(boxes, true_boxes)
    if not overlaps.numel():
        return right
    for i in scores.argsort(descending=True, stable=True).tolist():
        best, j = overlaps[i].max(0)
        if best >= iou_thr:
            right[i] = True
            overlaps[:, j] = -1.0
    return right


def _of_class(instances: Any, label: Tensor) -> Tensor:
    return boxes_of(instances['bboxes'])[instances['labels'].cpu() == label]
