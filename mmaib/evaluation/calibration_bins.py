"""Bins of a calibration plot, and the errors that they sum to."""

from __future__ import annotations

import torch
from torch import Tensor


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
