"""Detections as targets: a two-stage detector's box as a RoI, a query of a set
predictor, and by positions.py a one-stage detector's position that made the
box."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from mmaib.functional import enclosing, moved
from mmaib.layers.image_cells import image_box
from mmaib.models.known import OUTPUTS, find

from .places import Features
from .positions import position_target
from .targets import TOLERANCE, Target, name_of


def detections(
    model: Any,
    features: Features,
    sample: Any,
    score_thr: float = 0.3,
    label: int | None = None,
    at_most: int = 20,
) -> list[Target]:
    """A target for each detection of an image.

    Args:
        model: a detector.
        features: what its head receives of the image.
        sample: the image's data sample, preprocessed.
        score_thr: of the detections.
        label: of the detections; any by default.
        at_most: so many, the best.

    Raises:
        ValueError: if there is none, or the head's score cannot be traced
            to a position.
    """
    make = _detection_kind(model)
    with torch.no_grad():
        found = predicted(model, features, [sample])[0]
    keep = found.scores >= score_thr
    if label is not None:
        keep &= found.labels == label
    if not keep.any():
        best = (
            f'the best of all is {found.scores.max().item():.2f}'
            if len(found)
            else "the model finds nothing above its config's own threshold, "
            '--cfg-options model.test_cfg.score_thr=0 or, with a RoI head, '
            'model.test_cfg.rcnn.score_thr=0'
        )
        of_class = '' if label is None else f' of {name_of(model, label)!r}'
        raise ValueError(
            f'no detection{of_class} with a score of at least {score_thr:g}: '
            f'{best}'
        )
    found = found[keep][:at_most]
    return [
        make(model, features, sample, box, int(one), float(score))
        for box, one, score in zip(found.bboxes, found.labels, found.scores)
    ]


def missed(
    model: Any, features: Features, sample: Any, box: Tensor, label: int
) -> Target:
    """A box that a two-stage detector did not find, as a class: what its RoI
    head says of it.

    Args:
        model: a detector.
        features: what its head receives of the image.
        sample: the image's data sample, preprocessed.
        box: ``(4,)`` or rotated ``(5,)``, in pixels of the model's input.
        label: of the class.

    Raises:
        ValueError: if the box lies outside the image, the head has no such
            class, or the detector no RoI head.
    """
    first, last, begin, end = image_box(sample.metainfo)
    left, top, right, bottom = enclosing(box)
    # half a pixel for the rounding of scales
    if not (
        begin <= left < right <= end + 0.5
        and first <= top < bottom <= last + 0.5
    ):
        raise ValueError(
            f'--missed {[round(v, 1) for v in box.tolist()]}: not a box '
            f'inside the image of {end - begin} x {last - first} pixels, as '
            'the model receives it'
        )
    make = _detection_kind(model)
    if make is _roi_target:
        heads = model.roi_head.bbox_head
        head: Any = heads[0] if isinstance(heads, nn.ModuleList) else heads
        if label >= head.num_classes:
            raise ValueError(
                f'--as: class {label}, the head has {head.num_classes}, 0 to '
                f'{head.num_classes - 1}'
            )
        return make(model, features, sample, box, label, None)
    raise ValueError(
        f'--missed: {type(model).__name__} has no RoI head that could judge a '
        'box of yours; give --class for what it found'
    )


def predicted(model: Any, features: Features, samples: list) -> list:
    """Instances that a detector finds on each image, in pixels of its
    input."""
    if hasattr(model, 'roi_head'):
        proposals = model.rpn_head.predict(features, samples, rescale=False)
        found = model.roi_head.predict(
            features, proposals, samples, rescale=False
        )
    elif hasattr(model, 'forward_transformer'):
        given = model.forward_transformer(features, samples)
        found = model.bbox_head.predict(
            **given, rescale=False, batch_data_samples=samples
        )
    elif hasattr(model, 'bbox_head_refine'):
        with patch.object(model, 'extract_feat', return_value=features):
            whole = model.predict(None, copy.deepcopy(samples), rescale=False)
        found = [sample.pred_instances for sample in whole]
    else:
        found = model.bbox_head.predict(features, samples, rescale=False)
    for one in found:
        one.bboxes = getattr(one.bboxes, 'tensor', one.bboxes)
    return found


def _detection_kind(model: Any) -> Callable[..., Target]:
    if hasattr(model, 'roi_head'):
        # a query's feature in the RoI head is no region of the image's
        if find(OUTPUTS, type(model)) != 'set':
            return _roi_target
    elif hasattr(model, 'forward_transformer'):
        return _query_target
    elif hasattr(model, 'bbox_head_refine') or (
        getattr(model, 'bbox_head', None) is not None
    ):
        return position_target
    raise ValueError(
        f'{type(model).__name__} is no detector whose detections can be '
        'traced to its features: explained are two-stage detectors with an '
        'RPN and a RoI head, one-stage detectors and DETRs'
    )


def _roi_target(
    model: Any,
    features: Features,
    sample: Any,
    box: Tensor,
    label: int,
    score: float | None,
) -> Target:
    """A box as a RoI of the base model's own RoI head; of a cascade the mean
    of its stages, as the base library's."""
    head = model.roi_head
    stages = range(getattr(head, 'num_stages', 0))

    def probabilities(features: Features, box: Tensor, *stage: int) -> Tensor:
        bbox_head, extractor = (
            part[stage[0]] if stage else part
            for part in (head.bbox_head, head.bbox_roi_extractor)
        )
        box = _as_taken(extractor, box)
        count = len(features[0])
        images = torch.arange(count).to(box)[:, None]
        rois = torch.cat([images, box.expand(count, -1)], 1)
        logits = head._bbox_forward(*stage, features, rois)['cls_score']
        if getattr(bbox_head, 'custom_cls_channels', False):
            return bbox_head.loss_cls.get_activation(logits)
        return logits.softmax(1)

    def scores_at(box: Tensor) -> Callable[[Features], Tensor]:
        def log_scores(features: Features) -> Tensor:
            if not stages:
                found = probabilities(features, box)
            else:
                each = [probabilities(features, box, s) for s in stages]
                found = torch.stack(each).mean(0)
            return found[:, label].clamp(min=1e-12).log()

        return log_scores

    box = box.detach()
    log_scores = scores_at(box)
    with torch.no_grad():
        own = log_scores(features).exp().item()

    def shifted(left: int, top: int, _: Features) -> Callable:
        return scores_at(moved(box, -left, -top))

    return Target(
        label, name_of(model, label), own, log_scores, box, shifted=shifted
    )


