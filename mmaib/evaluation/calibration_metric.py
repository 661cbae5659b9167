from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from mmaib.checks import at_least
from mmaib.registry import METRICS

from .calibration_bins import bin_sums, calibration_errors
from .scoring_rules import aurc, log_of, scoring_rules

# a pixel's uncertainty is kept to so many levels
LEVELS = 512


class Predictions(NamedTuple):
    """Those of an image, before they are calibrated."""

    log_probs: Tensor  # (n, C)
    labels: Tensor  # (n,)
    uncertainties: Mapping[str, Tensor] = {}  # (n,) each
    predicted: Tensor | None = None  # (n,); None is the most probable
    pixels: bool = False  # so many that uncertainties are rounded
    # a detector's: centres and sizes relative to the image, (n, 4), (n,), and
    # with what each is matched to at any overlap and at iou_thr, (n, 2)
    boxes: Tensor | None = None
    classes: Tensor | None = None
    overlaps: Tensor | None = None


@METRICS.register_module()
class CalibrationMetric(BaseMetric):
    r"""Whether a classifier's or a segmentor's probabilities are true, an
    image or a pixel each.

    ============= =======================================================
    ``ece``       expected calibration error of the probability of what is
                  predicted: the highest, or by ``decode_head.threshold`` of a
                  segmentor with one channel
    ``mce``       the largest error of a bin
    ``nll``       negative log-likelihood, in nats
    ``brier``     squared error of all probabilities, from 0 to 2
    ``accuracy``  share of labels that are right
    ``aurc``      area under the risk-coverage curve by the highest
                  probability: the mean error among what it is surest of
    ============= =======================================================

    and ``aurc_entropy`` and ``aurc_mutual_information`` where predictions
    have them (``test_draws`` with ``uncertainty=True``). Sums of each image
    are kept, so the figures are the same on any number of processes.

    A probability of 0 counts as the smallest float32. The AURC of pixels is
    of their uncertainty in 512 steps.

    Args:
        num_bins: of equal width.
        ignore_index: label of pixels that have none.
        calibrator: from :class:`Predictions` to the log-probabilities that
            are looked at in their place, ``(n, C)``, as
            ``tools/experiments/calibration.py`` fits some; None for theirs.
        kwargs: of MMEngine's ``BaseMetric``.

    Raises:
        ValueError: if a field is out of range; at the first batch, if
            predictions are neither a classifier's nor a segmentor's.
    """

    default_prefix = 'calibration'
    uncertainties: tuple[str, ...] = ('entropy', 'mutual_information')
    nothing = 'no prediction has a label'

    def __init__(
        self,
        num_bins: int = 15,
        ignore_index: int = 255,
        calibrator: Callable[[Predictions], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_bins = at_least('num_bins', num_bins, 1)
        self.ignore_index = ignore_index
        self.calibrator = calibrator

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            found = self.predictions(sample)
            if self.calibrator is not None and len(found.labels):
                found = found._replace(log_probs=self.calibrator(found))
            self.results.append(self.sums(found, sample))

    def predictions(self, sample: dict) -> Predictions:
        """What was predicted for an image, or for its labelled pixels."""
        there = [name for name in self.uncertainties if name in sample]
        if 'pred_score' in sample and 'gt_label' in sample:
            label = torch.as_tensor(sample['gt_label']).reshape(-1).cpu()
            if len(label) != 1:
                raise ValueError(
                    'CalibrationMetric needs one gt_label an image, got '
                    f'{label.tolist()}'
                )
            return Predictions(
                log_of(sample['pred_score'])[None].cpu(),
                label,
                {n: torch.as_tensor(sample[n]).reshape(1) for n in there},
            )
        if 'seg_logits' in sample and 'gt_sem_seg' in sample:
            scores = sample['seg_logits']['data'].float().flatten(1).T
            labels = sample['gt_sem_seg']['data'].flatten()
            labels = labels.to(scores.device).long()
            kept = labels != self.ignore_index
            log_probs, predicted = scores.log_softmax(1), None
            if scores.size(1) == 1:  # mmseg's are probabilities by then
                log_probs = log_of(torch.cat([1 - scores, scores], dim=1))
                if 'pred_sem_seg' in sample:  # by decode_head.threshold
                    predicted = sample['pred_sem_seg']['data'].flatten()
                    predicted = predicted.long().to(scores.device)[kept]
            return Predictions(
                log_probs[kept],
                labels[kept],
                {n: sample[n]['data'].flatten()[kept] for n in there},
                predicted,
                pixels=True,
            )
        raise ValueError(
            'CalibrationMetric needs pred_score and gt_label of a '
            'classifier, or seg_logits and gt_sem_seg of a '
            f'segmentor, got {sorted(sample)}; a detector has '
            'mmaib.DetectionCalibrationMetric'
        )

    def sums(self, found: Predictions, sample: dict) -> dict[str, Any]:
        """What is kept of an image."""
        log_probs, predicted = found.log_probs, found.predicted
        if predicted is None:
            predicted = log_probs.argmax(1)
        best = log_probs.gather(1, predicted[:, None])[:, 0]
        confidence, wrong = best.double().exp(), predicted != found.labels
        curves = {}
        for name, value in {'': 1 - confidence, **found.uncertainties}.items():
            if found.pixels:
                curves[name] = _rounded(value, wrong, log_probs.size(1))
            else:
                columns = value, wrong, torch.ones_like(wrong)
                curves[name] = torch.stack([x.double().cpu() for x in columns])
        return dict(
            bins=bin_sums(confidence, ~wrong, self.num_bins).cpu(),
            rules=scoring_rules(log_probs, found.labels).cpu(),
            curves=curves,
        )

    def compute_metrics(self, results: list) -> dict[str, float]:
        bins = sum(kept['bins'] for kept in results)
        if not results or not bins[0].any():
            print_log(f'{type(self).__name__}: {self.nothing}', 'current')
            return {}
        ece, mce = calibration_errors(bins)
        count = float(bins[0].sum())
        nll, brier = (sum(kept['rules'] for kept in results) / count).tolist()
        of_all = [kept['curves'] for kept in results]
        areas = {
            f'aurc_{name}'.rstrip('_'): aurc(
                *torch.cat([one[name] for one in of_all], 1)
            )
            for name in of_all[0]
            if all(name in one for one in of_all)
        }
        return dict(
            ece=ece,
            mce=mce,
            nll=nll,
            brier=brier,
            accuracy=float(bins[2].sum()) / count,
            **areas,
        )


def _rounded(uncertainty: Tensor, errors: Tensor, classes: int) -> Tensor:
    """Uncertainty, errors and counts of groups of pixels, ``(3, g)``."""
    # the fourth root: most pixels are sure, and their differences should show
    share = uncertainty.double() / math.log(max(classes, 2))
    index = (share.clamp(0, 1).pow(0.25) * LEVELS).long().clamp(max=LEVELS - 1)
    counts = torch.bincount(index, minlength=LEVELS)
    found = torch.bincount(index[errors], minlength=LEVELS)
    used = counts.nonzero()[:, 0]
    return torch.stack([used, found[used], counts[used]]).double().cpu()
