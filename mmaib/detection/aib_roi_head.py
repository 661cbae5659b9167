from __future__ import annotations

import torch
from mmdet.models import StandardRoIHead
from torch import Tensor

from mmaib.registry import MODELS


class FeatureDraws(tuple):
    """Features of the mean map, one a level, that also carry L_a draws.

    Whatever in the host knows nothing of draws (RPN, mask head) sees an
    ordinary tuple of N features a level.

    Attributes:
        draws: features of each drawn map, ``(L_a * N, ...)`` a level.
        num_draws: L_a.
        latent_draws: L_z, None for the mean latent.
        generator: source of the latent's noise.
    """

    draws: tuple[Tensor, ...]
    num_draws: int
    latent_draws: int | None
    generator: torch.Generator


@MODELS.register_module()
class AIBRoIHead(StandardRoIHead):
    """RoI head that runs all draws as one batch and averages them.

    Class logits and box deltas are averaged over the L_a * L_z draws before
    softmax, decoding and NMS. Without draws it is mmdet's.
    """

    def _bbox_forward(self, x: tuple[Tensor, ...], rois: Tensor) -> dict:
        if not isinstance(x, FeatureDraws):
            return super()._bbox_forward(x, rois)
        batch = x[0].size(0)
        # Draw l of image n is row l * N + n of the drawn features.
        offset = torch.arange(x.num_draws, device=rois.device) * batch
        drawn_rois = rois.repeat(x.num_draws, 1, 1)
        drawn_rois[..., 0] += offset[:, None]
        roi_feats = self.bbox_roi_extractor(
            x.draws[: self.bbox_roi_extractor.num_inputs],
            drawn_rois.flatten(0, 1),
        )
        if self.with_shared_head:
            roi_feats = self.shared_head(roi_feats)
        cls_score, bbox_pred = self.bbox_head(
            roi_feats, x.latent_draws, x.generator
        )
        draws = (x.num_draws * (x.latent_draws or 1), len(rois))
        return dict(
            cls_score=cls_score.unflatten(0, draws).mean(0),
            bbox_pred=bbox_pred.unflatten(0, draws).mean(0),
            bbox_feats=roi_feats,
        )
