from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor

from mmaib.checks import at_least, level_channels
from mmaib.functional import split_levels
from mmaib.losses import (
    Reporter,
    collecting,
    monitoring,
    report_loss,
    report_scalar,
)
from mmaib.registry import MODELS, build_part

from .image_cells import own_cells, own_level_mean, own_position_mean
from .map_distribution import MapDistribution
from .modulation import Modulation

# scores so close to 0 or 1 count as saturated
SATURATED = 0.02


@MODELS.register_module()
class AttentiveBottleneck(Reporter, BaseModule):
    r"""Attend, quantise, modulate (Fig. 2-4 of [AIB]).

    ::

        x --> attention p(a|x) --> draw --> quantizer --> modulation --> x_at
          \_______________________________________ (noise) __/

    Reports monitors of the map, and what the quantiser reports:
    ``attention_mean`` and ``attention_std``, the means of mu_a and sigma_a;
    ``attention_contrast``, the standard deviation of mu_a over positions;
    ``attention_saturated``, the share of mu_a within 0.02 of 0 or 1. A map
    without contrast, or saturated, attends to nothing. With ``beta`` above
    zero, also ``loss_kl_map`` and its monitor
    ``kl_map_nats``: the KL of the map itself, which [AIB] does not have and
    its authors' later segmentation models have instead of the latent's.

    Args:
        in_channels: channels C of the features that are modulated, one
            number, or one a level where it serves several.
        attention: config of the map, any module with ``(x)`` ->
            :class:`MapDistribution`; one without noise has the attribute
            ``stochastic = False``.
        quantizer: config of :class:`AnchorQuantizer`; None for a continuous
            map.
        modulation: config of a :class:`Modulation`, by default a
            :class:`FeatureModulation`; it says what the map is made of.
        noise: config of :class:`FeatureNoise` on the features that are
            modulated, if [AIB]'s noise encoders begin here.
        map_channels: channels of the features that the map is made from, if
            they are others; ``in_channels`` by default.
        beta: weight of the map's KL to N(0, 1), in nats, mean over
            positions, without padding.
        init_cfg: see MMEngine.

    Shape:
        x ``(N, C, H, W)`` -> ``(N, out_channels, H, W)``, ``(L_a * N, ...)``
        where :mod:`mmaib.sampling.draws` has L_a maps drawn.

    Example:
        >>> from mmaib.sampling.draws import Draws
        >>> layer = AttentiveBottleneck(256, quantizer=dict(num_anchors=20))
        >>> x = torch.rand(2, 256, 32, 32)
        >>> layer(x).shape  # of the mean map
        torch.Size([2, 256, 32, 32])
        >>> with Draws(attention=4).open():
        ...     layer(x).shape
        torch.Size([8, 256, 32, 32])

    Raises:
        ValueError: if a field is out of range.
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        attention: dict | None = None,
        quantizer: dict | None = None,
        modulation: dict | None = None,
        noise: dict | None = None,
        map_channels: int | None = None,
        beta: float = 0.0,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        channels = level_channels(in_channels)
        self.map_channels = map_channels or channels[0]
        self.beta = at_least('beta', beta, 0.0)
        self.attention = build_part(
            'attention',
            attention,
            'mmaib.VariationalAttention',
            in_channels=self.map_channels,
        )
        if beta > 0 and not _stochastic(self.attention):
            raise ValueError(
                f'beta={beta} weighs the KL of the map, and '
                f'{type(self.attention).__name__} has none: leave it out'
            )
        self.quantizer = None
        if quantizer is not None:
            self.quantizer = build_part(
                'quantizer', quantizer, 'mmaib.AnchorQuantizer'
            )
        self.noise = None
        if noise is not None:
            self.noise = build_part(
                'noise', noise, 'mmaib.FeatureNoise', in_channels=channels[0]
            )
            channels = [self.noise.out_channels] * len(channels)
        self.modulation: Any = build_part(
            'modulation',
            modulation,
            'mmaib.FeatureModulation',
            in_channels=channels,
        )
        kind = type(self.modulation).__name__
        if not isinstance(self.modulation, Modulation):
            raise TypeError(
                f'modulation: {kind} must inherit from mmaib.layers.Modulation'
            )
        if noise is not None and self.modulation.stochastic:
            raise ValueError(f'noise: {kind} has a noise of its own')
        self.out_channels = self.modulation.out_channels

    @property
    def stochastic(self) -> bool:
        """Whether two samples of its map, or of what it passes, differ."""
        return (
            _stochastic(self.attention)
            or self.modulation.stochastic
            or self.noise is not None
        )

    def forward(self, x: Tensor) -> Tensor:
        inputs = self.map_inputs([x])
        maps = self.attend(inputs)
        out = self.modulate(x, maps[0])
        self.modulation.report(inputs, maps)
        return out

    def map_inputs(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """What the maps are made of, as the modulation says: the features, or
        these after a gate's own normalisation, whose statistics follow them
        in training."""
        return self.modulation.map_inputs(levels)

    def attend(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """The maps a (or a_q) of features, a level each; what is elementwise
        is computed once for all levels.

        Args:
            levels: ``(N, map_channels, H, W)`` each.

        Returns:
            ``(L_a * N, 1, H, W)`` each, draw by draw.
        """
        reports = collecting(self.training)
        maps = MapDistribution.of_levels([self._map(x) for x in levels])
        if reports:
            self._report(maps)
        scores = maps.sample(keep_std=self.training or reports)
        if self.quantizer is None:
            return split_levels(scores, maps.grids)
        if getattr(self.quantizer, 'all_levels', False):
            scores = self.quantizer(scores, maps.grids)
            return split_levels(scores, maps.grids)
        return [self.quantizer(x) for x in split_levels(scores, maps.grids)]

    def _map(self, x: Tensor) -> MapDistribution:
        if x.dim() != 4:
            raise ValueError(
                'AttentiveBottleneck attends to maps (N, C, H, W), got a '
                f'feature of {tuple(x.shape)}: have the backbone give its '
                "feature map (in mmpretrain out_type='featmap', "
                'gap_before_final_norm=False)'
            )
        if x.size(1) != self.map_channels:
            raise ValueError(
                'AttentiveBottleneck makes its map from '
                f'{self.map_channels} channels, got features with '
                f'{x.size(1)}; levels that share one map module need equal '
                'channels'
            )
        maps = self.attention(x)
        if not isinstance(maps, MapDistribution):
            raise TypeError(
                f'{type(self.attention).__name__} must return a '
                f'MapDistribution of mmaib.layers, got {type(maps).__name__}'
            )
        return maps

    def modulate(self, x: Tensor, attention: Tensor, level: int = 0) -> Tensor:
        """Features x modulated by a map.

        Args:
            x: ``(N, C, H, W)``.
            attention: ``(L_a * N, 1, H, W)``.
            level: of the features, for a gate with statistics of each level.

        Returns:
            ``(L_a * N, out_channels, H, W)``, draw by draw; ``(L_z * L_a *
            N, ...)`` with a noise on the features.
        """
        if self.noise is not None:
            x = self.noise(x.repeat(len(attention) // len(x), 1, 1, 1))
            attention = attention.repeat(len(x) // len(attention), 1, 1, 1)
        return self.modulation(x, attention, level)

    def _report(self, maps: MapDistribution) -> None:
        mean, grids = maps.mean, maps.grids
        kl = maps.kl() if self.beta > 0 else None
        if kl is not None:
            kl = own_level_mean(kl, grids)
            report_loss('loss_kl_map', self.beta * kl)
            report_scalar('kl_map_nats', kl)
        if not monitoring():
            return
        report_scalar('attention_mean', own_level_mean(mean, grids))
        if maps.std is not None:
            report_scalar('attention_std', own_level_mean(maps.std, grids))
        saturated = ((mean - 0.5).abs() > 0.5 - SATURATED).float()
        report_scalar('attention_saturated', own_level_mean(saturated, grids))
        for level in split_levels(mean, grids):
            cells = own_cells(level)
            offset = level - own_position_mean(level, cells)
            contrast = own_position_mean(offset.square(), cells).sqrt()
            report_scalar('attention_contrast', contrast.mean())


def _stochastic(attention: Any) -> bool:
    """Whether two samples of a map differ; a user's map may leave it out."""
    return getattr(attention, 'stochastic', True)
