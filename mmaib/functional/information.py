"""A gate that replaces what attention removes by noise, and its price."""

from __future__ import annotations

import torch
from torch import Tensor

from .gaussian import at_least_float32

# so that log(1 - a) is finite: no more than 6.9 nats above the rest
MAX_OPEN = 1 - 1e-3


def information_gate(x: Tensor, openness: Tensor, noise: Tensor) -> Tensor:
    r"""Let through a part of each feature, and noise in place of the rest
    (Schulz et al., *Restricting the Flow*, ICLR 2020, Eq. 4).

    .. math:: x_{at} = a x + (1 - a) \epsilon

    Where a = 0 nothing of x is left, to the bit; where a = 1, nothing else.

    Args:
        x: features ``(N, C, H, W)``.
        openness: a, in [0, 1], that broadcasts with x.
        noise: epsilon, that broadcasts with x.

    Returns:
        The shape that the three broadcast to, in x's dtype.

    Example:
        >>> x, noise = torch.randn(2, 2, 256, 32, 32)
        >>> openness = torch.rand(2, 1, 32, 32)
        >>> information_gate(x, openness, noise).shape
        torch.Size([2, 256, 32, 32])
    """
    # exact at both ends
    return torch.lerp(noise.to(x.dtype), x, openness.to(x.dtype))


def gate_information(
    x: Tensor, openness: Tensor, mean: Tensor, std: Tensor
) -> Tensor:
    r"""What a gate lets through, an upper bound (Schulz et al., Eq. 5).

    .. math::
        D[N(a x + (1 - a) \mu, (1 - a)^2 \sigma^2) \,\|\, N(\mu, \sigma^2)]
        = \tfrac12 \left( (1 - a)^2 + a^2 u^2 - 1 \right) - \log (1 - a),
        \quad u = (x - \mu) / \sigma

    Args:
        x: features ``(N, C, H, W)``.
        openness: a, in [0, 1], that broadcasts with x; values above 0.999
            count as that.
        mean: of the features, that broadcasts with them.
        std: the same of their standard deviation, positive.

    Returns:
        Information in nats, of x's shape, float32 or wider.

    Example:
        >>> x, openness = torch.randn(2, 256, 32, 32), torch.rand(2, 1, 32, 32)
        >>> mean, std = torch.zeros(256, 1, 1), torch.ones(256, 1, 1)
        >>> gate_information(x, openness, mean, std).shape
        torch.Size([2, 256, 32, 32])
    """
    u = (at_least_float32(x) - mean) / std
    return information_of_power(u.square(), openness)


def information_of_power(power: Tensor, openness: Tensor) -> Tensor:
    """:func:`gate_information` by :math:`u^2`, or, of a position, the mean
    over channels by that of :math:`u^2`.

    Args:
        power: float32 or wider.
        openness: a, that broadcasts with it.

    Example:
        >>> information_of_power(torch.tensor(4.0), torch.tensor(0.5))
        tensor(0.8181)
    """
    a = at_least_float32(openness).clamp(max=MAX_OPEN)
    closed = 1 - a
    return 0.5 * (closed.square() + a.square() * power - 1) - closed.log()
