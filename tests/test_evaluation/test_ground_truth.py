"""What counts as an object, what as none, and what is not known."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.datasets import CocoDataset
from mmengine.config import ConfigDict
from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.fileio import dump
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from PIL import Image
from torch import nn

from mmaib.evaluation import AttentionMetric
from mmaib.evaluation.ground_truth import (
    box_overlaps,
    boxes_of,
    misplaced,
    object_mask,
    separating,
)
from mmaib.functional import corners, enclosing, scaled
from mmaib.hooks import AttentionEvalHook
from mmaib.layers import AttentiveBottleneck, CapturedMap


def mask_by_hand(boxes, height, width):
    mask = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            mask[y, x] = any(
                left <= x < right and top <= y < bottom
                for left, top, right, bottom in boxes
            )
    return torch.from_numpy(mask)


def test_boxes_of_whole_numbers_and_of_none():
    sample = dict(
        gt_bboxes=torch.tensor([[20, 20, 80, 80]]),
        ori_shape=(300, 300),
        img_shape=(200, 200),
    )
    whole, _ = object_mask(sample, None, 255)
    floats = dict(sample, gt_bboxes=sample['gt_bboxes'].float())
    assert torch.equal(whole, object_mask(floats, None, 255)[0])
    assert int(whole.sum()) == 90**2
    assert len(boxes_of([])) == 0
    assert boxes_of([]).size(1) == 4


def test_crowds_are_not_known_where_no_box_is():
    sample = dict(
        gt_instances=dict(bboxes=torch.tensor([[2.0, 1, 8, 6]])),
        ignored_instances=dict(bboxes=torch.tensor([[5.0, 3, 14, 9]])),
        ori_shape=(10, 16),
    )
    mask, known = object_mask(sample, None, 255)
    assert torch.equal(mask, mask_by_hand([[2, 1, 8, 6]], 10, 16))
    crowd = mask_by_hand([[5, 3, 14, 9]], 10, 16)
    assert torch.equal(known, ~crowd | mask)
    sample.pop('ignored_instances')
    assert object_mask(sample, None, 255)[1].all()


@pytest.mark.parametrize('ignore', [255, 7])
def test_void_pixels_are_not_known(ignore):
    labels = torch.randint(3, (1, 10, 16))
    labels[:, 4:7] = ignore
    sample = dict(gt_sem_seg=dict(data=labels), ori_shape=(10, 16))
    mask, known = object_mask(sample, [1], ignore)
    assert torch.equal(mask, labels[0] == 1)
    assert torch.equal(known, labels[0] != ignore)
    assert object_mask(sample, None, ignore) is None


def test_a_perfect_map_loses_nothing_by_void():
    """Half of the image is void, and the map is bright there."""
    labels = torch.randint(2, (1, 12, 16))
    labels[:, :6] = 255
    attention = (labels[None] > 0).float()
    sample = dict(
        gt_sem_seg=dict(data=labels), ori_shape=(12, 16), img_shape=(12, 16)
    )
    maps = [CapturedMap(attention, norms=[attention])]
    metric = AttentionMetric(foreground=[1], tolerance=0)
    scores = metric.scores(maps, 0, sample)
    for name in ('auc', 'energy', 'pointing', 'catching', 'iou'):
        assert scores[name] == 1, name
    assert scores['area'] == (labels[0, 6:] == 1).double().mean()
    # as background it would be half wrong
    blind = AttentionMetric(foreground=[1], ignore_index=254)
    assert blind.scores(maps, 0, sample)['iou'] < 0.6


def write_coco(folder):
    """Two photographs, one with a crowd."""
    for name in 'ab':
        image = np.random.default_rng(0).integers(0, 255, (60, 80, 3))
        Image.fromarray(image.astype(np.uint8)).save(folder / f'{name}.png')
    boxes = [(1, [10, 8, 20, 30], 0), (1, [40, 8, 30, 30], 1),
             (2, [45, 30, 30, 25], 0)]  # fmt: skip
    annotations = [
        dict(id=i, image_id=image, category_id=1, bbox=box, iscrowd=crowd,
             area=100, segmentation=[])
        for i, (image, box, crowd) in enumerate(boxes, 1)
    ]  # fmt: skip
    images = [
        dict(id=i, file_name=f'{name}.png', height=60, width=80)
        for i, name in enumerate('ab', 1)
    ]
    coco = dict(
        images=images, annotations=annotations,
        categories=[dict(id=1, name='cell')],
    )  # fmt: skip
    dump(coco, folder / 'coco.json')


LOAD = dict(type='LoadImageFromFile')
BOXES = dict(type='LoadAnnotations', with_bbox=True)
RESIZE = dict(type='Resize', scale=(200, 120), keep_ratio=True)
PAD = dict(type='Pad', size=(200, 200))
PACK = dict(type='PackDetInputs')


def coco(folder, *pipeline):
    init_default_scope('mmdet')
    return CocoDataset(
        ann_file=str(folder / 'coco.json'),
        data_prefix=dict(img=str(folder)),
        metainfo=dict(classes=('cell',)),
        pipeline=[*pipeline, PACK],
        test_mode=True,
    )


def test_crowds_of_a_coco_file(tmp_path):
    write_coco(tmp_path)
    dataset = coco(tmp_path, LOAD, RESIZE, BOXES, PAD)
    sample = dataset[0]['data_samples'].to_dict()
    mask, known = object_mask(sample, None, 255)
    assert torch.equal(mask, mask_by_hand([[10, 8, 30, 38]], 60, 80))
    assert torch.equal(known, ~mask_by_hand([[40, 8, 70, 38]], 60, 80))


def test_a_detectors_boxes_stay_on_the_original(tmp_path):
    write_coco(tmp_path)
    good = [LOAD, RESIZE, BOXES, PAD], [LOAD, BOXES, PAD], [LOAD, BOXES]
    for pipeline in good:
        assert separating(coco(tmp_path, *pipeline)) is None
    late = coco(tmp_path, LOAD, BOXES, RESIZE, PAD)
    assert separating(late) == 'Resize'
    assert separating(ConcatDataset([late])) == 'Resize'
    # which shows in those images alone whose boxes come to lie outside
    found = [misplaced(s['data_samples'].to_dict(), None) for s in late]
    assert found[0] is None
    assert 'b.png: box [90, 60, 150, 110] on an image of (60, 80)' in found[1]


class Objects(BaseDataset):
    """Photographs of one object each, whose boxes are known."""

    def load_data_list(self):
        return [
            dict(img_path=path, gt_bboxes=np.array([box], float), gt_label=0)
            for path, box in self.metainfo['objects']
        ]


def objects(tmp_path, *pipeline, size=(60, 80)):
    init_default_scope('mmpretrain')
    rows = []
    for number, box in enumerate(([4, 6, 20, 30], [10, 5, 78, 58])):
        image = np.random.default_rng(number).integers(0, 255, (*size, 3))
        path = str(tmp_path / f'{number}.png')
        Image.fromarray(image.astype(np.uint8)).save(path)
        rows.append((path, box))
    keys = ('img_path', 'ori_shape', 'img_shape', 'scale_factor', 'gt_bboxes')
    dataset = Objects(metainfo=dict(objects=rows), pipeline=[])
    dataset.pipeline = Compose(
        [LOAD, *pipeline, dict(type='PackInputs', meta_keys=keys)]
    )
    return dataset


@pytest.mark.parametrize(
    ('transform', 'name'),
    [
        (dict(type='ResizeEdge', scale=40), 'ResizeEdge'),
        (dict(type='ResizeEdge', scale=128), 'ResizeEdge'),
        (dict(type='EfficientNetCenterCrop', crop_size=32),
         'EfficientNetCenterCrop'),
        (dict(type='Resize', scale=(32, 32)), None),
        (dict(type='Resize', scale=(100, 100), keep_ratio=True), None),
        (dict(type='CenterCrop', crop_size=50), None),
        (dict(type='Pad', size=(128, 128)), None),
        (dict(type='Pad', size_divisor=32), None),
    ],
)  # fmt: skip
def test_a_classifiers_boxes_follow_the_image(transform, name, tmp_path):
    assert separating(objects(tmp_path, transform)) == name


@pytest.mark.parametrize('by', ['probe', 'box'])
def test_misplaced_images_are_counted_and_named(by, tmp_path, monkeypatch):
    dataset = objects(tmp_path, dict(type='ResizeEdge', scale=40))
    samples = [dataset[i]['data_samples'].to_dict() for i in range(2)]
    # of 40x53 pixels: the second box does not fit in
    assert misplaced(samples[0], None) is None
    assert '1.png: box [10, 5, 78, 58] on an image of (40, 53)' in misplaced(
        samples[1], None
    )
    said = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'warning', said.append)
    metric = AttentionMetric()
    attention = torch.rand(2, 1, 5, 7)
    with metric.watching(torch.nn.Identity(), dataset if by == 'probe' else 0):
        metric._maps = [CapturedMap(attention, norms=[attention])]
        metric.process({}, samples)
    found = metric.compute_metrics(metric.results)
    assert found['contrast'] > 0
    assert ('auc' in found) == (by == 'box')
    (warning,) = said
    count, what = (
        ('2 of 2', 'ResizeEdge changes one')
        if by == 'probe'
        else ('1 of 2', '1.png: box [10, 5, 78, 58]')
    )
    assert count in warning
    assert what in warning


def test_a_mask_of_another_size_is_misplaced():
    data = PixelData(data=torch.zeros(1, 30, 40))
    sample = dict(
        gt_sem_seg=dict(data=data.data), ori_shape=(60, 80), sample_idx=5
    )
    assert misplaced(sample, [1]) == (
        '5: a mask of (30, 40) on an image of (60, 80)'
    )
    assert misplaced(sample, None) is None
    assert misplaced(dict(sample, ori_shape=(30, 40)), [1]) is None


def test_of_other_data_sets_nothing_is_known():
    assert separating([1, 2]) is None
    assert separating(ConfigDict(pipeline=None)) is None


def test_the_hook_looks_at_the_data_set(tmp_path):
    dataset = objects(tmp_path, dict(type='ResizeEdge', scale=40))
    metric, model = AttentionMetric(), nn.Sequential(AttentiveBottleneck(3))
    loop = SimpleNamespace(
        evaluator=SimpleNamespace(metrics=[metric]),
        dataloader=SimpleNamespace(dataset=dataset),
    )
    hook = AttentionEvalHook()
    hook._before_epoch(SimpleNamespace(model=model, val_loop=loop), 'val')
    reason = metric._misplaced(dataset[0]['data_samples'].to_dict())
    assert reason == 'ResizeEdge changes one and not the other'
    hook._after_epoch(None, 'val')


@pytest.mark.parametrize('eight', [False, True])
def test_rotated_boxes_have_the_pixels_whose_centres_are_inside(eight):
    boxes = torch.tensor([[14.0, 9, 17, 6, 0.5], [30, 3, 9, 9, 0.8]])
    given = corners(boxes).flatten(1) if eight else boxes
    sample = dict(gt_instances=dict(bboxes=given), ori_shape=(20, 32))
    mask, known = object_mask(sample, None, 255)
    assert known.all()
    for y in range(20):
        for x in range(32):
            inside = [
                cv2.pointPolygonTest(one, (x + 0.5, y + 0.5), True)
                for one in corners(boxes).numpy()
            ]
            if min(map(abs, inside)) > 1e-3:
                assert mask[y, x] == (max(inside) > 0)
    assert misplaced(sample, None) is None
    assert 'box' in misplaced(dict(sample, ori_shape=(20, 8)), None)


def test_overlaps_of_rotated_boxes():
    """By counting a tenth of a pixel."""
    boxes = torch.tensor([[10.0, 9, 12, 6, 0.5], [14, 9, 9, 7, -0.8]])
    masks = [
        object_mask(
            dict(
                gt_instances=dict(bboxes=scaled(box[None], 10, 10)),
                ori_shape=(200, 260),
            ),
            None,
            255,
        )[0]
        for box in boxes
    ]
    both = (masks[0] & masks[1]).sum()
    first, second = (
        float(box_overlaps(boxes[:1], boxes[1:], mode))
        for mode in ('iou', 'iof')
    )
    assert first == pytest.approx(
        float(both / (masks[0] | masks[1]).sum()), abs=5e-3
    )
    assert second == pytest.approx(float(both / masks[0].sum()), abs=5e-3)
    assert torch.allclose(
        box_overlaps(enclosing(boxes), boxes, 'iof').diag(),
        boxes[:, 2:4].prod(1)
        / (enclosing(boxes)[:, 2:] - enclosing(boxes)[:, :2]).prod(1),
        atol=1e-3,
    )
