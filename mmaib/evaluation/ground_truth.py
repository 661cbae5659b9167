"""Where the objects of an image are, for maps to be held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmaib.functional import corners, enclosing
from mmaib.layers.image_cells import image_box


def object_mask(
    sample: Mapping[str, Any],
    foreground: Sequence[int] | None,
    ignore_index: int,
) -> tuple[Tensor, Tensor] | None:
    """What is to be found, and which positions are known to be that or not,
    in two masks of ``ori_shape``; None without a ground truth. Not known are
    the positions in ignored or crowd boxes that no other box has, and void
    pixels.

    Args:
        sample: a data sample as a dict.
        foreground: classes of a segmentor.
        ignore_index: of its void pixels.
    """
    if 'bboxes' in sample.get('gt_instances', {}):
        size = sample['ori_shape'][:2]
        mask = _inside(boxes_of(sample['gt_instances']['bboxes']), *size)
        ignored = sample.get('ignored_instances', {})
        if 'bboxes' not in ignored:
            return mask, torch.ones_like(mask)
        return mask, mask | ~_inside(boxes_of(ignored['bboxes']), *size)
    if 'gt_bboxes' in sample:
        # of a classifier, on the image as it was resized
        height, width = sample['ori_shape'][:2]
        top, bottom, left, right = image_box(sample)
        boxes = boxes_of(sample['gt_bboxes'])
        x, y = width / (right - left), height / (bottom - top)
        boxes = boxes - boxes.new_tensor([left, top, left, top])
        mask = _inside(boxes * boxes.new_tensor([x, y, x, y]), height, width)
        return mask, torch.ones_like(mask)
    if foreground is not None and 'gt_sem_seg' in sample:
        labels = sample['gt_sem_seg']['data'][0].cpu()
        mask = torch.isin(labels, torch.tensor(foreground))
        return mask, labels != ignore_index
    return None


def misplaced(
    sample: Mapping[str, Any], foreground: Sequence[int] | None
) -> str | None:
    """Why the ground truth of an image does not lie on it, if so: a transform
    resized one and not the other. As :func:`object_mask` takes them."""
    size, slack = sample.get('ori_shape', (0, 0))[:2], 0
    if 'bboxes' in sample.get('gt_instances', {}):
        boxes = enclosing(boxes_of(sample['gt_instances']['bboxes']))
        # some data sets have boxes that reach over the edge, none beyond it
        reach = boxes[:, :2]
    elif 'gt_bboxes' in sample:
        _, bottom, _, right = image_box(sample)
        boxes, size, slack = boxes_of(sample['gt_bboxes']), (bottom, right), 1
        reach = boxes[:, 2:]
    elif foreground is not None and 'gt_sem_seg' in sample:
        mask = tuple(sample['gt_sem_seg']['data'].shape[-2:])
        if mask == tuple(size):
            return None
        return f'{_name(sample)}: a mask of {mask} on an image of {size}'
    else:
        return None
    limit = boxes.new_tensor([size[1] + slack, size[0] + slack])
    beyond = (reach > limit) if slack else (reach >= limit)
    if not beyond.any():
        return None
    box = boxes[beyond.any(1)][0].round().long().tolist()
    return f'{_name(sample)}: box {box} on an image of {tuple(size)}'


def separating(dataset: Any) -> str | None:
    """The transform of a data set's pipeline after which boxes and image no
    longer belong together, as its first sample shows; None if there is none.

    A classifier's boxes must follow the image. A detector's must stay, since
    they are held against the original: ``LoadAnnotations`` belongs after
    what resizes. Of data sets that are not MMEngine's it is not known.
    """
    while inner := getattr(dataset, 'datasets', None):
        dataset = inner[0]
    transforms = getattr(getattr(dataset, 'pipeline', None), 'transforms', ())
    if not (transforms and len(dataset) and hasattr(dataset, 'get_data_info')):
        return None
    results = dataset.get_data_info(0)
    for transform in transforms:
        image, boxes = _seen(results)
        results = transform(results)
        if results is None:  # a pipeline may refuse an image
            return None
        changed, moved = _seen(results)
        if image is None or changed is None or not (boxes and moved):
            continue
        height, width = map(min, image.shape[:2], changed.shape[:2])
        padded = np.array_equal(
            image[:height, :width], changed[:height, :width]
        )
        stays = boxes[1] == moved[1]
        if not padded and image.shape != changed.shape and stays != boxes[0]:
            return type(transform).__name__
    return None


def _seen(results: Mapping[str, Any]) -> tuple[Any, Any]:
    """The image of a pipeline's results, and its boxes: whether they are a
    detector's, and what they are."""
    image, boxes = results.get('img'), results.get('gt_bboxes')
    if not isinstance(image, np.ndarray) or boxes is None or not len(boxes):
        return None, None
    return image, (hasattr(boxes, 'tensor'), boxes_of(boxes).tolist())


def _name(sample: Mapping[str, Any]) -> str:
    return str(sample.get('img_path') or sample.get('sample_idx', 'an image'))


def boxes_of(boxes: Any) -> Tensor:
    """``(N, 4)``, or more of rotated ones, of whatever holds them, on the
    CPU."""
    found = torch.as_tensor(getattr(boxes, 'tensor', boxes)).cpu()
    found = found if found.is_floating_point() else found.float()
    return found if found.numel() or found.dim() > 1 else found.view(0, 4)


def box_overlaps(boxes: Tensor, others: Tensor, mode: str = 'iou') -> Tensor:
    """``(N, M)``, the IoU of boxes, or by ``'iof'`` the share of each of the
    first that is in the others. Rotated ones by mmcv's ``box_iou_quadri``,
    which may err where edges lie on one line."""
    if boxes.size(-1) == others.size(-1) == 4:
        from mmdet.structures.bbox import bbox_overlaps

        return bbox_overlaps(boxes, others, mode)
    from mmcv.ops import box_iou_quadri

    points = (corners(x.float()).flatten(-2) for x in (boxes, others))
    return box_iou_quadri(*points, mode)


def _inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """The pixels in one box or more; of rotated ones, those whose centres
    are."""
    mask = torch.zeros(height, width, dtype=torch.bool)
    around = enclosing(boxes)
    if boxes.size(-1) != 4:
        around = torch.cat([around[:, :2].floor(), around[:, 2:].ceil()], 1)
    edges = around.round().long().clamp(min=0).tolist()
    for points, (left, top, right, bottom) in zip(corners(boxes), edges):
        part = mask[top:bottom, left:right]
        part |= (
            True if boxes.size(-1) == 4 else _between(points, part, left, top)
        )
    return mask


def _between(points: Tensor, part: Tensor, left: int, top: int) -> Tensor:
    """Which pixels of a part of a mask that begins there lie on one side of
    all edges of a convex polygon."""
    rows, columns = (torch.arange(n).to(points) + 0.5 for n in part.shape)
    x, y = columns + left, rows[:, None] + top
    (x1, y1), (x2, y2) = (
        ends.T[:, :, None, None] for ends in (points, points.roll(-1, 0))
    )
    side = (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1)
    return (side >= 0).all(0) | (side <= 0).all(0)
