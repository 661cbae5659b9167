from __future__ import annotations

import torch
from mmdet.models import CascadeRoIHead, StandardRoIHead
from torch import Tensor

from mmaib.draws import mean_over_draws
from mmaib.registry import MODELS


class FeatureDraws(tuple):
    """The mean of L_a drawn features, one a level, with the draws beside it.

    Whatever in the host knows nothing of draws (RPN, mask head) sees an
    ordinary tuple of N features a level.

    Attributes:
        draws: ``(L_a * N, ...)`` a level, draw by draw.
    """

    draws: tuple[Tensor, ...]


def rois_of_draws(
    x: tuple[Tensor, ...], rois: Tensor
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Features of all draws, and each RoI once in each of them."""
    if not isinstance(x, FeatureDraws):
        return x, rois
    # Draw l of image n is row l * N + n of the drawn features.
    batch, x = len(x[0]), x.draws
    maps = len(x[0]) // batch
    drawn = rois.repeat(maps, 1, 1)
    drawn[..., 0] += batch * torch.arange(maps, device=rois.device).unsqueeze(
        1
    )
    return x, drawn.flatten(0, 1)


def mean_of_rois(results: dict, count: int) -> dict:
    """What a head gives for the RoIs of all draws, averaged over them."""
    for name in ('cls_score', 'bbox_pred'):
        results[name] = mean_over_draws(results[name], count)
    return results


@MODELS.register_module()
class AIBRoIHead(StandardRoIHead):
    """RoI head that runs all draws as one batch and averages them.

    In evaluation class logits and box deltas are averaged over the L_a * L_z
    draws before softmax, decoding and NMS. Without draws it is mmdet's.
    """

    def _bbox_forward(self, x: tuple[Tensor, ...], rois: Tensor) -> dict:
        if self.training:
            return super()._bbox_forward(x, rois)
        x, drawn = rois_of_draws(x, rois)
        return mean_of_rois(super()._bbox_forward(x, drawn), len(rois))


@MODELS.register_module()
class AIBCascadeRoIHead(CascadeRoIHead):
    """mmdet's ``CascadeRoIHead`` with the draws of :class:`AIBRoIHead`,
    averaged in each stage, before the next refines the boxes."""

    def _bbox_forward(
        self, stage: int, x: tuple[Tensor, ...], rois: Tensor
    ) -> dict:
        if self.training:
            return super()._bbox_forward(stage, x, rois)
        x, drawn = rois_of_draws(x, rois)
        return mean_of_rois(super()._bbox_forward(stage, x, drawn), len(rois))
