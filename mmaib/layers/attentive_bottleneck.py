from __future__ import annotations

import torch
from mmengine.model import BaseModule
from torch import Tensor

from mmaib.aux_losses import collecting, report_loss, report_scalar
from mmaib.checks import a_dict, at_least, draws
from mmaib.functional import draw_gaussian, gaussian_kl
from mmaib.registry import MODELS

# scores so close to 0 or 1 count as saturated
SATURATED = 0.02


@MODELS.register_module()
class AttentiveBottleneck(BaseModule):
    r"""Attend, quantise, modulate: what a host plugs in (Fig. 2-4 of [AIB]).

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
        in_channels: channels C of the features that are modulated.
        attention: config of the map, any module with x -> (mean, std).
        quantizer: config of :class:`AnchorQuantizer`, with at least
            ``num_anchors``; None for a continuous map.
        modulation: config of :class:`FeatureModulation`.
        noise: config of :class:`FeatureNoise` on the features that are
            modulated, if [AIB]'s noise encoders begin here. In evaluation
            there is none, unless a classifier draws latents.
        train_draws: L_a in training, 1 in [AIB], or ``'mean'``, no noise.
            More than one are folded into the batch (Eq. 12), which the
            model that collects the losses repeats the targets for.
            Evaluation takes the mean map unless it asks for draws.
        map_channels: channels of the features that the map is made from, if
            they are others; ``in_channels`` by default.
        beta: weight of the map's KL to N(0, 1), in nats, mean over
            positions.
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
        noise: dict | None = None,
        train_draws: int | str = 1,
        map_channels: int | None = None,
        beta: float = 0.0,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.map_channels = map_channels or in_channels
        self.beta = at_least('beta', beta, 0.0)
        self.train_draws = draws('train_draws', train_draws)
        self.attention = MODELS.build(
            {
                'type': 'mmaib.VariationalAttention',
                'in_channels': self.map_channels,
                **a_dict('attention', attention),
            }
        )
        self.quantizer = None
        if quantizer is not None:
            if 'num_anchors' not in a_dict('quantizer', quantizer):
                raise ValueError(
                    'quantizer has no num_anchors: give an integer >= 1 '
                    '(the papers use 20), or quantizer=None for a '
                    'continuous map, which has no vq or commit loss; '
                    f'got {dict(quantizer)}'
                )
            self.quantizer = MODELS.build(
                {'type': 'mmaib.AnchorQuantizer', **quantizer}
            )
        self.noise = None
        if noise is not None:
            self.noise = MODELS.build(
                {
                    'type': 'mmaib.FeatureNoise',
                    'in_channels': in_channels,
                    **a_dict('noise', noise),
                }
            )
            in_channels = self.noise.out_channels
        self.modulation = MODELS.build(
            {
                'type': 'mmaib.FeatureModulation',
                'in_channels': in_channels,
                **a_dict('modulation', modulation),
            }
        )
        self.out_channels = self.modulation.out_channels

    def forward(self, x: Tensor) -> Tensor:
        return self.modulate(x, self.attend(x))

    def attend(
        self,
        x: Tensor,
        num_draws: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The map a (or a_q) of features x.

        Args:
            x: ``(N, map_channels, H, W)``.
            num_draws: L_a; None takes ``train_draws`` in training and the
                mean map in evaluation.
            generator: source of the noise; None is the global one.

        Returns:
            ``(L * N, 1, H, W)``, draw by draw.
        """
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
        mean, std = self.attention(x)
        if collecting(self.training):
            self._report(mean, std)
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

    def modulate(
        self,
        x: Tensor,
        attention: Tensor,
        num_noises: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Features x modulated by a map.

        Args:
            x: ``(N, C, H, W)``.
            attention: ``(L_a * N, 1, H, W)``.
            num_noises: L_z of the noise; None is its ``train_draws`` in
                training and no noise in evaluation. Without a noise it means
                nothing.
            generator: source of the noise; None is the global one.

        Returns:
            ``(L_z * L_a * N, out_channels, H, W)``, draw by draw.
        """
        if self.noise is None:
            return self.modulation(x, attention)
        if num_noises is None and self.training:
            num_noises = self.noise.train_draws
        x = x.repeat(len(attention) // len(x), 1, 1, 1)
        x = self.noise(x, num_noises, generator)
        attention = attention.repeat(len(x) // len(attention), 1, 1, 1)
        return self.modulation(x, attention)

    def _report(self, mean: Tensor, std: Tensor) -> None:
        report_scalar('attention_mean', mean.mean())
        report_scalar('attention_std', std.mean())
        contrast = mean.flatten(1).std(1, correction=0).mean()
        report_scalar('attention_contrast', contrast)
        saturated = ((mean - 0.5).abs() > 0.5 - SATURATED).float().mean()
        report_scalar('attention_saturated', saturated)
        if self.beta > 0:
            kl = gaussian_kl(mean, std).mean()
            report_loss('loss_kl_map', self.beta * kl)
            report_scalar('kl_map_nats', kl)
