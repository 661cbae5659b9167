from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmaib.checks import at_least
from mmaib.functional.gaussian import at_least_float32
from mmaib.registry import MODELS

from .map_distribution import MapDistribution


@MODELS.register_module()
class PositionWiseAttention(BaseModule):
    r"""The map that [RECT] compares a rectangle with: each position's score
    by convolutions, Appendix G.

    A 1x1 convolution, two 3x3 with dilation 4, ReLU after each, and one
    more to one channel, with a sigmoid.

    Its scores have no std: where maps are drawn, all are alike.

    Args:
        in_channels: channels C of the features.
        channels: of the layers.
        init_cfg: see MMEngine.

    Shape:
        x ``(N, C, H, W)`` -> :class:`MapDistribution` with the mean ``(N, 1,
        H, W)``, float32 or wider, and no std.

    Example:
        >>> attention = PositionWiseAttention(in_channels=320)
        >>> attention(torch.rand(2, 320, 10, 10)).mean.shape
        torch.Size([2, 1, 10, 10])

    Raises:
        ValueError: if a field is out of range.
    """

    stochastic = False

    def __init__(
        self,
        in_channels: int,
        channels: int = 80,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        at_least('in_channels', in_channels, 1)
        at_least('channels', channels, 1)

        def wide(out_channels: int) -> nn.Conv2d:
            return nn.Conv2d(channels, out_channels, 3, padding=4, dilation=4)

        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1),
            nn.ReLU(),
            wide(channels),
            nn.ReLU(),
            wide(channels),
            nn.ReLU(),
            wide(1),
        )

    def forward(self, x: Tensor) -> MapDistribution:
        return MapDistribution(at_least_float32(self.layers(x)).sigmoid())
