from __future__ import annotations

from typing import Any

import torch
from mmdet.models import StandardRoIHead
from mmdet.models.layers import multiclass_nms
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmaib.losses import collecting
from mmaib.registry import MODELS
from mmaib.sampling.draws import Draws, current, mean_over_draws
from mmaib.sampling.uncertainty import combine


class FeatureDraws(tuple):
    """The mean of L_a drawn features, one a level, with the draws beside it.

    Whatever in the base model is not sampled (RPN, mask head) sees an
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


def kept_proposals(
    head: Any, x: tuple[Tensor, ...], metas: list[dict], found: list, cfg: Any
) -> list:
    """The proposals of each image that a pass at the mean detects something
    in; all of them unless ``rois='kept'``.

    Args:
        head: a RoI head.
        x: features, their draws beside them.
        metas: of each image.
        found: proposals of each image.
        cfg: ``test_cfg`` of the head; None before NMS, where all count.
    """
    if cfg is None or not current().kept_rois:
        return found
    bbox_head = head.bbox_head
    if isinstance(bbox_head, nn.ModuleList):  # a cascade's
        bbox_head = bbox_head[-1]
    with Draws().open():
        means = head.predict_bbox(tuple(x), metas, found, None)
    kept = []
    for one, mean in zip(found, means):
        if len(one):
            *_, inds = multiclass_nms(
                mean.bboxes,
                mean.scores,
                cfg.score_thr,
                cfg.nms,
                cfg.max_per_img,
                return_inds=True,
                box_dim=bbox_head.bbox_coder.encode_size,
            )
            one = one[(inds // (mean.scores.size(1) - 1)).unique()]
        kept.append(one)
    return kept


@MODELS.register_module()
class AIBRoIHead(StandardRoIHead):
    """RoI head that runs all draws as one batch and averages them.

    In evaluation class logits (or probabilities, by ``test_draws.average``)
    and box deltas are averaged over the L_a * L_z draws before decoding and
    NMS. Without draws it is mmdet's. With ``test_draws.rois='kept'`` a
    deterministic pass, at the mean of latents and of drawn features, selects
    RoIs by score and NMS; these alone are sampled, and NMS runs on their
    averages. Of a RoI that is kept the result is that of ``'all'``. With
    ``test_draws.uncertainty`` each detection has

    ============= =====================================================
    ``score_std`` of its class's probability, over the draws
    ``bbox_std``  of its decoded coordinates, in pixels as they are
    ``entropy``   of the mean probabilities of all classes and of none, in
                  nats
    ============= =====================================================
    """

    def _bbox_forward(self, x: tuple[Tensor, ...], rois: Tensor) -> dict:
        # frozen, it is in evaluation within a training step
        if self.training or collecting(False):
            return super()._bbox_forward(x, rois)
        x, drawn = rois_of_draws(x, rois)
        results = super()._bbox_forward(x, drawn)
        rows = len(rois)
        scores, boxes = results['cls_score'], results['bbox_pred']
        mean, results['measures'] = combine(
            scores.split(rows), lambda: mean_over_draws(scores, rows)
        )
        results.update(
            drawn=(scores, boxes),
            cls_score=mean,
            bbox_pred=mean_over_draws(boxes, rows),
        )
        return results

    def predict(
        self,
        x: tuple[Tensor, ...],
        rpn_results_list: list,
        batch_data_samples: list,
        rescale: bool = False,
    ) -> list:
        """mmdet's, the stds in the pixels of its boxes."""
        found = super().predict(
            x, rpn_results_list, batch_data_samples, rescale
        )
        if rescale and self.with_mask:  # mmdet's masks scale the boxes late
            for one, sample in zip(found, batch_data_samples):
                if 'bbox_std' in one:
                    scale = one.bbox_std.new_tensor(sample.scale_factor)
                    one.bbox_std = one.bbox_std / scale.repeat(2)
        return found

    def predict_bbox(
        self,
        x: tuple[Tensor, ...],
        batch_img_metas: list[dict],
        rpn_results_list: list,
        rcnn_test_cfg: Any,
        rescale: bool = False,
    ) -> list:
        """mmdet's; with uncertainty the same, and how each detection that
        NMS keeps differs over the draws."""
        rpn_results_list = kept_proposals(
            self, x, batch_img_metas, rpn_results_list, rcnn_test_cfg
        )
        if rcnn_test_cfg is None or not current().uncertainty:
            return super().predict_bbox(
                x, batch_img_metas, rpn_results_list, rcnn_test_cfg, rescale
            )
        proposals = [found.bboxes for found in rpn_results_list]
        sizes = [len(boxes) for boxes in proposals]
        rois = bbox2roi(proposals)
        if not len(rois):
            return [
                _nothing(rois, self.bbox_head.bbox_coder.encode_size)
                for _ in sizes
            ]
        results = self._bbox_forward(x, rois)

        def decoded(scores: Tensor, deltas: Tensor) -> list[Tensor]:
            """Scores, then boxes, of every RoI of each image."""
            found = self.bbox_head.predict_by_feat(
                rois=rois.split(sizes),
                cls_scores=scores.split(sizes),
                bbox_preds=deltas.split(sizes),
                batch_img_metas=batch_img_metas,
                rcnn_test_cfg=None,
                rescale=rescale,
            )
            return [
                torch.cat([one.scores, one.bboxes], dim=1)
                for one, size in zip(found, sizes)
                if size
            ]

        draws = zip(*(part.split(len(rois)) for part in results['drawn']))
        each = [torch.cat(decoded(*draw)).float() for draw in draws]
        std = torch.stack(each).std(0)
        found = iter(decoded(results['cls_score'], results['bbox_pred']))
        stds, entropies = (
            iter(part.split([size for size in sizes if size]))
            for part in (std, results['measures']['entropy'])
        )
        return [
            self._kept(next(found), next(stds), next(entropies), rcnn_test_cfg)
            if size
            else _nothing(rois, self.bbox_head.bbox_coder.encode_size)
            for size in sizes
        ]

    def _kept(
        self, found: Tensor, std: Tensor, entropy: Tensor, cfg: Any
    ) -> InstanceData:
        """What NMS keeps of an image's ``(R, C + 1 + 4 C)`` scores and boxes
        (``+ 4``, if they know no classes; 5 of rotated ones)."""
        classes = self.bbox_head.num_classes
        numbers = self.bbox_head.bbox_coder.encode_size
        scores, boxes = found[:, : classes + 1], found[:, classes + 1 :]
        kept, labels, inds = multiclass_nms(
            boxes,
            scores,
            cfg.score_thr,
            cfg.nms,
            cfg.max_per_img,
            return_inds=True,
            box_dim=numbers,
        )
        rows = inds // classes
        box_std = std[:, classes + 1 :].unflatten(1, (-1, numbers))
        of_class = labels if box_std.size(1) > 1 else 0
        return InstanceData(
            bboxes=kept[:, :-1],
            scores=kept[:, -1],
            labels=labels,
            score_std=std[rows, labels],
            bbox_std=box_std[rows, of_class],
            entropy=entropy[rows],
        )


def _nothing(like: Tensor, numbers: int) -> InstanceData:
    """No detections."""
    none = like.new_zeros(0)
    return InstanceData(
        bboxes=like.new_zeros(0, numbers),
        scores=none,
        labels=none.long(),
        score_std=none,
        bbox_std=like.new_zeros(0, numbers),
        entropy=none,
    )
