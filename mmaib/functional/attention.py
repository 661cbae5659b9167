"""The logits of attention maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .gaussian import at_least_float32


def conv_to_one(
    x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """``F.conv2d`` to one channel that keeps the grid, fast on a CPU.

    A CPU's convolution is made for many output channels. There a product
    first turns C channels into the k * k taps of the filter, and what is
    left is to add up k * k shifted maps. Elsewhere, in ONNX, where every
    runtime knows Conv, and where ``torch.jit`` traces, as MMEngine's FLOP
    counter does, it is ``F.conv2d``.

    Args:
        x: ``(N, C, H, W)``.
        weight: ``(1, C, k, k)``, k odd.
        bias: ``(1,)`` or None.

    Returns:
        ``(N, 1, H, W)``, within rounding of ``F.conv2d``.

    Example:
        >>> x, weight = torch.ones(2, 8, 5, 4), torch.ones(1, 8, 3, 3)
        >>> conv_to_one(x, weight).shape
        torch.Size([2, 1, 5, 4])
    """
    size = weight.size(-1)
    followed = torch.onnx.is_in_onnx_export() or torch.jit.is_tracing()
    if x.device.type != 'cpu' or followed:
        return F.conv2d(x, weight, bias, padding=size // 2)
    # fold adds at the place where a tap lies, conv2d reads there: flip
    taps = weight[0].flip(1, 2).flatten(1).t()
    # bmm: matmul would copy x to fold the batch, which costs more
    maps = torch.bmm(taps.expand(x.size(0), -1, -1), x.flatten(2))
    out = F.fold(at_least_float32(maps), x.shape[2:], size, padding=size // 2)
    out = out if bias is None else out + bias.view(1, 1, 1, 1)
    return out.to(maps.dtype)


# of the logistic distribution, whose sigmoid is uniform
LOGISTIC_STD = torch.pi / 3**0.5


def standardized(
    logit: Tensor, eps: float = 1e-5, cells: Tensor | None = None
) -> Tensor:
    r"""Logits of each map with mean 0 and variance 1 over its positions.

    .. math::
        \hat l = \frac{l - \bar l}{\sqrt{\mathrm{var}(l) + \varepsilon}}

    Times the std of the logistic distribution, :math:`\pi / \sqrt 3`, their
    sigmoid uses the whole of [0, 1], and no common mode of the features or
    scale of the weights can saturate it.

    Args:
        logit: ``(N, C, H, W)``.
        eps: added to the variance; a map of one position, or of equal
            logits, is 0 everywhere.
        cells: how far each position counts, ``(N, 1, H, W)``; None for all
            alike.

    Returns:
        The same shape, float32 or wider.

    Example:
        >>> logit = standardized(100 + torch.rand(2, 1, 32, 32))
        >>> logit.shape
        torch.Size([2, 1, 32, 32])
        >>> bool(logit.mean().abs() < 1e-3)
        True
    """
    logit = at_least_float32(logit)
    if cells is None:
        return F.layer_norm(logit, logit.shape[-2:], eps=eps)
    share = cells / cells.sum((-2, -1), keepdim=True)
    offset = logit - (logit * share).sum((-2, -1), keepdim=True)
    variance = (offset.square() * share).sum((-2, -1), keepdim=True)
    return offset * (variance + eps).rsqrt()
