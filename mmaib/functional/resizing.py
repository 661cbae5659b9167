"""Maps on other grids."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def resize(x: Tensor, size: tuple[int, ...], mode: str = 'bilinear') -> Tensor:
    """``F.interpolate`` without ``align_corners``; x itself if it fits.

    Args:
        x: ``(N, C, H, W)``.
        size: of the grid.
        mode: ``'bilinear'``, or ``'nearest'``, which is torch's
            ``'nearest-exact'``: the cells lie where bilinear has them, while
            torch's ``'nearest'`` shifts them by up to half a cell.

    Example:
        >>> resize(torch.rand(2, 1, 16, 16), (4, 8)).shape
        torch.Size([2, 1, 4, 8])
    """
    if tuple(x.shape[2:]) == tuple(size):
        return x
    if mode == 'nearest':
        return F.interpolate(x, size=size, mode='nearest-exact')
    return F.interpolate(x, size=size, mode=mode, align_corners=False)
