from __future__ import annotations

from typing import Any

from mmdet.models import CascadeRCNN, FasterRCNN
from torch import Tensor

from mmaib.models import AIBNeck, AuxLossMixin
from mmaib.registry import MODELS
from mmaib.sampling.draws import mean_over_draws

from .aib_bbox_head import AIBShared2FCBBoxHead
from .aib_cascade_roi_head import AIBCascadeRoIHead
from .aib_roi_head import AIBRoIHead, FeatureDraws


class TwoStageDraws(AuxLossMixin):
    """The draws of a two-stage detector. The image passes the backbone once,
    and the neck once if attention comes after it; the RPN sees the mean of
    the drawn features, and the RoI head runs on all draws as one batch."""

    training: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
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

    def predict(self, batch_inputs: Tensor, *args: Any, **kwargs: Any) -> list:
        """mmdet's, with the draws that ``test_draws`` asks for."""
        with self.test_draws.open(batch_inputs.device):
            return super().predict(batch_inputs, *args, **kwargs)

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Features of one map a level; in evaluation with draws their mean,
        with the draws beside it."""
        features = super().extract_feat(batch_inputs)
        batch = len(batch_inputs)
        if self.training or len(features[0]) == batch:
            return features
        mean = FeatureDraws(mean_over_draws(x, batch) for x in features)
        mean.draws = features
        return mean


@MODELS.register_module()
class AIBFasterRCNN(TwoStageDraws, FasterRCNN):
    """Faster R-CNN with IB attention (Section 4.2.5 of [AIB]).

    ::

        image -> backbone -> AIBNeck -> RPN -> AIBRoIHead -> detections
                                |                  |
                       loss_vq, loss_commit   loss_kl_cls, loss_kl_reg

    Args:
        args, kwargs: of :class:`AuxLossMixin` and mmdet's ``FasterRCNN``.

    Raises:
        ValueError: if a field does not fit.
    """

    draw_parts = {
        'attention': {'neck': AIBNeck, 'roi_head': AIBRoIHead},
        'latent': {
            'roi_head': AIBRoIHead,
            'roi_head.bbox_head': AIBShared2FCBBoxHead,
        },
    }

    def check_probabilities(self) -> None:
        if getattr(self.roi_head.bbox_head, 'custom_cls_channels', False):
            raise ValueError(
                "test_draws with uncertainty or average='probabilities' "
                'needs scores by softmax, and loss_cls='
                f'{type(self.roi_head.bbox_head.loss_cls).__name__} has an '
                'activation of its own'
            )


@MODELS.register_module()
class AIBCascadeRCNN(TwoStageDraws, CascadeRCNN):
    """Cascade R-CNN, Cascade Mask R-CNN too, as :class:`AIBFasterRCNN`.

    The betas of its latents are those of its heads, one a stage;
    ``stage_loss_weights`` do not reach them.

    Args:
        args, kwargs: of :class:`AuxLossMixin` and mmdet's ``CascadeRCNN``.

    Raises:
        ValueError: if a field does not fit.
    """

    draw_parts = {
        'attention': {'neck': AIBNeck, 'roi_head': AIBCascadeRoIHead},
        'latent': {
            'roi_head': AIBCascadeRoIHead,
            'roi_head.bbox_head.0': AIBShared2FCBBoxHead,
        },
    }
