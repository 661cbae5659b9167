from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmaib.checks import at_least
from mmaib.functional import enclosing
from mmaib.registry import METRICS

from .calibration_bins import calibration_errors, grouped_sums
from .calibration_metric import CalibrationMetric, Predictions
from .ground_truth import box_overlaps, boxes_of
from .scoring_rules import log_of

LAECE_BINS = 25


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
    ``nll``       of being right, in nats
    ``brier``     squared error of the score, from 0 to 1
    ``precision`` share that is right
    ``laece_0``   mean over classes of the error of the score as the overlap
                  with the object, 0 without one, LaECE_0 (Kuzucu et al., *On
                  Calibration of Object Detectors*, ECCV 2024), in 25 bins
    ``lrp``       localisation recall precision error, from 0 to 1 (Oksuz et
                  al., ECCV 2018), of these detections
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
        **kwargs: Any,
    ) -> None:
        super().__init__(num_bins, **kwargs)
        self.iou_thr = at_least('iou_thr', iou_thr, 0.0)
        self.score_thr = at_least('score_thr', score_thr, 0.0)
        self.nothing = f'no detection with a score of {score_thr} or more'

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
        left_out = torch.zeros(len(boxes), dtype=torch.bool)
        overlaps = torch.zeros(len(boxes), 2, dtype=torch.double)
        for label in labels.unique():
            own = labels == label
            given = boxes[own], scores[own], _of_class(true, label)
            matched = [matched_overlaps(*given, t) for t in (0, self.iou_thr)]
            overlaps[own] = torch.stack(matched, dim=1)
            if 'labels' in ignored:
                there = _of_class(ignored, label)
                inside = box_overlaps(boxes[own], there, 'iof')
                left_out[own] = (inside >= self.iou_thr).any(1)
        right = overlaps[:, 1] > 0
        used = right | ~left_out
        scores, right = scores[used].double(), right[used]
        height, width = sample['ori_shape'][:2]
        boxes = enclosing(boxes[used])
        boxes = boxes / boxes.new_tensor([width, height, width, height])
        first, last = boxes.split(2, dim=1)
        return Predictions(
            log_of(torch.stack([1 - scores, scores], dim=1)),
            right.long(),
            {
                name: found[name].cpu()[kept][used]
                for name in self.uncertainties
                if name in found
            },
            torch.ones_like(right).long(),
            boxes=torch.cat([(first + last) / 2, last - first], dim=1),
            classes=labels[used],
            overlaps=overlaps[used],
        )

    def sums(self, found: Predictions, sample: dict) -> dict[str, Any]:
        assert found.classes is not None
        assert found.overlaps is not None
        score = found.log_probs[:, 1].exp()
        columns = [score, found.classes, *found.overlaps.T]
        return {
            **super().sums(found, sample),
            'detections': torch.stack(columns, dim=1),
            'objects': len(sample['gt_instances']['labels']),
        }

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
        every = torch.cat([kept['detections'] for kept in results])
        scores, classes, overlaps, of_right = every.T
        metrics['laece_0'] = laece(scores, overlaps, classes)
        objects = sum(kept['objects'] for kept in results)
        of_right = of_right[of_right > 0]
        metrics['lrp'] = lrp(of_right, len(every), objects, self.iou_thr)
        return metrics


def matched_overlaps(
    boxes: Tensor, scores: Tensor, true_boxes: Tensor, iou_thr: float
) -> Tensor:
    """The overlap of each detection of one class with the box that it is
    matched to, ``(n,)``, 0 without one, as COCO's evaluation has it: from the
    highest score on, each takes the box that it overlaps most among those
    not yet taken."""
    found = torch.zeros(len(boxes), dtype=torch.double)
    overlaps = box_overlaps(boxes, true_boxes)
    if not overlaps.numel():
        return found
    for i in scores.argsort(descending=True, stable=True).tolist():
        best, j = overlaps[i].max(0)
        if best > 0 and best >= iou_thr:
            found[i] = best
            overlaps[:, j] = -1.0
    return found


def laece(scores: Tensor, overlaps: Tensor, classes: Tensor) -> float:
    """LaECE_0: by class the calibration error of scores as overlaps, and of
    these the mean.

    Example:
        >>> scores, overlaps = torch.tensor([[0.75, 0.5], [0.5, 0.0]])
        >>> laece(scores, overlaps, classes=torch.tensor([0, 1]))
        0.375
    """
    errors = []
    for label in classes.unique():
        own = classes == label
        index = (scores[own] * LAECE_BINS).long().clamp(0, LAECE_BINS - 1)
        sums = grouped_sums(index, scores[own], overlaps[own], LAECE_BINS)
        errors.append(calibration_errors(sums)[0])
    return sum(errors) / len(errors)


def lrp(
    overlaps: Tensor, detections: int, objects: int, iou_thr: float
) -> float:
    r"""Localisation recall precision error of detections.

    .. math::
        \frac{\sum_{TP} (1 - IoU) / (1 - \tau) + N_{FP} + N_{FN}}
        {N_{TP} + N_{FP} + N_{FN}}

    Args:
        overlaps: IoU of those that are right.
        detections, objects: how many there are.
        iou_thr: tau.

    Example:
        >>> lrp(torch.tensor([0.75]), detections=2, objects=1, iou_thr=0.5)
        0.75
    """
    wrong = detections + objects - 2 * len(overlaps)
    inexact = float((1 - overlaps).sum()) / max(1 - iou_thr, 1e-9)
    return (inexact + wrong) / (wrong + len(overlaps))


def _of_class(instances: Any, label: Tensor) -> Tensor:
    return boxes_of(instances['bboxes'])[instances['labels'].cpu() == label]
