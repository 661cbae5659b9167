import numpy as np
import pytest
import torch
from dataset_files import RESIZED, build, decoded
from mmengine.registry import TRANSFORMS

from mmaib.datasets.classification import CropToBox

LOAD = dict(type='LoadImageFromFile', imdecode_backend='pillow')


def test_birds_that_are_cropped(cub):
    pipeline = [LOAD, dict(type='mmaib.CropToBox')]
    first, last = build('CUBWithBoxes', cub, pipeline=pipeline)
    np.testing.assert_array_equal(first['img'], decoded(cub, 1)[4:17, 10:30])
    assert first['img_shape'] == (13, 20)
    assert first['gt_bboxes'].tolist() == [[0, 0, 20, 13]]
    # a pixel outside on the right, and far outside below
    np.testing.assert_array_equal(last['img'], decoded(cub, 3)[2:, 5:])
    assert last['gt_bboxes'].tolist() == [[0, 0, 35, 22]]
    (whole,) = build('CUBWithBoxes', cub, split='test', pipeline=pipeline)
    np.testing.assert_array_equal(whole['img'], decoded(cub, 2))


def test_crops_through_the_base_models_transforms(cub):
    pipeline = [LOAD, dict(type='mmaib.CropToBox')]
    flip = dict(type='RandomFlip', prob=1.0)
    packed = build(
        'CUBWithBoxes',
        cub,
        pipeline=[*pipeline, flip, *RESIZED[:2], dict(type='PackInputs')],
    )[0]
    results = dict(img=decoded(cub, 1)[4:17, 10:30][:, ::-1].copy())
    for transform in RESIZED:
        results = TRANSFORMS.build(transform)(results)
    assert torch.equal(packed['inputs'], results['inputs'])
    assert packed['data_samples'].img_shape == (4, 8)
    assert packed['data_samples'].gt_label.tolist() == [0]
    # mmcv's transforms take the box along
    pipeline = [LOAD, flip, *pipeline[1:]]
    mirrored = build('CUBWithBoxes', cub, pipeline=pipeline)[0]
    np.testing.assert_array_equal(
        mirrored['img'], decoded(cub, 1)[4:17, 10:30][:, ::-1]
    )


@pytest.mark.parametrize(
    'box', [[40, 0, 50, 9], [3, -8, 9, 0], [7, 7, 7, 9], [9, 0, 7, 9]]
)
def test_a_box_without_a_pixel(box):
    results = dict(
        img=np.zeros((30, 40, 3), np.uint8),
        img_path='bird.jpg',
        gt_bboxes=np.float32([box]),
    )
    with pytest.raises(ValueError, match=r"'bird.jpg': .* image, 40 x 30"):
        CropToBox()(results)


def test_images_with_no_or_two_boxes():
    results = dict(img=np.zeros((30, 40, 3), np.uint8), img_path='bird.jpg')
    for boxes in ({}, dict(gt_bboxes=np.zeros((2, 4)))):
        with pytest.raises(ValueError, match=r"one box .* 'bird.jpg'"):
            CropToBox()({**results, **boxes})


def test_a_picture_without_a_box():
    """Inference on any picture of a bird."""
    image = np.zeros((4, 5, 3), np.uint8)
    whole = CropToBox(missing='whole')(dict(img=image))
    assert whole['img'] is image
    with pytest.raises(ValueError, match='needs one box'):
        CropToBox()(dict(img=image))
    with pytest.raises(ValueError, match='missing must be one of'):
        CropToBox(missing='guess')
