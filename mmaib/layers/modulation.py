from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor


class Modulation(BaseModule):
    """Base of what an :class:`AttentiveBottleneck` does to features with a
    map. A subclass has ``forward(x, attention, level)``, and ``fade(factor)``
    if :class:`mmaib.BetaWarmupHook` shall let it in from 0 to 1.

    It is built with ``in_channels``, a list with one number a level.

    Attributes:
        out_channels: of what it gives.
        stochastic: whether two passes of one map differ where maps are drawn.

    Shape:
        x ``(N, C, H, W)`` and map ``(L * N, 1, H, W)``, draw by draw ->
        ``(L * N, out_channels, H, W)``.

    Example:
        >>> class Threshold(Modulation):
        ...     def __init__(self, in_channels, init_cfg=None):
        ...         super().__init__(init_cfg)
        ...         self.out_channels = in_channels[0]
        ...     def forward(self, x, attention, level):
        ...         x = x.repeat(len(attention) // len(x), 1, 1, 1)
        ...         return x * (attention > 0.5)
        >>> x, maps = torch.rand(2, 8, 4, 4), torch.rand(6, 1, 4, 4)
        >>> Threshold([8])(x, maps, 0).shape
        torch.Size([6, 8, 4, 4])
    """

    out_channels: int
    stochastic: bool = False

    def map_inputs(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """What the maps of features ``(N, C, H, W)`` are made of, a level
        each: the features themselves."""
        return [*levels]

    def information(
        self, x: Tensor, attention: Tensor, level: int = 0
    ) -> Tensor | None:
        """What of x passes a map ``(N, 1, H, W)``, in nats, ``(N, C, H,
        W)``; None if it is not known."""
        return None

    def report(
        self, inputs: Sequence[Tensor], attention: Sequence[Tensor]
    ) -> None:
        """Report losses of all levels at once, after each of them has been
        modulated: nothing.

        Args:
            inputs: what :meth:`map_inputs` gave, a level each.
            attention: the maps that they were modulated with.
        """
