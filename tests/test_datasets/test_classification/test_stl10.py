import numpy as np
import pytest
from dataset_files import build, refused
from mmpretrain.datasets import CIFAR10

from mmaib.datasets.classification import STL10


def test_stl10_is_read_pixel_by_pixel(stl10):
    root, pixels = stl10
    objects = build('STL10', root, split='test')
    assert isinstance(objects, STL10)
    assert len(objects) == 10
    for i, sample in enumerate(objects):
        assert sample['gt_label'] == i
        np.testing.assert_array_equal(sample['img'], pixels[i])
        assert sample['img'].flags.c_contiguous
    names = objects.metainfo['classes']
    assert ' '.join(names) == (
        'airplane bird car cat deer dog horse monkey ship truck'
    )


def test_stl10_for_a_classifier_of_cifar10(stl10):
    root, pixels = stl10
    fields = dict(split='test', label_space='cifar10')
    objects = build('STL10', root, **fields)
    theirs = CIFAR10.METAINFO['classes']
    assert objects.metainfo['classes'] == theirs
    names = [theirs[sample['gt_label']] for sample in objects]
    assert ' '.join(names) == (
        'airplane bird automobile cat deer dog horse ship truck'
    )
    kept = [0, 1, 2, 3, 4, 5, 6, 8, 9]
    np.testing.assert_array_equal([s['img'] for s in objects], pixels[kept])
    few = build('STL10', root, indices=[7, 8], **fields)
    np.testing.assert_array_equal([s['img'] for s in few], pixels[8:])


def test_fields_of_stl10(stl10):
    root, _ = stl10
    with pytest.raises(ValueError, match="label_space must be .*'cifar'"):
        build('STL10', root, label_space='cifar')
    names = [*'abcdefghij']
    for given in (dict(classes=names), dict(metainfo=dict(classes=names))):
        objects = build(
            'STL10', root, split='test', label_space='cifar10', **given
        )
        assert list(objects.metainfo['classes']) == names


@pytest.mark.parametrize('name', ['test_X.bin', 'test_y.bin'])
def test_stl10_that_is_not_there(stl10, name):
    root, _ = stl10
    (root / name).unlink()
    said = refused(
        'STL10',
        root,
        rf"/{name}' does not exist",
        FileNotFoundError,
        split='test',
    )
    assert 'tar xzf stl10_binary.tar.gz -C data/' in said


def test_stl10_that_was_cut_off(stl10):
    root, _ = stl10
    path = root / 'test_X.bin'
    whole = path.read_bytes()
    for size in (0, 1, len(whole) - 1):
        path.write_bytes(whole[:size])
        match = rf"test_X.bin' has {size} bytes; .* multiple of 27648"
        refused('STL10', root, match, split='test')
    path.write_bytes(whole[: 2 * 27648])
    refused(
        'STL10', root, "test_y.bin' has 10 labels for 2 images", split='test'
    )
    path.write_bytes(whole)
    (root / 'test_y.bin').write_bytes(bytes(range(10)))
    refused('STL10', root, r"test_y.bin' has labels \[0\]", split='test')
