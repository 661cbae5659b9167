"""Calibration errors, proper scoring rules and selective prediction."""

from __future__ import annotations

import torch
from torch import Tensor

# what a probability of 0 counts as, so that one sure error costs a finite NLL
SMALLEST = torch.finfo(torch.float32).tiny


def bin_sums(confidence: Tensor, correct: Tensor, bins: int) -> Tensor:
    """What a calibration plot is made of; sums over batches are those of
    all their predictions. Bins are equal in width and closed below, the last
    one above too.

    Args:
        confidence: ``(n,)``, in [0, 1].
        correct: ``(n,)``, bool.
        bins: their number.

    Returns:
        ``(3, bins)`` in double: how many predictions, the sum of their
        confidences, and how many are correct.

    Example:
        >>> bin_sums(torch.tensor([0.25, 1.0]), torch.tensor([1, 1]), 2)
        tensor([[1.0000, 1.0000],
                [0.2500, 1.0000],
                [1.0000, 1.0000]], dtype=torch.float64)
    """
    confidence = confidence.double()
    index = (confidence * bins).long().clamp(0, bins - 1)
    return grouped_sums(index, confidence, correct, bins)


def grouped_sums(
    index: Tensor, confidence: Tensor, correct: Tensor, groups: int
) -> Tensor:
    """:func:`bin_sums` of bins that are numbered already."""
    columns = torch.ones_like(confidence), confidence, correct.double()
    sums = torch.zeros(3, groups, dtype=torch.double, device=index.device)
    return sums.index_add_(1, index, torch.stack(columns).double())


def calibration_errors(sums: Tensor) -> tuple[float, float]:
    r"""Expected and maximum calibration error (Guo et al., *On Calibration of
    Modern Neural Networks*, ICML 2017), of :func:`bin_sums`.

    .. math::
        ECE = \sum_b \frac{n_b}{n} |acc_b - conf_b|, \quad
        MCE = \max_b |acc_b - conf_b|

    Example:
        >>> confidence = torch.tensor([0.25, 0.75, 0.75])
        >>> correct = torch.tensor([False, True, True])
        >>> calibration_errors(bin_sums(confidence, correct, 2))
        (0.25, 0.25)

    Raises:
        ValueError: if every bin is empty.
    """
    count, confidence, correct = sums[:, sums[0] > 0]
    if not len(count):
        raise ValueError('calibration_errors: no prediction in any bin')
    gap = (confidence - correct).abs()
    return float(gap.sum() / count.sum()), float((gap / count).max())


def aurc(
    uncertainty: Tensor, errors: Tensor, counts: Tensor | None = None
) -> float:
    """The area under the risk-coverage curve, AURC (Geifman et al., 2019),
    of predictions, or of groups of them that share an uncertainty: the mean
    error among the k surest over all k, for equally uncertain ones the mean
    over their orders.

    Args:
        uncertainty: ``(n,)``.
        errors: ``(n,)``, 0 or 1, or how many of a group.
        counts: of each group, ``(n,)``; 1 by default.

    Example:
        >>> aurc(torch.tensor([0.9, 0.1]), torch.tensor([1, 0]))
        0.25

    Raises:
        ValueError: if there is no prediction.
    """
    if not len(uncertainty):
        raise ValueError('aurc: no predictions')
    counts = torch.ones_like(errors) if counts is None else counts
    levels, index = uncertainty.unique(return_inverse=True)
    sums = torch.zeros(2, len(levels), dtype=torch.double)
    sums.index_add_(1, index, torch.stack([counts, errors]).double())
    count, error = sums
    seen, found = sums.cumsum(1)
    before, found_before = seen - count, found - error
    # the sum over j = 1..m of (e + r j / m) / (n + j) in closed form
    rate = error / count
    harmonic = torch.digamma(seen + 1) - torch.digamma(before + 1)
    area = (error + (found_before - rate * before) * harmonic).sum() / seen[-1]
    return float(area)


def scoring_rules(log_probs: Tensor, labels: Tensor) -> Tensor:
    r"""Negative log-likelihood and Brier score of ``(n, C)`` log-probabilities
    and ``(n,)`` labels, sums over predictions, ``(2,)`` in double.

    .. math::
        NLL = -\log p_y, \quad Brier = \sum_c (p_c - [c = y])^2

    Example:
        >>> probs = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
        >>> scoring_rules(log_of(probs), torch.tensor([0, 0]))
        tensor([0.6931, 0.5000], dtype=torch.float64)
    """
    log_probs = log_probs.double()
    probs = log_probs.exp()
    true = log_probs.gather(1, labels[:, None])[:, 0]
    brier = probs.square().sum(1) - 2 * true.exp() + 1
    return torch.stack([-true.sum(), brier.sum()])


def log_of(probs: Tensor) -> Tensor:
    """Their logarithm; what is 0 counts as the smallest float."""
    return probs.double().clamp(min=SMALLEST).log()


def at_temperature(log_probs: Tensor, temperature: float) -> Tensor:
    """``log softmax(log p / T)`` (Guo et al., ICML 2017) of ``(n, C)``
    log-probabilities or logits; above 1 it makes a model less sure.

    Example:
        >>> at_temperature(torch.tensor([[0.8, 0.2]]).log(), 2.0).exp()
        tensor([[0.6667, 0.3333]])
    """
    return (log_probs / temperature).log_softmax(1)


def fitted_temperature(log_probs: Tensor, labels: Tensor) -> float:
    """The temperature of the least NLL of ``(n, C)`` log-probabilities and
    ``(n,)`` labels, searched over 1 / T, in which it is convex; from 0.05 to
    100.

    Example:
        >>> sure = log_of(torch.tensor([[0.9, 0.1]] * 4))
        >>> round(fitted_temperature(sure, torch.tensor([0, 0, 0, 1])), 3)
        2.0

    Raises:
        ValueError: if there is no prediction.
    """
    if not len(labels):
        raise ValueError('fitted_temperature: no predictions')

    from scipy.optimize import minimize_scalar

    def nll(inverse: float) -> float:
        return float(
            scoring_rules(at_temperature(log_probs, 1 / inverse), labels)[0]
        )

    found = minimize_scalar(
        nll, bounds=(0.01, 20.0), method='bounded', options={'xatol': 1e-10}
    )
    return 1 / float(found.x)
