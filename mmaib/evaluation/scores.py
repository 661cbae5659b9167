"""Scores of a map on an image, against a mask of what it should find."""

from __future__ import annotations

import cv2
from scipy.stats import rankdata
from torch import Tensor


def roc_auc(attention: Tensor, mask: Tensor) -> float:
    """Probability that a position inside the mask scores higher than one
    outside, ties counting half (area under the ROC curve).

    Args:
        attention: any shape.
        mask: the same shape, bool, with both values in it.

    Raises:
        ValueError: if the mask has one value alone.

    Example:
        >>> roc_auc(torch.tensor([0.1, 0.4, 0.4]),
        ...         torch.tensor([False, False, True]))
        0.75
    """
    inside = mask.flatten().cpu().numpy()
    positive = int(inside.sum())
    negative = inside.size - positive
    if not (positive and negative):
        raise ValueError(
            'roc_auc needs a mask with positions inside and outside, got '
            f'{positive} of {inside.size} inside'
        )
    ranks = rankdata(attention.flatten().cpu().numpy())
    excess = ranks[inside].sum() - positive * (positive + 1) / 2
    return float(excess / (positive * negative))


def energy_inside(attention: Tensor, mask: Tensor) -> float:
    """Share of the map's sum inside the mask; a uniform map has the mask's
    share of the image. Both of any one shape, the map not negative.

    Example:
        >>> energy_inside(torch.tensor([1.0, 3.0]),
        ...               torch.tensor([False, True]))
        0.75
    """
    total = attention.double().sum()
    if total == 0:
        return float(mask.double().mean())
    return float(attention.double()[mask].sum() / total)


def pointing_hit(
    attention: Tensor, mask: Tensor, tolerance: int = 15
) -> float:
    """Pointing game: whether the highest position of a map ``(H, W)`` lies
    inside the mask or no further from it than the tolerance, in pixels; the
    share of hits, if several positions are the highest.

    Example:
        >>> attention = torch.tensor([[0.1, 0.2, 0.9, 0.1]])
        >>> mask = torch.tensor([[True, False, False, False]])
        >>> pointing_hit(attention, mask, tolerance=1)
        0.0
        >>> pointing_hit(attention, mask, tolerance=2)
        1.0
    """
    if not mask.any():
        return 0.0
    outside = (~mask).byte().cpu().numpy()
    distance = cv2.distanceTransform(
        outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE
    )
    peaks = (attention == attention.max()).cpu().numpy()
    return float((distance[peaks] <= tolerance).mean())


def catching_rate(first: Tensor, second: Tensor) -> float:
    """How much two maps of values -1 and 1 agree, Eq. 11 of [RECT]: the mean
    over positions of their product, 1 where they are the same, -1 where they
    are opposite.

    Example:
        >>> first, second = torch.tensor([[1, 1, -1, -1], [1, -1, -1, -1]])
        >>> catching_rate(first, second)
        0.5
    """
    return float((first.double() * second.double()).mean())


def missing_rate(first: Tensor, second: Tensor) -> float:
    """How much two maps differ, Eq. 12 of [RECT], in [0, 1]; of values -1
    and 1 the share of positions where they do.

    Example:
        >>> first, second = torch.tensor([[1, 1, -1, -1], [1, -1, -1, -1]])
        >>> missing_rate(first, second)
        0.25
    """
    return (1 - catching_rate(first, second)) / 2


def iou(first: Tensor, second: Tensor) -> float:
    """The fitting rate of two maps of values -1 and 1, Eq. 21 of [RECT], as
    the intersection of where they are 1 over the union (Proposition 1); 1 if
    both are -1 everywhere.

    Example:
        >>> first, second = torch.tensor([[1, 1, -1, -1], [1, -1, -1, -1]])
        >>> iou(first, second)
        0.5
    """
    union = int(((first > 0) | (second > 0)).sum())
    both = int(((first > 0) & (second > 0)).sum())
    return both / union if union else 1.0


def contrast(attention: Tensor, weights: Tensor | None = None) -> float:
    """Standard deviation of the map over its positions, as
    :func:`weighted_mean` counts them.

    Example:
        >>> contrast(torch.tensor([0.0, 1.0]))
        0.5
    """
    offset = attention.double() - weighted_mean(attention, weights)
    return float(weighted_mean(offset.square(), weights).sqrt())


def weighted_mean(x: Tensor, weights: Tensor | None) -> Tensor:
    """The mean of all of ``(..., H, W)``; ``weights`` ``(H, W)``: how far each
    position counts, None for all alike."""
    if weights is None:
        return x.double().mean()
    shares = weights.double().expand_as(x)
    return (x.double() * shares).sum() / shares.sum()
