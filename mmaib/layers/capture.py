"""Attention maps of a model while it runs, recorded without touching it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmaib.contexts import in_this_thread
from mmaib.functional import resize, split_levels
from mmaib.losses import collect
from mmaib.sampling.draws import current

from .attentive_bottleneck import AttentiveBottleneck
from .map_distribution import MapDistribution


@dataclass
class CapturedMap:
    """The maps of one bottleneck on one level. Where maps are drawn all of
    it is of the mean map, as without draws.

    Attributes:
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

    def watch(bottleneck: AttentiveBottleneck) -> None:
        waiting: list[CapturedMap] = []  # for the features they modulate

        def on_attention(
            _: nn.Module, __: tuple, maps: MapDistribution
        ) -> None:
            if waiting and waiting[0].norms:
                waiting.clear()
            latest = CapturedMap(
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
                    # not through its hooks again, nor reported
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
                handles.enter_context(module.register_forward_hook(own))

    with ExitStack() as handles:
        for module in model.modules():
            if isinstance(module, AttentiveBottleneck):
                watch(module)
        yield captured


def _detached(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.detach()
