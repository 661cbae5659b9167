"""The logits of attention maps."""

from __future__ import annotations

import torch
from torch import Tensor

from .gaussian import at_least_float32


def standardized_logit(logit: Tensor, eps: float = 1e-5) -> Tensor:
    r"""Logits of each map with the mean and the variance of the logistic
    distribution, whose sigmoid is uniform.

    .. math::
        \hat l = \frac{\pi}{\sqrt 3}
        \frac{l - \bar l}{\sqrt{\mathrm{var}(l) + \varepsilon}}

    over the positions of a map. So scores use the whole of [0, 1], and no
    common mode of the features or scale of the weights can saturate them.

    Args:
        logit: ``(N, C, H, W)``.
        eps: added to the variance; a map of one position, or of equal
            logits, is 0 everywhere.

    Returns:
        The same shape, float32 or wider.

    Example:
        >>> logit = standardized_logit(100 + torch.rand(2, 1, 32, 32))
        >>> logit.shape
        torch.Size([2, 1, 32, 32])
        >>> bool(logit.mean().abs() < 1e-3)
        True
    """
    logit = at_least_float32(logit)
    variance, mean = torch.var_mean(
        logit, dim=(-2, -1), correction=0, keepdim=True
    )
    return (logit - mean) * (variance + eps).rsqrt() * (torch.pi / 3**0.5)