def _as_taken(extractor: Any, box: Tensor) -> Tensor:
    """A box, rotated or not, as a RoI extractor takes it."""
    if 'Rotated' not in type(extractor.roi_layers[0]).__name__:
        return enclosing(box)
    if len(box) == 4:
        sides = box[2:] - box[:2]
        return torch.cat([box[:2] + sides / 2, sides, sides.new_zeros(1)])
    return box


def _query_target(
    model: Any,
    features: Features,
    sample: Any,
    box: Tensor,
    label: int,
    score: float,
) -> Target:
    """The query of a set predictor that made a detection."""
    head = model.bbox_head

    def log_of_queries(features: Features) -> Tensor:
        samples = [sample] * len(features[0])
        seen: list[Any] = []
        with head.register_forward_hook(lambda *given: seen.append(given[2])):
            given = model.forward_transformer(features, samples)
            head.predict(**given, rescale=False, batch_data_samples=samples)
        logits = seen[-1][0][-1]
        if head.loss_cls.use_sigmoid:
            return torch.nn.functional.logsigmoid(logits)
        return logits.log_softmax(-1)

    with torch.no_grad():
        far = log_of_queries(features)[0, :, label].exp() - score
    query = int(far.abs().argmin())
    if far.abs()[query] > TOLERANCE:
        raise ValueError(
            f'{type(head).__name__}: no query has the score of the '
            f'detection, {score:.3f}'
        )

    def log_scores(features: Features) -> Tensor:
        return log_of_queries(features)[:, query, label]

    return Target(
        label, name_of(model, label), score, log_scores, box.detach()
    )
