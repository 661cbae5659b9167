from __future__ import annotations

from functools import partial
from typing import Any

from mmdet.models import Shared2FCBBoxHead
from torch import Tensor

from mmaib.losses import require_collector
from mmaib.registry import MODELS, build_part


@MODELS.register_module()
class AIBShared2FCBBoxHead(Shared2FCBBoxHead):
    """Two shared FCs, the last one stochastic (Section 4.2.5 of [AIB]).

    ::

        RoI --> fc1 --+--> fc2 ------> mu_cls    --> z_cls --> fc_cls
                      +--> std ------> sigma_cls -'
                      +--> fc2 twin -> mu_reg    --> z_reg --> fc_reg
                      '--> std ------> sigma_reg -'

    mmdet's layers keep their names and their meaning; with the stds at zero
    this is mmdet's head. The twin starts as a copy of fc2, also when a
    checkpoint of the base model is loaded.

    Reports ``loss_kl_cls``, ``loss_kl_reg`` and the monitors ``kl_nats`` and
    ``kl_nats_sum``. In a cascade they are means over its S stages, which
    ``stage_loss_weights`` do not reach: ``latent.beta`` of S times 0.01
    times a stage's weight weighs its KL as its other losses.

    Args:
        latent: config of both latents, of their ``beta`` for instance; a
            :class:`GaussianEncoder` unless its ``type`` says otherwise.
        args, kwargs: of mmdet's ``Shared2FCBBoxHead``.

    Shape:
        RoI features ``(R, in_channels, 7, 7)`` -> scores ``(R, C + 1)`` and
        deltas ``(R, 4 C)``; ``L_z * R`` rows, draw by draw, where
        :mod:`mmaib.sampling.draws` has L_z latents drawn.

    Raises:
        ValueError: if a field is out of range.
    """

    after_features = (
        'shared_fcs.1', 'cls_encoder', 'reg_encoder', 'fc_cls', 'fc_reg'
    )  # fmt: skip

    def __init__(
        self,
        *args: Any,
        latent: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if not (self.with_cls and self.with_reg):
            raise ValueError(
                'AIBShared2FCBBoxHead needs with_cls=True and with_reg=True'
            )
        encoder = partial(
            build_part,
            'latent',
            latent,
            'mmaib.GaussianEncoder',
            in_channels=self.fc_out_channels,
            latent_channels=self.fc_out_channels,
            trunk='linear',
        )
        self.cls_encoder = encoder(with_mean=False, loss_name='loss_kl_cls')
        self.reg_encoder = encoder(with_mean=True, loss_name='loss_kl_reg')

    def init_weights(self) -> None:
        super().init_weights()
        twin, fc2 = self.reg_encoder.mean, self.shared_fcs[1]
        twin.load_state_dict(fc2.state_dict())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.training:
            require_collector('AIBShared2FCBBoxHead')
        if self.with_avg_pool:
            x = self.avg_pool(x)
        x = self.shared_fcs[0](x.flatten(1)).relu()
        z_cls = self.cls_encoder(x, self._fc2)
        z_reg = self.reg_encoder(x)
        return self.fc_cls(z_cls), self.fc_reg(z_reg)

    def loss(
        self,
        cls_score: Tensor,
        bbox_pred: Tensor,
        rois: Tensor,
        labels: Tensor,
        label_weights: Tensor,
        bbox_targets: Tensor,
        bbox_weights: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> dict:
        """mmdet's losses, their mean over the L_z draws (Eq. 18 of
        [AIB])."""
        draws = len(cls_score) // max(len(labels), 1)
        if draws > 1:
            rois, bbox_targets, bbox_weights = (
                boxes.repeat(draws, 1)
                for boxes in (rois, bbox_targets, bbox_weights)
            )
            labels = labels.repeat(draws)
            label_weights = label_weights.repeat(draws)
        return super().loss(
            cls_score,
            bbox_pred,
            rois,
            labels,
            label_weights,
            bbox_targets,
            bbox_weights,
            *args,
            **kwargs,
        )

    def _fc2(self, x: Tensor) -> Tensor:
        return self.shared_fcs[1](x).relu()

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: object
    ) -> None:
        """Start the twin of fc2 from fc2 where a checkpoint has no twin."""
        for name in ('weight', 'bias'):
            base = f'{prefix}shared_fcs.1.{name}'
            twin = f'{prefix}reg_encoder.mean.{name}'
            if base in state_dict:
                state_dict.setdefault(twin, state_dict[base])
        super()._load_from_state_dict(state_dict, prefix, *args)
