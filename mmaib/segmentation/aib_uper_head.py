from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmseg.models import UPerHead
from torch import Tensor

from mmaib.aux_losses import require_collector
from mmaib.layers import build_encoder
from mmaib.registry import MODELS


class _Postponed(ConvModule):
    """A ConvModule that passes its input on, and is applied later."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def apply_now(self, x: Tensor) -> Tensor:
        return super().forward(x)


@MODELS.register_module()
class AIBUPerHead(UPerHead):
    """UPerNet's head with a stochastic last feature (Section 4.2.4 of
    [AIB]).

    ::

        levels --> PPM, FPN --> pyramid --> fpn_bottleneck --> mu_z --> z
                                   |                            |       |
                                   '-- std_source='feature' -.  |   dropout
                                       std_source='mean'  ---+--'       |
                                                     sigma_z -'     conv_seg

    mmseg's layers keep their names and their meaning; with the std at zero
    this is mmseg's head. The latent sits right before the linear predictor,
    so that the prediction at the mean is the mean prediction.

    Reports ``loss_kl`` and the monitor ``kl_nats``.

    Args:
        std_source: what the std is computed from: ``'feature'``, a 3x3
            convolution beside ``fpn_bottleneck`` on the pyramid, the form
            closest to [AIB] (1.58 times the MACs of BEiT-base at 512x512),
            or ``'mean'``, a 1x1 convolution on the mean (1.02 times).
        beta: weight of the KL, in nats, mean over channels and positions.
        std_shift: see :class:`GaussianEncoder`.
        train_draws: see :class:`GaussianEncoder`.
        kl: see :class:`GaussianEncoder`.
        encoder: another latent than the Gaussian one, such as
            ``dict(type='mmaib.AdditiveNoiseEncoder', noise_std=1.0)``.
        args, kwargs: of mmseg's ``UPerHead``.

    Shape:
        a feature ``(N, C_i, H_i, W_i)`` a level -> logits ``(N,
        num_classes, H_0, W_0)``; ``L_z * N`` of them, draw by draw, if draws
        are asked for.

    Raises:
        ValueError: if a field is out of range.
    """

    def __init__(
        self,
        *args: Any,
        std_source: str = 'feature',
        beta: float = 0.01,
        std_shift: float = 5.0,
        train_draws: int | str = 1,
        kl: dict | None = None,
        encoder: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        pyramid_channels = len(self.in_channels) * self.channels
        self.fpn_bottleneck = _Postponed(
            pyramid_channels,
            self.channels,
            3,
            padding=1,
            conv_cfg=self.conv_cfg,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
        )
        from_mean = std_source == 'mean'
        self.encoder = build_encoder(
            encoder,
            gaussian=dict(
                std_source=std_source,
                std_shift=std_shift,
                trunk='conv1x1' if from_mean else 'conv3x3',
            ),
            in_channels=pyramid_channels,
            latent_channels=self.channels,
            trunk='conv3x3',
            with_mean=False,
            beta=beta,
            train_draws=train_draws,
            kl=kl,
        )

    def forward(
        self,
        inputs: Sequence[Tensor],
        num_draws: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Logits of features.

        Args:
            inputs: the neck's.
            num_draws: L_z; None is one draw in training, the mean in
                evaluation.
            generator: source of the noise; None is the global one.
        """
        if self.training:
            require_collector('AIBUPerHead')
        # The host's way from levels to the pyramid, fpn_bottleneck postponed.
        pyramid = self._forward_feature(inputs)
        layer = self.fpn_bottleneck.apply_now
        return self.cls_seg(self.encoder(pyramid, layer, num_draws, generator))

    def loss_by_feat(
        self, seg_logits: Tensor, batch_data_samples: list
    ) -> dict:
        """mmseg's losses, their mean over the L_z draws (Eq. 18 of
        [AIB])."""
        draws = len(seg_logits) // len(batch_data_samples)
        return super().loss_by_feat(seg_logits, batch_data_samples * draws)
