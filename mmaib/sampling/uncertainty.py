"""Predictive mean and uncertainty, accumulated over samples: of L draws at
the size of an image only one is ever held."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from mmaib.functional.gaussian import at_least_float32

from .draws import current


class Predictive(NamedTuple):
    """What several samples of logits give together, ``dim`` being C.

    Attributes:
        logits: whose softmax is the mean probability of each class; of one
            channel, whose sigmoid it is. ``(N, C, ...)``.
        entropy: of the mean probabilities, in nats, ``(N, ...)``.
        mutual_information: what the draws disagree on, in nats, ``(N,
            ...)``: the entropy less the mean entropy of a draw (BALD,
            Houlsby et al., 2011).
    """

    logits: Tensor
    entropy: Tensor
    mutual_information: Tensor


def predictive(draws: Iterable[Tensor]) -> Predictive:
    r"""Entropy and mutual information over draws, as running sums: each draw
    is let go before the next is asked for.

    .. math::
        H[\bar p], \quad H[\bar p] - \frac{1}{L} \sum_l H[p_l], \quad
        \bar p = \frac{1}{L} \sum_l p_l

    Args:
        draws: logits ``(N, C, ...)`` of each draw; of one channel, of yes
            against no.

    Raises:
        ValueError: if there is none.
    """
    total = entropies = None
    count = 0
    for logits in draws:
        x = at_least_float32(logits)
        one_channel = x.size(1) == 1
        if one_channel:
            x = torch.cat([torch.zeros_like(x), x], dim=1)
        probs = x.softmax(1)
        entropy = torch.special.entr(probs).sum(1)
        if total is None or entropies is None:
            total, entropies = probs, entropy
        else:
            total = total + probs
            entropies = entropies + entropy
        count += 1
        del logits, x, probs, entropy
    if total is None or entropies is None:
        raise ValueError('predictive: no draws')
    mean = total / count
    whole = torch.special.entr(mean).sum(1)
    mutual = (whole - entropies / count).clamp(min=0)
    log_probs = mean.clamp(min=torch.finfo(mean.dtype).tiny).log()
    if one_channel:
        log_probs = log_probs[:, 1:] - log_probs[:, :1]
    return Predictive(log_probs, whole, mutual)


def combine(
    draws: Iterable[Tensor], mean: Callable[[], Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """A prediction of drawn logits as ``test_draws`` asks for it, and how
    uncertain it is. Nothing is held of a draw when the next is asked for.

    Args:
        draws: logits ``(N, C, ...)`` of each draw, taken if they are needed.
        mean: gives the mean of their logits, called if it is needed.

    Returns:
        logits ``(N, C, ...)`` and, with ``uncertainty``, ``entropy`` and
        ``mutual_information`` of the mean probabilities, in nats, ``(N,
        ...)``.
    """
    asked = current()
    if asked.mean_logits:
        return mean(), {}
    found = predictive(draws)
    logits = found.logits if asked.average == 'probabilities' else mean()
    if not asked.uncertainty:
        return logits, {}
    return logits, {
        'entropy': found.entropy,
        'mutual_information': found.mutual_information,
    }
