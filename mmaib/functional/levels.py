"""Maps on other grids, and those of several levels as one tensor, for what
is elementwise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def join_levels(levels: Sequence[Tensor]) -> Tensor:
    """Maps ``(..., H, W)`` of several grids side by side, ``(..., 1, T)``; a
    single level as it is.

    Example:
        >>> fine, coarse = torch.rand(2, 1, 8, 6), torch.rand(2, 1, 4, 3)
        >>> joined = join_levels([fine, coarse])
        >>> joined.shape
        torch.Size([2, 1, 1, 60])
        >>> split_levels(joined, [(8, 6), (4, 3)])[1].equal(coarse)
        True
    """
    if len(levels) == 1:
        return levels[0]
    return torch.cat([x.flatten(-2) for x in levels], -1).unsqueeze(-2)


def split_levels(
    joined: Tensor, grids: Sequence[Sequence[int]]
) -> list[Tensor]:
    """Views of each level in what :func:`join_levels` gives.

    Args:
        joined: ``(..., 1, T)``.
        grids: height and width of each level; a single level needs none.

    Example:
        >>> two = split_levels(torch.rand(2, 1, 5), [(2, 2), (1, 1)])
        >>> [tuple(x.shape) for x in two]
        [(2, 2, 2), (2, 1, 1)]
    """
    if len(grids) < 2:
        return [joined]
    parts = joined.squeeze(-2).split([h * w for h, w in grids], -1)
    return [x.unflatten(-1, grid) for x, grid in zip(parts, grids)]


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
