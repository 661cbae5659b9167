import numpy as np
import pytest
from dataset_files import PAGES, build, images, refused, write_svhn
from mmengine.registry import DATASETS
from scipy.io import savemat

from mmaib.datasets.classification import SVHN


def test_svhn_is_read_pixel_by_pixel(svhn):
    root, pixels = svhn
    digits = build('SVHN', root, split='train')
    assert isinstance(digits, SVHN)
    assert digits.metainfo['classes'] == tuple('0123456789')
    assert len(digits) == 3
    for i, label in enumerate([0, 1, 9]):
        sample = digits[i]
        assert set(sample) == {'img', 'gt_label', 'sample_idx'}
        assert type(sample['gt_label']) is int
        assert sample['gt_label'] == label
        assert sample['img'].dtype == np.uint8
        assert sample['img'].flags.c_contiguous
        np.testing.assert_array_equal(sample['img'], pixels[i])
    assert digits.get_gt_labels().tolist() == [0, 1, 9]
    assert digits.get_cat_ids(2) == [9]


def test_svhn_splits_are_concatenated_by_the_base_library(svhn):
    root, pixels = svhn
    parts = [
        dict(type='mmaib.SVHN', data_root=str(root), split=split)
        for split in ('train', 'extra')
    ]
    digits = DATASETS.build(dict(type='ConcatDataset', datasets=parts))
    found = [(sample['img'], sample['gt_label']) for sample in digits]
    np.testing.assert_array_equal([image for image, _ in found], pixels)
    assert [label for _, label in found] == [0, 1, 9, 2, 0]


@pytest.mark.parametrize('serialize', [True, False])
def test_a_part_of_svhn(svhn, serialize):
    root, pixels = svhn
    fields = dict(split='train', serialize_data=serialize)
    for indices, kept in ((2, [0, 1]), ([2, 0], [2, 0]), (-1, [2])):
        part = build('SVHN', root, indices=indices, **fields)
        found = [part[i]['img'] for i in range(len(part))]
        np.testing.assert_array_equal(found, pixels[kept])
        whole = build('SVHN', root, **fields)
        part = whole.get_subset(indices)
        found = [part[i]['img'] for i in range(len(part))]
        np.testing.assert_array_equal(found, pixels[kept])
        assert np.shares_memory(part.images, whole.images)


def test_svhn_keeps_its_pixels_once_and_from_transforms(svhn):
    root, pixels = svhn
    digits = build('SVHN', root)
    assert digits.data_bytes.nbytes < 0.1 * pixels[:3].nbytes
    digits[0]['img'][:] = 0
    np.testing.assert_array_equal(digits[0]['img'], pixels[0])
    with pytest.raises(ValueError, match='read-only'):
        digits.images[0] = 0


@pytest.mark.parametrize('lazy', [True, False])
def test_svhn_that_is_not_there(svhn, lazy):
    root, _ = svhn
    if lazy:
        digits = build('SVHN', root, split='test', lazy_init=True)
        with pytest.raises(FileNotFoundError, match='test_32x32.mat'):
            len(digits)
        return
    said = refused(
        'SVHN',
        root,
        r"test_32x32.mat' does not exist",
        FileNotFoundError,
        split='test',
    )
    assert f'wget -P data/svhn {PAGES["SVHN"]}test_32x32.mat' in said


@pytest.mark.parametrize('compressed', [True, False])
@pytest.mark.parametrize('part', [0, 0.01, 0.5, 0.9, 0.999])
def test_svhn_that_was_cut_off(tmp_path, part, compressed):
    path = tmp_path / 'train_32x32.mat'
    content = dict(X=images(3, 32).transpose(1, 2, 3, 0), y=np.ones((3, 1)))
    savemat(path, content, do_compression=compressed)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    refused('SVHN', tmp_path, r"train_32x32.mat' (cannot be read|has \['X'\])")


@pytest.mark.parametrize(
    ('changed', 'match'),
    [
        (dict(X=np.zeros((3, 32, 32, 3), np.uint8)), r'\(3, 32, 32, 3\)'),
        (dict(X=np.zeros((32, 32, 3), np.uint8)), r'\(32, 32, 3\), uint8; it'),
        (dict(X=np.zeros((32, 32, 3, 3))), 'float64; it must be .* uint8'),
        (dict(y=np.uint8([[1], [2]])), '2 labels for 3 images'),
        (dict(y=np.uint8([[1], [0], [11]])), r'\[0, 11\].* 1 to 10'),
        (dict(y=np.array([[1], [2.5], [3]])), r'\[2.5\].* 1 to 10'),
        (dict(y=np.array([[1], [np.nan], [3]])), r'\[nan\].* 1 to 10'),
    ],
)
def test_svhn_with_other_contents(tmp_path, changed, match):
    write_svhn(tmp_path, 'train', images(3, 32), [1, 2, 3], **changed)
    refused('SVHN', tmp_path, rf"train_32x32.mat' has .*{match}")


def test_svhn_is_another_file(tmp_path):
    path = tmp_path / 'train_32x32.mat'
    path.write_bytes(b'<html>404 not found</html>' * 10)
    refused('SVHN', tmp_path, r"train_32x32.mat' cannot be .*260 bytes")
    savemat(path, dict(digitStruct=np.zeros(2)))
    refused('SVHN', tmp_path, r'has \[\], it must have X and y')
