"""Look at attention maps while a model runs, or change them, without
touching the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from mmaib.checks import one_of
from mmaib.contexts import in_this_thread
from mmaib.functional import resize, split_levels
from mmaib.losses import collect
from mmaib.sampling.draws import current

from .attentive_bottleneck import AttentiveBottleneck
from .image_cells import changed_cells
from .map_distribution import MapDistribution


@dataclass
class CapturedMap:
    """The maps of one bottleneck on one level. Where maps are drawn all of
    it is of the mean map, as without draws.

    Attributes:
        name: of the bottleneck in the model.
        level: how often the bottleneck had run before, in this capture.
        mean: mu_a, ``(N, 1, H, W)``.
        quantized: a_q of the mean; None without a quantiser.
        norms: the norm over channels of the features that it modulates,
            ``(N, 1, H, W)``; one a level that shares the map.
        bits: what the modulation lets through of each of them, sum over
            channels; none where it does not know its information.
        anchors: of the quantiser, ``(Q,)``; None without one.
        rectangles: parameters ``(N, 5)`` of a map that is a rectangle, see
            :mod:`mmaib.functional.rectangle`; None of any other.
    """

    name: str
    level: int
    mean: Tensor
    quantized: Tensor | None = None
    norms: list[Tensor] = field(default_factory=list)
    bits: list[Tensor] = field(default_factory=list)
    anchors: Tensor | None = None
    rectangles: Tensor | None = None


def of_the_mean(seen: CapturedMap, grid: tuple[int, ...]) -> Tensor:
    """The scores that features of a grid have where nothing is drawn."""
    if seen.quantized is None:
        return resize(seen.mean, grid)
    return resize(seen.quantized, grid, 'nearest')


@contextmanager
def capture_attention(model: nn.Module) -> Iterator[list[CapturedMap]]:
    """Record the maps of every :class:`AttentiveBottleneck` of a model that
    runs inside the ``with``.

    Example:
        >>> bottleneck = AttentiveBottleneck(in_channels=256).eval()
        >>> with capture_attention(bottleneck) as maps:
        ...     x_at = bottleneck(torch.randn(2, 256, 16, 16))
        >>> maps[0].mean.shape
        torch.Size([2, 1, 16, 16])
    """
    captured: list[CapturedMap] = []

    def watch(name: str, bottleneck: AttentiveBottleneck) -> None:
        levels = count()
        waiting: list[CapturedMap] = []  # for the features they modulate

        def on_attention(
            _: nn.Module, __: tuple, maps: MapDistribution
        ) -> None:
            if waiting and waiting[0].norms:
                waiting.clear()
            latest = CapturedMap(
                name,
                next(levels),
                maps.mean.detach(),
                rectangles=_detached(maps.geometry),
            )
            waiting.append(latest)
            captured.append(latest)

        def on_quantizer(layer: nn.Module, args: tuple, out: Tensor) -> None:
            # of all levels at once, or of the next one
            seen = [latest for latest in waiting if latest.quantized is None]
            parts = split_levels(out.detach(), [*args[1:], ()][0])
            for latest, quantized in zip(seen, parts):
                latest.quantized = quantized
                if current().attention is not None:
                    # not through its hooks again, nor heard
                    with torch.no_grad(), collect():
                        latest.quantized = layer.forward(latest.mean)
                latest.anchors = _detached(getattr(layer, 'anchors', None))

        def on_modulation(layer: Any, args: tuple, _: Tensor) -> None:
            # a map a level, or one for all of them
            seen = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            x, attention, level = args
            x, attention = x.detach(), attention.detach()
            seen.norms.append(x.float().norm(dim=1, keepdim=True))
            if current().attention is not None:
                attention = of_the_mean(seen, x.shape[2:])
            nats = layer.information(x, attention, level)
            if nats is not None:
                bits = nats.detach().sum(1, keepdim=True) / math.log(2)
                seen.bits.append(bits)

        hooks: list[tuple[nn.Module | None, Callable]] = [
            (bottleneck.attention, on_attention),
            (bottleneck.quantizer, on_quantizer),
            (bottleneck.modulation, on_modulation),
        ]
        for module, hook in hooks:
            if module is not None:
                own = in_this_thread(hook)
                handles.callback(module.register_forward_hook(own).remove)

    with ExitStack() as handles:
        for name, module in model.named_modules():
            if isinstance(module, AttentiveBottleneck):
                watch(name, module)
        yield captured


def _detached(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.detach()


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
            return maps.changed(lambda x: 1 - x, lambda std: std)
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
            handle = bottleneck.attention.register_forward_hook(
                in_this_thread(on_attention)
            )
            handles.callback(handle.remove)
        yield
