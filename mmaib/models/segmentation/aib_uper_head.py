from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import ConvModule
from mmseg.models import UPerHead
from torch import Tensor

from mmaib.checks import part_fields
from mmaib.losses import require_collector
from mmaib.registry import MODELS, build_part
from mmaib.sampling.draws import mean_over_draws


class DeferredConvModule(ConvModule):
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

    Reports ``loss_kl`` and the monitors ``kl_nats`` and ``kl_nats_sum``.

    Args:
        latent: config of the latent, a :class:`GaussianEncoder` unless its
            ``type`` says otherwise. Its ``std_source='feature'`` is a 3x3
            convolution beside ``fpn_bottleneck`` on the pyramid, the form
            closest to [AIB] (1.58 times the MACs of BEiT-base at 512x512),
            ``'mean'`` a 1x1 convolution on the mean (1.02 times).
        args, kwargs: of mmseg's ``UPerHead``.

    Shape:
        a feature ``(N, C_i, H_i, W_i)`` a level -> logits ``(N,
        num_classes, H_0, W_0)``; ``L_z * N`` of them, draw by draw, where
        :mod:`mmaib.sampling.draws` has L_z latents drawn.

    Raises:
        ValueError: if a field is out of range.
    """

    after_features = ('fpn_bottleneck', 'encoder', 'conv_seg')

    def __init__(
        self,
        *args: Any,
        latent: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        pyramid_channels = len(self.in_channels) * self.channels
        self.fpn_bottleneck = DeferredConvModule(
            pyramid_channels,
            self.channels,
            3,
            padding=1,
            conv_cfg=self.conv_cfg,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
        )
        source = part_fields('latent', latent).get('std_source')
        self.encoder = build_part(
            'latent',
            latent,
            'mmaib.GaussianEncoder',
            in_channels=pyramid_channels,
            latent_channels=self.channels,
            trunk='conv1x1' if source == 'mean' else 'conv3x3',
            with_mean=False,
        )

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        if self.training:
            require_collector('AIBUPerHead')
        # UPerHead's way from levels to the pyramid, fpn_bottleneck postponed.
        pyramid = self._forward_feature(inputs)
        layer = self.fpn_bottleneck.apply_now
        return self.cls_seg(self.encoder(pyramid, layer))

    def predict_by_feat(
        self, seg_logits: Tensor, batch_img_metas: list[dict]
    ) -> Tensor:
        """mmseg's, of logits averaged over the draws before they are
        resized."""
        logits = mean_over_draws(seg_logits, len(batch_img_metas))
        return super().predict_by_feat(logits, batch_img_metas)

    def loss_by_feat(
        self, seg_logits: Tensor, batch_data_samples: list
    ) -> dict:
        """mmseg's losses, their mean over the L_z draws (Eq. 18 of
        [AIB])."""
        draws = len(seg_logits) // len(batch_data_samples)
        return super().loss_by_feat(seg_logits, batch_data_samples * draws)
