"""Pictures of calibration."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from .calibration import RiskCoverage, calibration_errors


def draw_reliability(sums: Tensor, right: str) -> Figure:
    """A calibration plot: how often predictions of each confidence are
    right, and how many there are.

    Args:
        sums: of :func:`bin_sums`.
        right: name of the vertical axis, such as ``'accuracy'``.
    """
    count, confidence, correct = sums.numpy()
    bins = len(count)
    width = 1 / bins
    middle = (np.arange(bins) + 0.5) * width
    filled = count > 0
    n = np.where(filled, count, 1)
    figure = Figure((4.4, 5.2), 130, layout='constrained')
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.bar(
        middle[filled], (correct / n)[filled], width, color='C0', ec='white'
    )
    above.plot(
        (confidence / n)[filled], (correct / n)[filled], 'o', c='k', ms=3
    )
    above.plot([0, 1], [0, 1], '--', color='grey')
    ece, mce = calibration_errors(sums)
    above.set(
        xlim=(0, 1), ylim=(0, 1), ylabel=right,
        title=f'ECE {ece:.3f}, MCE {mce:.3f}',
    )  # fmt: skip
    below.bar(middle, count / count.sum(), width, color='C1', ec='white')
    below.set(xlabel='confidence', ylabel='share')
    return figure


def draw_risk_coverage(curves: Mapping[str, RiskCoverage]) -> Figure:
    """Risk against coverage, a line for each uncertainty; that of the
    confidence has the name ''."""
    figure = Figure((4.4, 3.6), 130, layout='constrained')
    axis = figure.subplots()
    for name, curve in curves.items():
        label = f'{name or "confidence"}, AURC {curve.area:.4f}'
        axis.plot(curve.coverage, curve.risk, label=label.replace('_', ' '))
    axis.set(xlabel='coverage', ylabel='risk', xlim=(0, 1))
    axis.legend()
    return figure
