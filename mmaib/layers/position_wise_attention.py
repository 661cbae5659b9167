from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmaib.checks import at_least
from mmaib.functional.gaussian import at_least_float32
from mmaib.registry import MODELS
from mmaib.sampling import draws


@MODELS.register_module()
class PositionWiseAttention(BaseModule):
    r"""The map that [RECT] compares a rectangle with: each position's score
    by convolutions, Appendix G.

    A 1x1 convolution, two 3x3 with dilation 4, ReLU behind each, and one
    more to one channel, with a sigmoid.

    The std that it gives beside the map is None: it has no noise, and where
    maps are drawn a row for each draw, all alike.

    Args:
        in_channels: channels C of the features.
        channels: of the layers.
        dilation: of the 3x3 convolutions.
        init_cfg: see MMEngine.

    Shape:
        x ``(N, C, H, W)`` -> map ``(N, 1, H, W)`` and None, float32 or
        wider.

    Example:
        >>> attention = PositionWiseAttention(in_channels=320)
        >>> attention(torch.rand(2, 320, 10, 10))[0].shape
        torch.Size([2, 1, 10, 10])

    Raises:
        ValueError: if a field is out of range.
    """

    gives_std = False

    def __init__(
        self,
        in_channels: int,
        channels: int = 80,
        dilation: int = 4,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        at_least('in_channels', in_channels, 1)
        at_least('channels', channels, 1)
        at_least('dilation', dilation, 1)

        def wide(out_channels: int) -> nn.Conv2d:
            return nn.Conv2d(
                channels, out_channels, 3, padding=dilation, dilation=dilation
            )

        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1),
            nn.ReLU(),
            wide(channels),
            nn.ReLU(),
            wide(channels),
            nn.ReLU(),
            wide(1),
        )

    def forward(
        self, x: Tensor, with_std: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        mean = at_least_float32(self.layers(x)).sigmoid()
        return draws.repeat_maps(mean) if with_std else mean, None
