from __future__ import annotations

import torch
from mmengine.model import BaseModule
from torch import Tensor

from mmaib.aux_losses import collecting, report_scalar
from mmaib.checks import draws
from mmaib.functional import draw_gaussian
from mmaib.registry import MODELS


@MODELS.register_module()
class AttentiveBottleneck(BaseModule):
    r"""Attend, quantise, modulate: what a host plugs in (Fig. 2-4 of [AIB]).

    ::

        x --> attention p(a|x) --> draw --> quantizer --> modulation --> x_at
          \__________________________________________________/

    Reports the monitors ``attention_mean`` and ``attention_std``, the means
    over the map of mu_a and sigma_a, and what the quantiser reports.

    Args:
        in_channels: channels C of the features.
        attention: config of the map, any module with x -> (mean, std).
        quantizer: config of :class:`AnchorQuantizer`, with at least
            ``num_anchors``; None for a continuous map.
        modulation: config of :class:`FeatureModulation`.
        train_draws: ``1``, a drawn map in training ([AIB]), or ``'mean'``,
            no noise. Evaluation takes the mean map unless it asks for
            draws.
        init_cfg: see MMEngine.

    Shape:
        x ``(N, C, H, W)`` -> ``(N, out_channels, H, W)``.

    Raises:
        ValueError: if a field is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        attention: dict | None = None,
        quantizer: dict | None = None,
        modulation: dict | None = None,
        train_draws: int | str = 1,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.in_channels = in_channels
        self.train_draws = draws('train_draws', train_draws, most=1)
        self.attention = MODELS.build(
            {
                'type': 'mmaib.VariationalAttention',
                'in_channels': in_channels,
                **(attention or {}),
            }
        )
        self.quantizer = None
        if quantizer is not None:
            if 'num_anchors' not in quantizer:
                raise ValueError(
                    'quantizer has no num_anchors: give an integer >= 1 '
                    '(the papers use 20), or quantizer=None for a '
                    'continuous map, which has no vq or commit loss; '
                    f'got {dict(quantizer)}'
                )
            self.quantizer = MODELS.build(
                {'type': 'mmaib.AnchorQuantizer', **quantizer}
            )
        self.modulation = MODELS.build(
            {
                'type': 'mmaib.FeatureModulation',
                'in_channels': in_channels,
                **(modulation or {}),
            }
        )
        self.out_channels = self.modulation.out_channels

    def forward(self, x: Tensor) -> Tensor:
        return self.modulation(x, self.attend(x))

    def attend(
        self,
        x: Tensor,
        num_draws: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The map a (or a_q) of features x.

        Args:
            x: ``(N, C, H, W)``.
            num_draws: L_a; None takes ``train_draws`` in training and the
                mean map in evaluation.
            generator: source of the noise; None is the global one.

        Returns:
            ``(L * N, 1, H, W)``, draw by draw.
        """
        if x.size(1) != self.in_channels:
            raise ValueError(
                f'AttentiveBottleneck has in_channels={self.in_channels}, '
                f'got features with {x.size(1)} channels; the levels of a '
                'neck that share one map module need equal channels'
            )
        mean, std = self.attention(x)
        if collecting():
            report_scalar('attention_mean', mean.mean())
            report_scalar('attention_std', std.mean())
        if num_draws is None and self.training:
            num_draws = self.train_draws
        if num_draws is not None:
            scores = draw_gaussian(mean, std, num_draws, generator)
        elif self.training:
            # The std stays in the graph: DDP knows no unused parameters.
            scores = mean + 0 * std
        else:
            scores = mean
        return scores if self.quantizer is None else self.quantizer(scores)
