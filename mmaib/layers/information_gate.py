from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor, nn

from mmaib.checks import at_least, level_channels, one_of
from mmaib.functional import (
    gate_information,
    information_gate,
    information_of_power,
    join_levels,
)
from mmaib.functional.gaussian import at_least_float32
from mmaib.losses import (
    Reporter,
    collecting,
    monitoring,
    report_loss,
    report_scalar,
)
from mmaib.registry import MODELS
from mmaib.sampling import draws

from .feature_modulation import MIN_MEAN
from .image_cells import own_cells, own_position_mean
from .modulation import Modulation

EPS = 1e-5


class FeatureStatistics(nn.Module):
    """Running mean and variance of each channel of one level's features:
    the mean over the first steps, an average over about the last ten after
    that; over all processes; frozen in evaluation.

    Args:
        channels: C.
    """

    mean: Tensor
    var: Tensor
    steps: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer('mean', torch.zeros(channels, 1, 1))
        self.register_buffer('var', torch.ones(channels, 1, 1))
        self.register_buffer('steps', torch.tensor(0.0))

    @property
    def std(self) -> Tensor:
        return (self.var + EPS).sqrt()


@MODELS.register_module()
class InformationGate(Reporter, Modulation):
    r"""A modulation that prices what it lets through, in nats (Schulz et
    al., *Restricting the Flow: Information Bottlenecks for Attribution*,
    ICLR 2020). Over a frozen network it is their Readout Bottleneck, a
    network that predicts the gate for every image, here on each level of a
    pyramid and from any model's losses; it can be trained with the network
    too.

    .. math::
        x_{at} = a' x + (1 - a') \epsilon, \quad
        \epsilon \sim N(\mu_x, \sigma_x^2), \quad a' = 1 - s (1 - a)

    Where a = 0 the model receives nothing of a position's feature. At the
    mean :math:`\epsilon = \mu_x`; where maps are drawn, so is
    :math:`\epsilon`. The mean and the std of each channel are running
    statistics of each level. ``strength`` s fades the gate in: at 0 the
    first forward is the base model's, to the bit. It is a buffer that
    :class:`BetaWarmupHook` sets.

    Behind a pooling over positions a gate that closes around an object also
    thins it out. ``rescale`` undoes that, as Eq. 7 of [RECT] does for a
    product: :math:`\mu_x + (x_{at} - \mu_x) / \bar a'`, with the mean over
    positions :math:`\bar a'`, at least 0.01. What passes has the same price,
    as the noise is stretched too.

    Reports ``beta`` times the information as ``loss_info``, mean over the
    positions and channels of all levels, so that a bit costs the same
    wherever it passes, and nothing in padding, which is in no statistic
    either (:mod:`mmaib.layers.image_cells`); and the monitors
    ``info_nats``, that mean itself, ``info_bits_per_image``, the sum, and
    ``gate_open``, the mean of a'.

    Args:
        in_channels: channels C of the features: one number, or one a level.
        beta: weight of the information.
        rescale: whether what passes is stretched by the mean openness, for
            a model that pools over positions, such as a classifier.
        init_cfg: see MMEngine.

    Attributes:
        paused: whether batches pass without a trace in the statistics.

    Shape:
        x ``(N, C, H, W)`` and map ``(L * N, 1, H, W)``, draw by draw ->
        ``(L * N, C, H, W)``, in x's dtype.

    Example:
        >>> gate = InformationGate(in_channels=256)
        >>> x, a = torch.randn(2, 256, 32, 32), torch.rand(2, 1, 32, 32)
        >>> gate(x, a).shape
        torch.Size([2, 256, 32, 32])

    Raises:
        ValueError: if a field is out of range.
    """

    strength: Tensor
    stochastic = True

    def __init__(
        self,
        in_channels: int | Sequence[int],
        beta: float = 0.01,
        rescale: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        levels = level_channels(in_channels)
        self.out_channels = levels[0]
        self.beta = at_least('beta', beta, 0.0)
        self.rescale = one_of('rescale', rescale, (True, False))
        self.statistics: Any = nn.ModuleList(map(FeatureStatistics, levels))
        self.register_buffer('strength', torch.tensor(1.0))
        self.paused = False

    def map_inputs(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Features of mean 0 and variance 1. In training, with gradient or
        not, they are taken into the statistics first."""
        if len(levels) > len(self.statistics):
            raise ValueError(
                f'InformationGate has statistics of {len(self.statistics)} '
                'levels, and the features have more: give in_channels of the '
                'AIBNeck as a list, one a level'
            )
        for level, (x, own) in enumerate(zip(levels, self.statistics)):
            if x.size(1) != len(own.mean):
                raise ValueError(
                    f'InformationGate has in_channels={len(own.mean)} at '
                    f'level {level}, got features with {x.size(1)}: give '
                    'in_channels of what it is part of'
                )
        if self.training and not self.paused:
            self._update_statistics(levels)
        seen = self.statistics[: len(levels)]
        values = [
            value.flatten() for own in seen for value in (own.mean, own.var)
        ]
        if torch.is_grad_enabled():
            # copies: a second batch of a step changes them before backward()
            # reads them: a tracker's reference frame, a student's other branch
            values = torch.cat(values).split([*map(len, values)])
        return [
            F.batch_norm(x, mean, var, eps=EPS)
            for x, mean, var in zip(levels, values[::2], values[1::2])
        ]

    @torch.no_grad()
    def _update_statistics(self, levels: Sequence[Tensor]) -> None:
        means, rms = zip(*map(_moments, levels))
        moments = torch.cat([*means, torch.cat(rms).square()])
        if get_world_size() > 1:
            all_reduce(moments, op='mean')
        mean, power = moments.chunk(2)
        var = (power - mean.square()).clamp(min=0)
        channels = [x.size(1) for x in levels]
        seen = self.statistics[: len(levels)]
        for own in seen:
            own.steps += 1
        shares = (1 / torch.stack([own.steps for own in seen])).clamp(min=0.1)
        for own, share, mean_now, var_now in zip(
            seen, shares, mean.split(channels), var.split(channels)
        ):
            share = share.to(own.mean.dtype)
            own.mean.lerp_(mean_now[:, None, None].to(own.mean), share)
            own.var.lerp_(var_now[:, None, None].to(own.var), share)

    def forward(self, x: Tensor, attention: Tensor, level: int = 0) -> Tensor:
        own = self.statistics[level]
        # not len(), which a dynamic batch cannot be exported with; repeat
        # copies, once too
        if attention.size(0) > x.size(0):
            x = x.repeat(attention.size(0) // x.size(0), 1, 1, 1)
        openness = self._openness(attention)
        noise, mean = draws.map_noise(x), own.mean
        if self.training and (self.rescale or noise is None):
            # backward() reads it, and a second batch changes it before
            mean = mean.clone()
        noise = mean if noise is None else torch.addcmul(mean, own.std, noise)
        passed = information_gate(x, openness, noise)
        if not self.rescale:
            return passed
        share = own_position_mean(openness, own_cells(openness))
        share = share.clamp(min=MIN_MEAN)
        # exact where all is open
        return torch.lerp(mean.to(x.dtype), passed, (1 / share).to(x.dtype))

    def fade(self, factor: float) -> None:
        """Set the strength."""
        self.strength.fill_(factor)

    def information(
        self, x: Tensor, attention: Tensor, level: int = 0
    ) -> Tensor:
        own = self.statistics[level]
        return gate_information(
            x, self._openness(attention), own.mean, own.std
        )

    def _openness(self, attention: Tensor) -> Tensor:
        """a', as far as the gate has faded in."""
        a = at_least_float32(attention).clamp(0, 1)
        return torch.lerp(a.new_ones(()), a, self.strength.to(a.dtype))

    def report(
        self, inputs: Sequence[Tensor], attention: Sequence[Tensor]
    ) -> None:
        if not collecting(self.training):
            return
        openness = self._openness(join_levels(attention))
        power = join_levels([*map(_rms, inputs)]).square()
        copies = len(openness) // len(power)
        power = power.repeat(copies, 1, 1, 1) if copies > 1 else power
        counts = join_levels(
            [_counts(a, u.size(1)) for a, u in zip(attention, inputs)]
        )
        nats = (information_of_power(power, openness) * counts).sum()
        total = counts.sum()
        mean = nats / total
        report_loss('loss_info', self.beta * mean, total)
        report_scalar('info_nats', mean, total)
        if monitoring():
            bits = nats / (len(openness) * math.log(2))
            report_scalar('info_bits_per_image', bits, part=id(self))
            counts = join_levels([*map(_counts, attention)])
            total = counts.sum()
            open_ = (openness * counts).sum() / total
            report_scalar('gate_open', open_, total)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and root mean square of each channel, ``(C,)``, without
    padding."""
    x, cells = at_least_float32(x.detach()), own_cells(x)
    if cells is None:
        return x.mean((0, 2, 3)), _rms(x, (0, 2, 3)).flatten()
    total = cells.sum()
    own = x * cells
    power = (own * x).sum((0, 2, 3)) / total
    return own.sum((0, 2, 3)) / total, power.sqrt()


def _rms(u: Tensor, dim: int | tuple[int, ...] = 1) -> Tensor:
    """Root mean square, by default over channels, ``(N, 1, H, W)``."""
    # which, unlike a square, makes no copy of the features
    norm = torch.linalg.vector_norm(at_least_float32(u), dim=dim, keepdim=True)
    return norm * (norm.numel() / u.numel()) ** 0.5


def _counts(attention: Tensor, channels: int = 1) -> Tensor:
    """How many features of each position count, none in padding."""
    cells = own_cells(attention)
    if cells is None:
        return torch.full_like(attention, channels)
    return channels * cells
