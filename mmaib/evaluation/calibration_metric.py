from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from mmaib.checks import at_least
from mmaib.registry import METRICS

from .calibration import (
    RiskCoverage,
    at_temperature,
    bin_sums,
    calibration_errors,
    log_of,
    risk_coverage,
    scoring_rules,
)
from .calibration_plots import draw_reliability, draw_risk_coverage

# a pixel's uncertainty is kept to so many levels
LEVELS = 512
UNCERTAINTIES = ('entropy', 'mutual_information')


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
        temperature: by which the logits are divided first, as
            ``tools/experiments/calibration.py`` fits it.
        out_dir: folder for ``reliability.png`` and ``risk_coverage.png``;
            None draws nothing.
        kwargs: of MMEngine's ``BaseMetric``.

    Raises:
        ValueError: if a field is out of range; at the first batch, if
            predictions are neither a classifier's nor a segmentor's.
    """

    default_prefix = 'calibration'

    def __init__(
        self,
        num_bins: int = 15,
        ignore_index: int = 255,
        temperature: float = 1.0,
        out_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_bins = at_least('num_bins', num_bins, 1)
        self.ignore_index = ignore_index
        self.temperature = at_least('temperature', temperature, 0.01)
        self.out_dir = out_dir

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            log_probs, labels = self.predictions(sample)
            found = self._uncertainties(sample)
            levels, predicted = None, None
            if 'seg_logits' in sample:
                levels = LEVELS
                predicted = labels_of_pixels(sample, log_probs.device)
                if predicted is not None:
                    predicted = predicted[self._labelled(sample)]
            self.results.append(
                self.sums(log_probs, labels, found, levels, predicted)
            )

    def predictions(self, sample: dict) -> tuple[Tensor, Tensor]:
        """Log-probabilities ``(n, C)``, before any temperature, and labels
        ``(n,)`` of an image, or of its pixels that have a label."""
        if 'pred_score' in sample and 'gt_label' in sample:
            label = torch.as_tensor(sample['gt_label']).reshape(-1)
            if len(label) != 1:
                raise ValueError(
                    'CalibrationMetric needs one gt_label an image, got '
                    f'{label.tolist()}'
                )
            return log_of(sample['pred_score'])[None].cpu(), label.cpu()
        if 'seg_logits' in sample and 'gt_sem_seg' in sample:
            log_probs = of_pixels(sample)
            labels = sample['gt_sem_seg']['data'].flatten()
            labels = labels.to(log_probs.device)
            kept = self._labelled(sample)
            return log_probs[kept], labels[kept].long()
        raise ValueError(
            'CalibrationMetric needs pred_score and gt_label of a '
            'classifier, or seg_logits and gt_sem_seg of a '
            f'segmentor, got {sorted(sample)}; a detector has '
            'mmaib.DetectionCalibrationMetric'
        )

    def _uncertainties(self, sample: dict) -> dict[str, Tensor]:
        there = [name for name in UNCERTAINTIES if name in sample]
        if 'seg_logits' not in sample:
            return {n: torch.as_tensor(sample[n]).reshape(1) for n in there}
        kept = self._labelled(sample)
        return {n: sample[n]['data'].flatten()[kept] for n in there}

    def _labelled(self, sample: dict) -> Tensor:
        """Which pixels have a label."""
        labels = sample['gt_sem_seg']['data'].flatten()
        kept = labels != self.ignore_index
        return kept.to(sample['seg_logits']['data'].device)

    def sums(
        self,
        log_probs: Tensor,
        labels: Tensor,
        uncertainties: Mapping[str, Tensor],
        levels: int | None = None,
        predicted: Tensor | None = None,
    ) -> dict[str, Any]:
        """What is kept of an image, or of any number of predictions.

        Args:
            log_probs: ``(n, C)``.
            labels: ``(n,)``.
            uncertainties: ``(n,)`` each, by name.
            levels: to which they are rounded; None keeps every one.
            predicted: what the model answered, ``(n,)``; None is the most
                probable.
        """
        if self.temperature != 1:
            log_probs = at_temperature(log_probs, self.temperature)
        confidence, predicted = confidence_of(log_probs, predicted)
        right = predicted == labels
        of_curves = {'': 1 - confidence, **uncertainties}
        return dict(
            bins=bin_sums(confidence, right, self.num_bins).cpu(),
            rules=scoring_rules(log_probs, labels).cpu(),
            curves={
                name: _levels(value, ~right, log_probs.size(1), levels)
                for name, value in of_curves.items()
            },
        )

    def compute_metrics(self, results: list) -> dict[str, float]:
        bins = sum(kept['bins'] for kept in results)
        count = float(bins[0].sum()) if results else 0.0
        if not count:
            print_log(
                'CalibrationMetric: no prediction has a label', 'current'
            )
            return {}
        ece, mce = calibration_errors(bins)
        nll, brier = (sum(kept['rules'] for kept in results) / count).tolist()
        accuracy = float(bins[2].sum()) / count
        curves = curves_of([kept['curves'] for kept in results])
        if self.out_dir is not None:
            draw(self.out_dir, bins, curves, 'accuracy')
        return dict(
            ece=ece,
            mce=mce,
            nll=nll,
            brier=brier,
            accuracy=accuracy,
            **areas(curves),
        )


def of_pixels(sample: Mapping[str, Any]) -> Tensor:
    """Log-probabilities ``(n, C)`` of all pixels of a segmentor's sample, two
    of one that has one channel."""
    logits = sample['seg_logits']['data'].float().flatten(1).T
    if logits.size(1) > 1:
        return logits.log_softmax(1)
    # mmseg's of one channel are probabilities by then
    return log_of(torch.cat([1 - logits, logits], dim=1))


def labels_of_pixels(
    sample: Mapping[str, Any], device: torch.device
) -> Tensor | None:
    """What a segmentor of one channel answered, ``(n,)``, by its
    ``decode_head.threshold``; None of others, which answer with the most
    probable class."""
    if len(sample['seg_logits']['data']) > 1 or 'pred_sem_seg' not in sample:
        return None
    return sample['pred_sem_seg']['data'].flatten().long().to(device)


def confidence_of(
    log_probs: Tensor, predicted: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The probability of what was predicted, ``(n,)``, by default the most
    probable class, and that."""
    if predicted is None:
        predicted = log_probs.argmax(1)
    best = log_probs.gather(1, predicted[:, None])[:, 0]
    return best.double().exp(), predicted


