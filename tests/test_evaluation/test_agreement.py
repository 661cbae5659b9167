"""Agreement of two answers, against brute force and the base libraries'
libraries."""

from itertools import permutations

import pytest
import torch
from mmdet.structures.bbox import bbox_overlaps

from mmaib.evaluation.agreement import (
    box_agreement,
    found_boxes,
    mask_agreement,
    to_truth,
)


def boxes(number, seed):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(number, 2, generator=generator) * 20
    sides = torch.rand(number, 2, generator=generator) * 20 + 1
    return torch.cat([corners, corners + sides], 1)


def test_boxes_are_matched_one_to_one():
    box = torch.tensor([[0.0, 0, 10, 10]])
    near = torch.tensor([[0.0, 0, 10, 9], [0, 0, 9, 10], [30, 30, 40, 40]])
    ones = torch.ones(3, dtype=torch.long)
    assert box_agreement(box, ones[:1], near, ones) == 2 / 4
    assert box_agreement(box, 0 * ones[:1], near, ones) == 0
    assert box_agreement(near, ones, near.flip(0), ones) == 1
    none = torch.zeros(0, 4), ones[:0]
    assert box_agreement(*none, *none) == 1
    assert box_agreement(*none, near, ones) == 0


def test_thresholds_belong_to_what_agrees():
    """A half to the bit matches, and a score of the threshold counts."""
    whole, half = torch.tensor([[[0.0, 0, 10, 20]], [[0.0, 0, 10, 10]]])
    label = torch.zeros(1).long()
    assert box_agreement(whole, label, half, label) == 1
    found = dict(bboxes=whole, labels=label, scores=torch.tensor([0.25]))
    assert len(found_boxes(found, 0.25)[0]) == 1


@pytest.mark.parametrize('seed', range(5))
def test_as_many_as_any_matching_finds_where_boxes_lie_apart(seed):
    """Greedy is not the best there is in general, but close to it."""
    a, b = boxes(4, seed), boxes(4, seed)
    b = b + torch.rand(4, 4) * 4
    labels = torch.zeros(4, dtype=torch.long)
    iou = bbox_overlaps(a, b)
    best = max(
        sum(bool(iou[i, j] >= 0.5) for i, j in enumerate(order))
        for order in permutations(range(4))
    )
    found = box_agreement(a, labels, b, labels) * 4
    assert best - 1 <= found <= best


def test_masks_by_hand():
    a = torch.tensor([[0, 0, 1, 1], [2, 2, 255, 1]])
    b = torch.tensor([[0, 1, 1, 1], [2, 2, 0, 255]])
    # class 0: 1 of 2; class 1: 2 of 3; class 2: 2 of 2
    assert mask_agreement(a, b) == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)
    assert mask_agreement(a, a) == 1
    assert mask_agreement(torch.full((2, 2), 255), a[:, :2]) == 1


def detection(boxes, labels, scores):
    return dict(
        pred_instances=dict(
            bboxes=torch.tensor(boxes), labels=torch.tensor(labels),
            scores=torch.tensor(scores),
        )
    )  # fmt: skip


def test_against_the_truth():
    found = detection([[0.0, 0, 9, 9], [20, 20, 30, 30]], [0, 1], [0.9, 0.1])
    found['gt_instances'] = dict(
        bboxes=torch.tensor([[0.0, 0, 9, 8], [20, 20, 30, 30]]),
        labels=torch.tensor([0, 1]),
    )
    assert to_truth(found) == {'base/F1': pytest.approx(2 / 3)}
    found['gt_instances']['bboxes'][0, 3] = 5.0  # an IoU of 5 / 9
    assert to_truth(found) == {'base/F1': pytest.approx(2 / 3)}
    mask = dict(
        pred_sem_seg=dict(data=torch.tensor([[[0, 0]]])),
        gt_sem_seg=dict(data=torch.tensor([[[0, 1]]])),
    )
    assert to_truth(mask) == {'base/IoU': 0.25}
    label = dict(
        pred_score=torch.tensor([0.25, 0.75]), gt_label=torch.tensor([1])
    )
    assert to_truth(label) == {'base/p_true': 0.75}
    assert to_truth(dict(pred_score=torch.tensor([1.0]))) == {}
