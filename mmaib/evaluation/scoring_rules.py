"""Proper scoring rules, and selective prediction."""

from __future__ import annotations

import torch
from torch import Tensor

# what a probability of 0 counts as, so that one sure error costs a finite NLL
SMALLEST = torch.finfo(torch.float32).tiny


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
