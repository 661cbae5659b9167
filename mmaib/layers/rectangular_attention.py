from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import constant_init
from torch import Tensor, nn

from mmaib.checks import at_least, one_of
from mmaib.functional import rectangle_window
from mmaib.functional.gaussian import at_least_float32
from mmaib.functional.rectangle import positions
from mmaib.losses import collecting, report_rectangles
from mmaib.registry import MODELS

from .map_distribution import MapDistribution
from .own_initialization import OwnInitialization

# half extents of the first window, in sides of the map
FIRST_EXTENT = 0.35
# a rectangle of a few hundredths lies between the positions of a coarse grid
EXTENT_FLOOR = 0.03
# powers of a position along rows and columns, by which features are weighed
# before the mean over positions
POOLINGS = {
    'mean': ((0, 0),),
    'moments': ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)),
}


@MODELS.register_module()
class RectangularAttention(OwnInitialization):
    r"""A map that is a soft rotated rectangle, [RECT].

    ::

        x -> conv, pool -> conv, pool -> conv -> pooling -> linear
                                                               |
        map (N, 1, H, W) <- window <- mu, sigma, alpha <- first window +

    Appendix G of [RECT], 3x3 convolutions with ReLU and max-pooling of 2.
    What it leaves open is mmaib's: :math:`\mu = \mathrm{sigmoid}`,
    :math:`\sigma = \mathrm{softplus} + 0.03` and :math:`\alpha` linear, of
    an output whose weights start at zero, so that the first window is around
    the centre, with half extents of 0.35, whatever the features' scale.

    Its scores have no std: where maps are drawn, all are alike.

    Args:
        in_channels: channels C of the features.
        channels: of the convolutions.
        sharpness: s of Eq. 1.
        pooling: ``'mean'``, global average pooling as in [RECT], which keeps
            of a feature's place what padding shows; or ``'moments'``,
            the means of features times 1, y, x, y^2, xy and x^2.
        init_cfg: see MMEngine.

    Shape:
        x ``(N, C, H, W)`` -> :class:`MapDistribution` with the mean ``(N, 1,
        H, W)``, float32 or wider, and the rectangles ``(N, 5)``.

    Example:
        >>> attention = RectangularAttention(in_channels=320)
        >>> x = torch.rand(2, 320, 10, 10)
        >>> attention(x).mean.shape, attention.rectangles(x).shape
        (torch.Size([2, 1, 10, 10]), torch.Size([2, 5]))

    Raises:
        ValueError: if a field is out of range.
    """

    stochastic = False
    first: Tensor

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int] = (64, 128, 256),
        sharpness: float = 6.0,
        pooling: str = 'mean',
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        at_least('in_channels', in_channels, 1)
        if isinstance(channels, int) or len(channels) < 1:
            raise ValueError(
                'channels must list those of one convolution or more, such '
                f'as (64, 128, 256), got {channels!r}'
            )
        for width in channels:
            at_least('channels', width, 1)
        self.sharpness = at_least('sharpness', sharpness, 0.1)
        self.powers = POOLINGS[one_of('pooling', pooling, POOLINGS)]
        self.convs = nn.ModuleList()
        for width in channels:
            self.convs.append(nn.Conv2d(in_channels, width, 3, padding=1))
            in_channels = width
        self.mean = nn.Linear(in_channels * len(self.powers), 5)
        # added to the outputs, of which zeros are this window
        extent = math.log(math.expm1(FIRST_EXTENT - EXTENT_FLOOR))
        first = torch.tensor([0.0, 0.0, extent, extent, 0.0])
        self.register_buffer('first', first, persistent=False)
        self.start()

    def start(self) -> None:
        constant_init(self.mean, 0)

    def forward(self, x: Tensor) -> MapDistribution:
        size = (x.size(2), x.size(3))
        params = self.rectangles(x)
        if collecting(self.training):
            report_rectangles(params, size)
        window = rectangle_window(params, size, self.sharpness)
        return MapDistribution(window.unsqueeze(1), geometry=params)

    def rectangles(self, x: Tensor) -> Tensor:
        """The parameters, ``(N, 5)``, of features ``(N, C, H, W)``; see
        :mod:`mmaib.functional.rectangle`."""
        raw = at_least_float32(self.mean(self._pooled(x))) + self.first
        centre, extents, angle = raw.split((2, 2, 1), -1)
        return torch.cat(
            [centre.sigmoid(), F.softplus(extents) + EXTENT_FLOOR, angle], -1
        )

    def _pooled(self, x: Tensor) -> Tensor:
        for number, conv in enumerate(self.convs):
            x = F.relu(conv(x))
            if number < len(self.convs) - 1:
                # ceil: a row or column that is alone stays
                x = F.max_pool2d(x, 2, ceil_mode=True)
        if len(self.powers) == 1:
            return x.mean((2, 3))
        rows = 2 * positions(x.size(2), x)[:, None] - 1
        columns = 2 * positions(x.size(3), x) - 1
        weighed = [x * (rows**p * columns**q) for p, q in self.powers]
        return torch.cat([w.mean((2, 3)) for w in weighed], 1)
