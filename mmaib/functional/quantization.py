"""Quantisation of attention scores to learned anchors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .gaussian import at_least_float32


def _boundaries(anchors: Tensor) -> Tensor:
    """Largest number nearer to each sorted anchor than to the next one.

    The midpoint, rounded *down*: so ``x <= boundary`` is equivalent to the
    exact comparison of distances, and ties go to the lower anchor and never
    to rounding. Which way a sum was rounded follows exactly from its error
    (Knuth's TwoSum), without a wider type, which not every device has.
    """
    halves = anchors / 2
    lower, upper = halves[:-1], halves[1:]
    middle = lower + upper
    rest = middle - lower
    error = (lower - (middle - rest)) + (upper - rest)
    below = torch.nextafter(middle, anchors[:-1])
    return torch.where(error < 0, below, middle)


def _bisect(x: Tensor, boundaries: Tensor) -> Tensor:
    """How many of the sorted boundaries lie below each score.

    `torch.bucketize`; on a CPU five times as fast: its search branches on
    every score, these log2(Q) steps are vectorised. A GPU would start a
    kernel for each of them.

    Args:
        x: flat scores.
        boundaries: sorted vector.
    """
    if x.device.type != 'cpu':
        return torch.bucketize(x, boundaries, out_int32=True)
    steps = len(boundaries).bit_length()
    padding = 2**steps - 1 - len(boundaries)
    boundaries = F.pad(boundaries, (0, padding), value=float('inf'))
    below = torch.zeros_like(x, dtype=torch.int32)
    for step in (2**k for k in reversed(range(steps))):
        probed = boundaries[step - 1 :].index_select(0, below)
        below.add_(x > probed, alpha=step)
    return below


def _nearest(x: Tensor, anchors: Tensor) -> Tensor:
    """Index of the nearest anchor of each of the flat scores."""
    if torch.onnx.is_in_onnx_export():
        # ONNX has no stable sort, no searchsorted and no nextafter.
        ordered, order = torch.sort(anchors)
        nearest = (x[:, None] - ordered).abs().argmin(1)
        return order.index_select(0, nearest)
    ordered, order = torch.sort(anchors, stable=True)
    # Equal anchors answer with the first of them.
    order = order[torch.searchsorted(ordered, ordered)]
    return order.index_select(0, _bisect(x, _boundaries(ordered)))


def nearest_anchor(x: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    r"""Replace each score by its nearest anchor, Eq. 15 of [AIB].

    .. math:: a_q = v_k, \quad k = \arg\min_i |a - v_i|

    A binary search over the Q sorted anchors: O(log Q) time a score, and no
    table of distances.

    Args:
        x: scores of any shape, on no particular grid.
        anchors: ``(Q,)``, in any order, duplicates allowed.

    Returns:
        ``(values, indices)``, both of ``x``'s shape. ``values`` is
        ``anchors[indices]`` and passes gradient to the anchors only. Of two
        anchors at equal distance the lower value wins, of two equal anchors
        the first.

    Example:
        >>> scores, anchors = torch.rand(2, 1, 32, 32), torch.linspace(0, 1, 5)
        >>> values, indices = nearest_anchor(scores, anchors)
        >>> values.shape, indices.shape
        (torch.Size([2, 1, 32, 32]), torch.Size([2, 1, 32, 32]))
        >>> nearest_anchor(torch.tensor([0.1, 0.2, 0.9]), anchors)
        (tensor([0.0000, 0.2500, 1.0000]), tensor([0, 1, 4]))

    Raises:
        ValueError: if ``anchors`` is not a non-empty vector.
    """
    if anchors.dim() != 1 or anchors.numel() == 0:
        raise ValueError(
            'anchors must be a vector of at least one value, got shape '
            f'{tuple(anchors.shape)}'
        )
    anchors = at_least_float32(anchors)
    with torch.no_grad():
        scores = x.detach().to(anchors.dtype).flatten()
        indices = _nearest(scores, anchors.detach())
    # index_select: advanced indexing is several times slower, both ways.
    values = anchors.index_select(0, indices)
    return values.view(x.shape), indices.view(x.shape)


def straight_through(x: Tensor, quantized: Tensor) -> Tensor:
    """Forward ``quantized``, backward the identity to ``x`` (Section 3.2.1
    of [AIB]).

    The value is ``quantized`` to the bit. A NaN in ``x`` stays a NaN instead
    of being replaced by an anchor.

    Args:
        x: continuous scores.
        quantized: their quantised values, same shape.

    Example:
        >>> x = torch.rand(2, 1, 32, 32, requires_grad=True)
        >>> a = straight_through(x, x.round())
        >>> a.shape, torch.equal(a, x.round())
        (torch.Size([2, 1, 32, 32]), True)
        >>> torch.autograd.grad(a.sum(), x)[0].unique()
        tensor([1.])
    """
    return quantized.detach() + (x - x.detach())
