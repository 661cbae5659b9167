"""The adversarial form of the KL, for latents that have no density."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .gaussian import at_least_float32


def _mean(values: Tensor) -> Tensor:
    """Not mean(): the mean over no rows (no RoIs) is NaN."""
    return values.sum() / max(values.numel(), 1)


def critic_loss(prior_logits: Tensor, latent_logits: Tensor) -> Tensor:
    r"""What the critic descends: the negative of Eq. 20 of [AIB], which is
    the binary cross entropy of distinguishing the prior's draws from latents.

    .. math::
        -\mathbb{E}_{z \sim r} \log D(z)
        - \mathbb{E}_{x} \log (1 - D(\mathrm{Enc}(x, a)))

    with :math:`D` the sigmoid of the logits. At equilibrium it is
    :math:`2 \log 2`.

    Args:
        prior_logits: of draws of the prior, any shape.
        latent_logits: of latents, any shape.

    Returns:
        Scalar in nats, float32 or wider; 0 for no rows.

    Example:
        >>> critic_loss(torch.zeros(8, 1), torch.zeros(8, 1))  # at chance
        tensor(1.3863)
    """
    prior = F.softplus(-at_least_float32(prior_logits))
    latent = F.softplus(at_least_float32(latent_logits))
    return _mean(prior) + _mean(latent)


def adversarial_kl(latent_logits: Tensor, saturating: bool = True) -> Tensor:
    r"""What the encoder descends: its part of Eq. 20 of [AIB].

    .. math:: \mathbb{E}_{x} \log (1 - D(\mathrm{Enc}(x, a)))

    Its minimum over encoders stands in for the KL's, but its value is no
    KL: it is negative, and :math:`-\log 2` at equilibrium. Where the critic
    is certain its gradient vanishes.

    Args:
        latent_logits: of latents, any shape.
        saturating: Eq. 20 as it stands. If False, the usual form of the
            same game with a gradient everywhere,
            :math:`-\mathbb{E} \log D(\mathrm{Enc}(x, a))`.

    Returns:
        Scalar in nats, float32 or wider; 0 for no rows.

    Example:
        >>> adversarial_kl(torch.zeros(8, 1))  # the critic at chance
        tensor(-0.6931)
    """
    logits = at_least_float32(latent_logits)
    if saturating:
        return -_mean(F.softplus(logits))
    return _mean(F.softplus(-logits))
