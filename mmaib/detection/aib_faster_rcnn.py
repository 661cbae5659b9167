from __future__ import annotations

from typing import Any

import torch
from mmdet.models import FasterRCNN
from torch import Tensor

from mmaib.aux_losses import AuxLossMixin
from mmaib.checks import evaluation_draws
from mmaib.layers import AIBNeck
from mmaib.registry import MODELS

from .aib_bbox_head import AIBShared2FCBBoxHead
from .aib_roi_head import AIBRoIHead, FeatureDraws


@MODELS.register_module()
class AIBFasterRCNN(AuxLossMixin, FasterRCNN):
    """Faster R-CNN with IB attention (Section 4.2.5 of [AIB]).

    ::

        image -> backbone -> AIBNeck -> RPN -> AIBRoIHead -> detections
                                |                  |
                       loss_vq, loss_commit   loss_kl_cls, loss_kl_reg

    Args:
        test_draws: how to evaluate. ``'mean'``, the mean map and latent,
            deterministic and as fast as the host; or
            ``dict(attention=L_a, latent=L_z, seed=0)``, Monte-Carlo: the
            image passes the backbone once and the neck once if attention
            comes after it, the RPN sees the features
            of the drawn maps' mean, and the RoI head runs on all draws as
            one batch. ``latent`` may be ``'mean'``. The noise comes from a
            generator of its own, seeded anew at each call, so an evaluation
            repeats exactly and leaves the global generator alone.
        args, kwargs: of mmdet's ``FasterRCNN``.

    Raises:
        ValueError: if ``test_draws`` does not fit, or asks for draws from
            parts that have none to give.
    """

    def __init__(
        self, *args: Any, test_draws: str | dict = 'mean', **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        neck = getattr(self, 'neck', None)
        channels = getattr(neck, 'out_channels', None)
        wanted = self.rpn_head.in_channels
        if isinstance(channels, int) and channels != wanted:
            raise ValueError(
                f'the neck gives {channels} channels (modulation mode '
                "'concat' doubles them), rpn_head.in_channels is "
                f'{wanted}; set it, bbox_roi_extractor.out_channels and '
                f'bbox_head.in_channels to {channels}'
            )
        self.test_draws = evaluation_draws(test_draws)
        if self.test_draws is not None:
            self._check_parts()

    def _check_parts(self) -> None:
        """Refuse draws from parts that have none to give."""
        parts = {
            'neck': AIBNeck,
            'roi_head': AIBRoIHead,
            'roi_head.bbox_head': AIBShared2FCBBoxHead,
        }
        for name, kind in parts.items():
            part = dict(self.named_modules()).get(name)
            if not isinstance(part, kind):
                raise ValueError(
                    f'test_draws needs an mmaib.{kind.__name__} as {name}, '
                    f'got {type(part).__name__}'
                )

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Features of one map a level, with its draws in evaluation if
        ``test_draws`` asks for them."""
        if self.training or self.test_draws is None:
            return super().extract_feat(batch_inputs)
        num_draws = self.test_draws['attention']
        generator = torch.Generator(batch_inputs.device)
        generator.manual_seed(self.test_draws['seed'])
        x = self.neck.prepare(self.backbone(batch_inputs))
        maps = self.neck.attend(x, num_draws, generator)
        mean_maps = [m.unflatten(0, (num_draws, -1)).mean(0) for m in maps]
        features = FeatureDraws(self.neck.modulate(x, mean_maps))
        features.draws = self.neck.modulate(x, maps)
        features.num_draws = num_draws
        features.latent_draws = self.test_draws['latent']
        features.generator = generator
        return features
