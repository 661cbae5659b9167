import numpy as np
import pytest
from dataset_files import BIRDS, FILES, build, refused
from mmpretrain.datasets import CUB

from mmaib.datasets.classification import CUBWithBoxes


def test_cub_is_the_base_models_with_boxes(cub):
    for split in ('train', 'test'):
        base = CUB(data_root=str(cub), split=split)
        birds = build('CUBWithBoxes', cub, split=split)
        assert isinstance(birds, CUBWithBoxes)
        assert birds.metainfo == base.metainfo
        assert len(birds) == len(base) == dict(train=2, test=1)[split]
        for sample, theirs in zip(birds, base, strict=True):
            boxes = sample.pop('gt_bboxes')
            assert boxes.dtype == np.float32
            assert boxes.shape == (1, 4)
            assert sample == theirs
    boxes = [s['gt_bboxes'].tolist() for s in build('CUBWithBoxes', cub)]
    assert boxes == [[[10, 4, 30, 17]], [[5, 2, 41, 101]]]
    (last,) = build('CUBWithBoxes', cub, indices=[1])
    assert last['gt_bboxes'].tolist() == boxes[1]


@pytest.mark.parametrize('name', FILES)
def test_files_of_cub_that_are_not_there_or_cut_off(cub, name):
    lines = (cub / name).read_text().splitlines()
    (cub / name).write_text('\n'.join(lines[:-1]))
    refused('CUBWithBoxes', cub, 'has [23] image ids, .* has [23]: .* cut off')
    (cub / name).write_text('\n'.join([*lines[:-1], '3']))
    match = rf"/{name}' has '3' in line 3; it must be an image id and [14]"
    refused('CUBWithBoxes', cub, match)
    (cub / name).unlink()
    said = refused(
        'CUBWithBoxes', cub, rf"/{name}' does not exist", FileNotFoundError
    )
    assert 'tar xzf CUB_200_2011.tgz -C data/' in said


@pytest.mark.parametrize(
    ('name', 'line', 'match'),
    [
        ('image_class_labels.txt', '3 201', r"\['201'\]; 1 to 200 fit"),
        ('image_class_labels.txt', '3 0', r"\['0'\]; 1 to 200 fit"),
        ('train_test_split.txt', '3 2', r"\['2'\]; 0 to 1 fit"),
        ('bounding_boxes.txt', '3 1 2 0.0 9', 'box 1 2 0.0 9 of image 3'),
        ('bounding_boxes.txt', '3 1 2 9 -1', 'box 1 2 9 -1 of image 3'),
        ('bounding_boxes.txt', '3 1 2 nan 9', 'box 1 2 nan 9 of image 3'),
        ('bounding_boxes.txt', '3 1 2 inf 9', 'box 1 2 inf 9 of image 3'),
        ('bounding_boxes.txt', '3 1 2 9 x', 'box 1 2 9 x of image 3'),
        ('bounding_boxes.txt', 'id 1 2 9 9', "'id 1 2 9 9' in line 3"),
    ],
)
def test_files_of_cub_with_other_contents(cub, name, line, match):
    lines = (cub / name).read_text().splitlines()
    (cub / name).write_text('\n'.join([*lines[:-1], line]))
    refused('CUBWithBoxes', cub, rf"/{name}' has .*{match}")


def test_birds_that_are_not_there(cub):
    (cub / 'images' / BIRDS[3][0]).unlink()
    match = r"1 of 2 images are not there: .*c.jpg' does not exist"
    refused('CUBWithBoxes', cub, match, FileNotFoundError)
    build('CUBWithBoxes', cub, split='test')
