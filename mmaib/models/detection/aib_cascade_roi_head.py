from __future__ import annotations

from typing import Any

from mmdet.models import CascadeRoIHead
from torch import Tensor

from mmaib.losses import collecting
from mmaib.registry import MODELS
from mmaib.sampling.draws import mean_over_draws

from .aib_roi_head import kept_proposals, rois_of_draws


@MODELS.register_module()
class AIBCascadeRoIHead(CascadeRoIHead):
    """mmdet's ``CascadeRoIHead`` with the draws of :class:`AIBRoIHead`,
    averaged in each stage, before the next refines the boxes. With
    ``test_draws.rois='kept'`` a cascade at the mean comes first, and all
    stages draw for the proposals that it detects something in."""

    def predict_bbox(
        self,
        x: tuple[Tensor, ...],
        batch_img_metas: list[dict],
        rpn_results_list: list,
        rcnn_test_cfg: Any,
        rescale: bool = False,
    ) -> list:
        """mmdet's, of the RoIs that are kept."""
        rpn_results_list = kept_proposals(
            self, x, batch_img_metas, rpn_results_list, rcnn_test_cfg
        )
        return super().predict_bbox(
            x, batch_img_metas, rpn_results_list, rcnn_test_cfg, rescale
        )

    def _bbox_forward(
        self, stage: int, x: tuple[Tensor, ...], rois: Tensor
    ) -> dict:
        if self.training or collecting(False):
            return super()._bbox_forward(stage, x, rois)
        x, drawn = rois_of_draws(x, rois)
        results = super()._bbox_forward(stage, x, drawn)
        for name in ('cls_score', 'bbox_pred'):
            results[name] = mean_over_draws(results[name], len(rois))
        return results
