"""How far two answers about one image agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .ground_truth import box_overlaps, boxes_of

IGNORED = 255


def box_agreement(
    boxes: Tensor,
    labels: Tensor,
    others: Tensor,
    other_labels: Tensor,
    threshold: float = 0.5,
) -> float:
    """F1 of two sets of boxes: twice the pairs that match, one to one and of
    one class, over the boxes in both; 1 if both are empty. The pairs of the
    highest IoU are matched first.

    Args:
        boxes, labels: ``(N, 4)``, or more of rotated ones, and ``(N,)``.
        others, other_labels: ``(M, ...)`` and ``(M,)``.
        threshold: the lowest IoU of a match.

    Example:
        >>> box = torch.tensor([[0.0, 0, 2, 2]])
        >>> box_agreement(box, torch.tensor([1]),
        ...               box.repeat(2, 1), torch.tensor([1, 1]))
        0.6666666666666666
    """
    if len(boxes) + len(others) == 0:
        return 1.0
    iou = box_overlaps(boxes, others)
    iou[labels[:, None] != other_labels] = 0
    matched = 0
    while matched < min(iou.shape):
        row, column = divmod(int(iou.argmax()), iou.shape[1])
        if iou[row, column] < threshold:
            break
        matched += 1
        iou[row], iou[:, column] = -1, -1
    return 2 * matched / (len(boxes) + len(others))


def mask_agreement(labels: Tensor, others: Tensor) -> float:
    """Mean IoU over the classes in either of two label maps of one shape;
    positions with the label 255 in either do not count.

    Example:
        >>> mask_agreement(torch.tensor([[0, 1]]), torch.tensor([[0, 0]]))
        0.25
    """
    valid = (labels != IGNORED) & (others != IGNORED)
    labels, others = labels[valid], others[valid]
    classes = torch.cat([labels.unique(), others.unique()]).unique()
    scores = [
        float((a & b).sum() / (a | b).sum())
        for a, b in ((labels == c, others == c) for c in classes)
    ]
    return sum(scores) / len(scores) if scores else 1.0


def found_boxes(instances: Any, score_thr: float) -> tuple[Tensor, Tensor]:
    """Boxes and labels of instances, of those that have a score the ones not
    below the threshold."""
    boxes = boxes_of(instances['bboxes'])
    labels = torch.as_tensor(instances['labels']).cpu()
    if 'scores' in instances:
        kept = instances['scores'].cpu() >= score_thr
        boxes, labels = boxes[kept], labels[kept]
    return boxes, labels


def to_truth(
    sample: Mapping[str, Any], score_thr: float = 0.3
) -> dict[str, float]:
    """How well the base model's prediction fits an image's ground truth.

    Args:
        sample: ``to_dict()`` of a data sample with predictions.
        score_thr: detections below do not count.

    Returns:
        ``{'base/F1': ...}``, boxes matched at IoU 0.5; ``{'base/IoU': ...}``,
        mean over the classes in the image; ``{'base/p_true': ...}``, the
        probability of the true class. Nothing without ground truth.
    """
    if 'bboxes' in sample.get('gt_instances', {}):
        found = found_boxes(sample['pred_instances'], score_thr)
        truth = found_boxes(sample['gt_instances'], score_thr)
        return {'base/F1': box_agreement(*found, *truth)}
    if 'data' in sample.get('gt_sem_seg', {}):
        labels = sample['pred_sem_seg']['data'][0].cpu()
        truth = sample['gt_sem_seg']['data'][0].cpu()
        return {'base/IoU': mask_agreement(labels, truth)}
    if 'gt_label' in sample and 'pred_score' in sample:
        scores = sample['pred_score'].cpu()
        return {'base/p_true': float(scores[int(sample['gt_label'][0])])}
    return {}
