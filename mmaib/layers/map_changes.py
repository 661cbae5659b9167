"""Other maps in place of a model's own: what depends on where they look."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from mmaib.checks import one_of
from mmaib.contexts import in_this_thread

from .attentive_bottleneck import AttentiveBottleneck
from .image_cells import changed_cells
from .map_distribution import MapDistribution


def mirrored(x: Tensor) -> Tensor:
    """Maps ``(N, 1, H, W)``, left and right exchanged."""
    return x.flip(-1)


def flattened(x: Tensor) -> Tensor:
    """Maps ``(N, 1, H, W)``, their mean on every position."""
    return x.mean((-2, -1), keepdim=True).expand_as(x)


def shuffled(x: Tensor) -> Tensor:
    """Maps ``(N, 1, H, W)``, their values on other positions, the same ones
    at each call."""
    height, width = x.shape[-2:]
    generator = torch.Generator().manual_seed(height * width)
    order = torch.randperm(height * width, generator=generator)
    return x.flatten(2)[..., order.to(x.device)].view_as(x)


MAP_CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    'mirror': mirrored,
    'flatten': flattened,
    'shuffle': shuffled,
}


def to_centre(x: Tensor) -> Tensor:
    """Minus the squared distance to the centre ``(1, 1, H, W)``, in half
    sides, for maps ``(N, C, H, W)``."""
    rows, columns = (
        torch.linspace(-1, 1, n, device=x.device) for n in x.shape[-2:]
    )
    return -(rows[:, None].square() + columns.square())[None, None]


# where a map's scores may be put, highest first, by the features' norm
ORDERS: dict[str, Callable[[Tensor], Tensor]] = {
    'norm': lambda norm: norm,
    'centre': to_centre,
}
OPEN = 'open'  # every score 1, so that an information gate passes all
COMPLEMENT = 'complement'  # 1 minus each score: what the map leaves behind
CHANGES = (*MAP_CHANGES, *ORDERS, COMPLEMENT)


def reordered(x: Tensor, scores: Tensor, places: Tensor) -> Tensor:
    """What a map's scores must move for its highest to stand where another
    map is highest; where that is equal, a fixed random order. So two maps let
    as much through and differ in the order of their positions alone.

    Args:
        x: what is moved, ``(N, 1, H, W)``: the scores, their std.
        scores: of the map, like x.
        places: the other map, ``(N or 1, 1, H, W)``.
    """
    count = x[0].numel()
    generator = torch.Generator().manual_seed(0)
    shuffled = torch.randperm(count, generator=generator).to(x.device)
    order = places.flatten(1)[:, shuffled].argsort(stable=True)
    targets = shuffled[order].expand(len(x), count)
    sources = scores.flatten(1).argsort()
    moved = x.flatten(1).gather(1, sources)
    return torch.empty_like(moved).scatter_(1, targets, moved).view_as(x)


def in_order_of(
    maps: MapDistribution, places: Tensor, order: Callable[[Tensor], Tensor]
) -> MapDistribution:
    """Maps whose scores stand in another order, each image's among its own
    cells.

    Args:
        maps: of N images.
        places: ``(N, 1, H, W)``.
        order: of the cells' places, the map that says it.
    """

    def change(x: Tensor) -> Tensor:
        beside = torch.cat([maps.mean, places], 1)
        copies = beside.repeat(len(x) // len(beside), 1, 1, 1)

        def moved(cells: Tensor) -> Tensor:
            x, mean, norm = cells.split(1, dim=1)
            return reordered(x, mean, order(norm)).expand_as(cells)

        return changed_cells(torch.cat([x, copies], 1), moved)[:, :1]

    return maps.changed(change)


@contextmanager
def changed_maps(model: nn.Module, change: str) -> Iterator[None]:
    """Perturb every attention map of a model: if the metric does not change,
    the model does not rely on where its maps look. Of an image in a padded
    batch the cells of the image alone change.

    Args:
        model: with :class:`AttentiveBottleneck` inside.
        change: ``'mirror'``, ``'flatten'`` or ``'shuffle'``; mean and std
            change alike, before draws and quantiser. ``'norm'`` or
            ``'centre'``: the same scores, the highest where the norm of the
            features is highest that the map is made from, or nearest to the
            image's centre. ``'complement'``: 1 minus each score. Or
            ``'open'``: every score is 1 and its std 0, so that an
            information gate passes its features, to the bit.

    Example:
        >>> bottleneck = AttentiveBottleneck(in_channels=8).eval()
        >>> with changed_maps(bottleneck, 'mirror'):
        ...     bottleneck(torch.randn(2, 8, 16, 16)).shape
        torch.Size([2, 8, 16, 16])

    Raises:
        ValueError: if the model has no map.
    """
    one_of('change', change, (*CHANGES, OPEN))

    def on_attention(
        _: nn.Module, args: tuple[Tensor], maps: MapDistribution
    ) -> MapDistribution:
        if change == OPEN:
            return maps.changed(torch.ones_like, torch.zeros_like)
        if change == COMPLEMENT:
            rest = partial(changed_cells, change=lambda x: 1 - x)
            return maps.changed(rest, lambda std: std)
        if change in ORDERS:
            norm = args[0].float().norm(dim=1, keepdim=True)
            norm = norm.to(maps.mean.dtype)
            return in_order_of(maps, norm, ORDERS[change])
        return maps.changed(partial(changed_cells, change=MAP_CHANGES[change]))

    found = [m for m in model.modules() if isinstance(m, AttentiveBottleneck)]
    if not found:
        raise ValueError(
            f'{type(model).__name__} has no AttentiveBottleneck, so there is '
            'no map to change'
        )
    with ExitStack() as handles:
        for bottleneck in found:
            hook = in_this_thread(on_attention)
            layer = bottleneck.attention
            handles.enter_context(layer.register_forward_hook(hook))
        yield
