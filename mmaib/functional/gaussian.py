"""Diagonal Gaussians: their scale, their draws and their divergence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .levels import join_levels

STD_FLOOR = 1e-4


def at_least_float32(x: Tensor) -> Tensor:
    """Promote half precision; leave float32 and float64 as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def softplus_std(raw: Tensor, shift: float = 5.0) -> Tensor:
    r"""Standard deviation from an unbounded statistic, Table 1 of [AIB].

    .. math:: \sigma = \mathrm{softplus}(r - s) + 10^{-4}

    The floor is mmaib's. On real images an untrained layer's statistic is
    negative enough for softplus to underflow, and :math:`\log 0` makes the
    KL infinite at the first step.

    Args:
        raw: statistic r of any shape.
        shift: s, subtracted before the softplus.

    Returns:
        Positive tensor of the same shape, float32 or wider.

    Example:
        >>> softplus_std(torch.zeros(2, 8)).shape
        torch.Size([2, 8])
        >>> softplus_std(torch.tensor(0.0))
        tensor(0.0068)
    """
    return F.softplus(at_least_float32(raw) - shift) + STD_FLOOR


def gaussian_kl(mean: Tensor, std: Tensor) -> Tensor:
    r"""KL divergence to the standard normal, Eq. 19 of [AIB], elementwise.

    .. math::
        D[N(\mu, \sigma^2) \,\|\, N(0, 1)]
        = \tfrac12 (\mu^2 + \sigma^2 - 1) - \log \sigma

    Args:
        mean: means of any shape.
        std: positive standard deviations that broadcast with ``mean``.

    Returns:
        Divergences in nats, float32 or wider. The caller reduces; Eq. 19
        takes the mean over the K latent dimensions.

    Example:
        >>> mean, std = torch.rand(2, 8), torch.full((2, 8), 0.5)
        >>> gaussian_kl(mean, std).shape
        torch.Size([2, 8])
        >>> gaussian_kl(torch.zeros(2), torch.ones(2))  # the prior itself
        tensor([0., 0.])
    """
    mean, std = at_least_float32(mean), at_least_float32(std)
    return 0.5 * (mean.square() + std.square() - 1) - std.log()


def draw_gaussian(
    mean: Tensor,
    std: Tensor,
    num_draws: int = 1,
    generator: torch.Generator | None = None,
    grids: Sequence[Sequence[int]] = (),
) -> Tensor:
    r"""Reparameterised draws :math:`\mu + \sigma \epsilon`, folded into the
    batch axis.

    Args:
        mean: ``(N, ...)``.
        std: same shape.
        num_draws: L, the draws of each element of the batch.
        generator: source of :math:`\epsilon`; None is the global one.
        grids: of the levels that lie side by side (:func:`join_levels`);
            they have the :math:`\epsilon` that they have one by one.

    Returns:
        ``(L * N, ...)``, draw by draw: row ``l * N + n`` is draw l of
        element n.

    Example:
        >>> mean, std = torch.zeros(2, 8), torch.ones(2, 8)
        >>> draw_gaussian(mean, std, num_draws=4).shape
        torch.Size([8, 8])
    """
    noise = join_levels(
        [
            torch.randn(
                (num_draws, *mean.shape[:-2], *grid),
                dtype=std.dtype,
                device=mean.device,
                generator=generator,
            )
            for grid in grids or [mean.shape[-2:]]
        ]
    )
    return (mean + std * noise).flatten(0, 1)