def _levels(
    uncertainty: Tensor, errors: Tensor, classes: int, levels: int | None
) -> Tensor:
    """Uncertainty, errors and counts of groups, ``(3, g)``; each prediction
    its own group if ``levels`` is None."""
    if levels is None:
        counts = torch.ones_like(errors)
        rows = uncertainty.double(), errors.double(), counts.double()
        return torch.stack(rows).cpu()
    # the fourth root: most pixels are sure, and their differences should show
    share = uncertainty.double() / math.log(max(classes, 2))
    index = (share.clamp(0, 1).pow(0.25) * levels).long().clamp(max=levels - 1)
    counts = torch.bincount(index, minlength=levels)
    found = torch.bincount(index[errors], minlength=levels)
    used = counts.nonzero()[:, 0]
    return torch.stack([used, found[used], counts[used]]).double().cpu()


def curves_of(
    kept: Sequence[Mapping[str, Tensor]],
) -> dict[str, RiskCoverage]:
    """The curves of the uncertainties that every image has."""
    names = [name for name in kept[0] if all(name in one for one in kept)]
    return {
        name: risk_coverage(*torch.cat([one[name] for one in kept], dim=1))
        for name in names
    }


def areas(curves: Mapping[str, RiskCoverage]) -> dict[str, float]:
    """AURC by the name of its uncertainty, '' being the confidence."""
    return {
        f'aurc_{name}'.rstrip('_'): curve.area
        for name, curve in curves.items()
    }


def draw(
    out_dir: str, bins: Tensor, curves: Mapping[str, RiskCoverage], right: str
) -> None:
    """Write both pictures; ``right`` names the share of the right ones."""
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    draw_reliability(bins, right).savefig(folder / 'reliability.png')
    draw_risk_coverage(curves).savefig(folder / 'risk_coverage.png')
