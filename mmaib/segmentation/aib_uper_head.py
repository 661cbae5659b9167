from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmseg.models import UPerHead
from torch import Tensor

from mmaib.aux_losses import require_collector
from mmaib.checks import one_of
from mmaib.layers import GaussianEncoder
from mmaib.registry import MODELS


class _ConvModuleWithInput(ConvModule):
    """A ConvModule that gives what it was given, too."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(x), x


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
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.std_source = one_of('std_source', std_source, ('feature', 'mean'))
        pyramid_channels = len(self.in_channels) * self.channels
        self.fpn_bottleneck = _ConvModuleWithInput(
            pyramid_channels,
            self.channels,
            3,
            padding=1,
            conv_cfg=self.conv_cfg,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
        )
        from_mean = std_source == 'mean'
        self.encoder = GaussianEncoder(
            in_channels=self.channels if from_mean else pyramid_channels,
            latent_channels=self.channels,
            trunk='conv1x1' if from_mean else 'conv3x3',
            with_mean=False,
            beta=beta,
            std_shift=std_shift,
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
        # The host's way from levels to fpn_bottleneck, which ends there.
        mean, pyramid = self._forward_feature(inputs)
        source = pyramid if self.std_source == 'feature' else mean
        return self.cls_seg(self.encoder(source, mean, num_draws, generator))
