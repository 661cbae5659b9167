from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from mmengine.model import constant_init
from torch import Tensor, nn

from mmaib.checks import at_least, one_of
from mmaib.functional import (
    ellipse_window,
    gaussian_kl,
    rectangle_window,
    softplus_std,
    unite_windows,
)
from mmaib.functional.gaussian import at_least_float32
from mmaib.functional.rectangle import positions
from mmaib.losses import (
    Reporter,
    collecting,
    report_loss,
    report_rectangles,
    report_scalar,
)
from mmaib.registry import MODELS
from mmaib.sampling import draws

from .map_distribution import MapDistribution
from .starting import Starting

# a rectangle of a few hundredths lies between the positions of a coarse grid
EXTENT_FLOOR = 0.03
WINDOWS: dict[str, Callable[..., Tensor]] = {
    'rectangle': rectangle_window,
    'ellipse': ellipse_window,
}
# powers of a position along rows and columns, by which features are weighed
# before the mean over positions
POOLINGS = {
    'mean': ((0, 0),),
    'moments': ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)),
}


@MODELS.register_module()
class RectangularAttention(Reporter, Starting):
    r"""A map that is a soft rotated rectangle, [RECT].

    ::

        x -> conv, pool -> conv, pool -> conv -> pooling -> linear
                                                               |
        map (N, 1, H, W) <- window <- mu, sigma, alpha <- first window +

    Appendix G of [RECT], 3x3 convolutions with ReLU and max-pooling of 2.
    What it leaves open is ours: :math:`\mu = \mathrm{sigmoid}`,
    :math:`\sigma = \mathrm{softplus} + 0.03` and :math:`\alpha` linear, of
    an output whose weights start at zero, so that the first window is
    ``extent`` around the centre whatever the features' scale.

    With ``variational`` the outputs are means of a Gaussian each, whose
    draws are rectangles too, :math:`r = m + s \epsilon` in front of sigmoid
    and softplus, held to the first window by a KL to N(0, 1): the
    bottleneck is on the shape, five numbers an image. It is reported as
    ``loss_kl_rectangle``, ``beta`` times the sum over the numbers, and as
    ``kl_rectangle_nats``.

    Scores have no std: what is drawn is the parameters, and the mean is the
    map of their means.

    Args:
        in_channels: channels C of the features.
        channels: of the convolutions.
        shape: ``'rectangle'``, or ``'ellipse'``.
        num_windows: K, whose union the map is; with more than one they start
            on a circle around the centre.
        sharpness: s of Eq. 1.
        extent: half extents of the first window, in sides of the map.
        pooling: ``'mean'``, global average pooling as in [RECT], which keeps
            of a feature's place what padding shows; or ``'moments'``,
            the means of features times 1, y, x, y^2, xy and x^2.
        variational: whether the parameters are drawn.
        beta: weight of their KL, in nats an image; None is 0.01 where they
            are drawn.
        std_shift: subtracted before the softplus of their std, which starts
            at 0.13 by default.
        init_cfg: see MMEngine.

    Attributes:
        num_windows: K.

    Shape:
        x ``(N, C, H, W)`` -> :class:`MapDistribution` with the mean ``(N, 1,
        H, W)``, float32 or wider, and the rectangles ``(N, K, 5)``.

    Example:
        >>> attention = RectangularAttention(in_channels=320)
        >>> x = torch.rand(2, 320, 10, 10)
        >>> attention(x).mean.shape, attention.rectangles(x).shape
        (torch.Size([2, 1, 10, 10]), torch.Size([2, 1, 5]))

    Raises:
        ValueError: if a field is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int] = (64, 128, 256),
        shape: str = 'rectangle',
        num_windows: int = 1,
        sharpness: float = 6.0,
        extent: float = 0.35,
        pooling: str = 'mean',
        variational: bool = False,
        beta: float | None = None,
        std_shift: float = 2.0,
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
        self.window = WINDOWS[one_of('shape', shape, WINDOWS)]
        self.num_windows = at_least('num_windows', num_windows, 1)
        self.sharpness = at_least('sharpness', sharpness, 0.1)
        self.powers = POOLINGS[one_of('pooling', pooling, POOLINGS)]
        self.variational = one_of('variational', variational, (True, False))
        if beta is not None and not variational:
            raise ValueError(
                f'beta={beta!r} weighs the KL of drawn parameters: set '
                'variational=True, or leave it out'
            )
        default = 0.01 if variational else 0.0
        self.beta = at_least('beta', default if beta is None else beta, 0.0)
        self.std_shift = at_least('std_shift', std_shift, 0.0)
        if at_least('extent', extent, 0.1) > 10:
            raise ValueError(
                f'extent is in sides of the map, at most 10, got {extent!r}'
            )
        self.convs = nn.ModuleList()
        for width in channels:
            self.convs.append(nn.Conv2d(in_channels, width, 3, padding=1))
            in_channels = width
        pooled = in_channels * len(self.powers)
        self.mean = nn.Linear(pooled, 5 * num_windows)
        self.std = nn.Linear(pooled, 5 * num_windows) if variational else None
        first = _first_windows(num_windows, extent)
        self.register_buffer('first', first, persistent=False)
        self.start()

    first: Tensor

    @property
    def stochastic(self) -> bool:
        return self.variational

    def start(self) -> None:
        constant_init(self.mean, 0)
        if self.std is not None:
            constant_init(self.std, 0)

    def forward(self, x: Tensor) -> MapDistribution:
        size = (x.size(2), x.size(3))
        pooled = self._pooled(x)
        mean = at_least_float32(self.mean(pooled))
        params = self._parameters_of(mean)
        if collecting(self.training):
            report_rectangles(params, size)
        of_mean = self._map(mean, size)
        if self.std is None:
            return MapDistribution(of_mean, geometry=params)
        std = softplus_std(self.std(pooled), self.std_shift)
        if collecting(self.training):
            self._report(mean, std)
        return MapDistribution(
            of_mean,
            draw=lambda: self._map(draws.draw_maps(mean, std), size),
            nats=lambda: gaussian_kl(mean, std).sum(1),
            geometry=params,
        )

    def _map(self, raw: Tensor, size: tuple[int, int]) -> Tensor:
        windows = self.window(self._parameters_of(raw), size, self.sharpness)
        return unite_windows(windows)

    def rectangles(self, x: Tensor) -> Tensor:
        """The mean parameters, ``(N, K, 5)``, of features ``(N, C, H, W)``;
        see :mod:`mmaib.functional.rectangle`."""
        return self._parameters_of(self.mean(self._pooled(x)))

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

    def _parameters_of(self, raw: Tensor) -> Tensor:
        """``(N, K, 5)`` from the outputs of the linear layer."""
        raw = at_least_float32(raw).unflatten(1, (-1, 5)) + self.first
        centre, extents, angle = raw.split((2, 2, 1), -1)
        return torch.cat(
            [centre.sigmoid(), F.softplus(extents) + EXTENT_FLOOR, angle], -1
        )

    def _report(self, mean: Tensor, std: Tensor) -> None:
        nats = gaussian_kl(mean, std).sum(1).mean()
        report_loss('loss_kl_rectangle', self.beta * nats)
        report_scalar('kl_rectangle_nats', nats)


def _first_windows(count: int, extent: float) -> Tensor:
    """What is added to the outputs ``(K, 5)``: zero outputs are windows
    around the centre; several lie on a circle, so that they differ."""
    radius = 0.0 if count == 1 else 0.2
    rows = []
    for k in range(count):
        turn = 2 * math.pi * k / count
        centre = (0.5 + radius * math.cos(turn), 0.5 + radius * math.sin(turn))
        rows.append(
            [
                *(math.log(c / (1 - c)) for c in centre),
                *[math.log(math.expm1(extent - EXTENT_FLOOR))] * 2,
                0.0,
            ]
        )
    return torch.tensor(rows)
