import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, TRANSFORMS, init_default_scope
from mmpretrain.datasets import CIFAR10, CUB
from mmpretrain.evaluation import Accuracy
from PIL import Image
from scipy.io import savemat

from mmaib.classification.datasets import (
    STL10,
    SVHN,
    CropToBox,
    CUBWithBoxes,
)
from mmaib.testing import REPOSITORY

PAGES = dict(
    SVHN='http://ufldl.stanford.edu/housenumbers/',
    STL10='https://cs.stanford.edu/~acoates/stl10/',
    CUBWithBoxes='https://www.vision.caltech.edu/datasets/cub_200_2011/',
)
RESIZED = [
    dict(type='Resize', scale=(16, 8)),
    dict(type='ResizeEdge', scale=4, edge='short'),
    dict(type='PackInputs'),
]


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmpretrain')


def build(name, root, **fields):
    return DATASETS.build(
        dict(type=f'mmaib.{name}', data_root=str(root), **fields)
    )


def refused(name, root, match, error=ValueError, **fields):
    """The data set is not built, for a reason that names its folder and
    where to get it."""
    with pytest.raises(error, match=match) as caught:
        build(name, root, **fields)
    assert f"data_root='{root}'" in str(caught.value)
    assert PAGES[name] in str(caught.value)
    return str(caught.value)


def images(count, side, seed=0):
    """``(N, H, W, 3)``: no two of their rows, columns and channels agree."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, side, side, 3), np.uint8)


def test_names_resolve_in_a_fresh_process():
    code = """
from mmengine.registry import DATASETS, TRANSFORMS, init_default_scope
init_default_scope('mmpretrain')
for name in ('SVHN', 'STL10', 'CUBWithBoxes'):
    print(DATASETS.get(f'mmaib.{name}').__name__)
print(TRANSFORMS.get('mmaib.CropToBox').__name__)
"""
    out = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    names = ['SVHN', 'STL10', 'CUBWithBoxes', 'CropToBox']
    # the host says things of its own
    assert out.stdout.split()[-4:] == names, out.stderr


# --- SVHN


def write_svhn(root, split, pixels, labels, **changed):
    content = dict(X=pixels.transpose(1, 2, 3, 0), y=np.uint8([labels]).T)
    path = root / f'{split}_32x32.mat'
    savemat(path, {**content, **changed}, do_compression=True)
    return path


@pytest.fixture
def svhn(tmp_path):
    pixels = images(5, 32)
    write_svhn(tmp_path, 'train', pixels[:3], [10, 1, 9])
    write_svhn(tmp_path, 'extra', pixels[3:], [2, 10])
    return tmp_path, pixels


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


def test_svhn_splits_are_concatenated(svhn):
    root, pixels = svhn
    digits = build('SVHN', root, split=['train', 'extra'])
    found = [(sample['img'], sample['gt_label']) for sample in digits]
    np.testing.assert_array_equal([image for image, _ in found], pixels)
    assert [label for _, label in found] == [0, 1, 9, 2, 0]
    assert 'train, extra' in repr(digits)


@pytest.mark.parametrize('serialize', [True, False])
def test_a_part_of_svhn(svhn, serialize):
    root, pixels = svhn
    fields = dict(split=['train', 'extra'], serialize_data=serialize)
    for indices, kept in ((2, [0, 1]), ([4, 0], [4, 0]), (-1, [4])):
        part = build('SVHN', root, indices=indices, **fields)
        found = [part[i]['img'] for i in range(len(part))]
        np.testing.assert_array_equal(found, pixels[kept])
        whole = build('SVHN', root, **fields)
        part = whole.get_subset(indices)
        found = [part[i]['img'] for i in range(len(part))]
        np.testing.assert_array_equal(found, pixels[kept])
        assert np.shares_memory(part.images[1], whole.images[1])


def test_svhn_keeps_its_pixels_once_and_from_transforms(svhn):
    root, pixels = svhn
    digits = build('SVHN', root)
    assert digits.data_bytes.nbytes < 0.1 * pixels[:3].nbytes
    digits[0]['img'][:] = 0
    np.testing.assert_array_equal(digits[0]['img'], pixels[0])
    with pytest.raises(ValueError, match='read-only'):
        digits.images[0][0] = 0


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


@pytest.mark.parametrize(
    'split', ['val', None, 3, [], ['train', 'val'], ['train', 'train']]
)
def test_no_such_split(tmp_path, split):
    for name in ('SVHN', 'STL10'):
        with pytest.raises(ValueError, match=r"split must be .*'train'"):
            build(name, tmp_path, split=split)
    if not isinstance(split, list):
        with pytest.raises(ValueError, match=r"split must be .*'train'"):
            build('CUBWithBoxes', tmp_path, split=split)


# --- STL-10


def write_stl10(root, split, pixels, labels):
    """Byte by byte as the page says: one channel at a time, column by
    column."""
    content = bytearray()
    for image in pixels:
        for channel in range(3):
            for column in range(96):
                content += image[:, column, channel].tobytes()
    (root / f'{split}_X.bin').write_bytes(content)
    (root / f'{split}_y.bin').write_bytes(bytes(labels))


@pytest.fixture
def stl10(tmp_path):
    pixels = images(10, 96)
    write_stl10(tmp_path, 'test', pixels, range(1, 11))
    return tmp_path, pixels


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


def test_monkeys_that_are_kept_count_as_wrong(stl10):
    root, pixels = stl10
    fields = dict(split='test', label_space='cifar10', unmatched='keep')
    objects = build('STL10', root, test_mode=True, **fields)
    labels = objects.get_gt_labels()
    assert labels[7] == -1
    assert sorted({*labels}) == [-1, 0, 1, 2, 3, 4, 5, 7, 8, 9]
    np.testing.assert_array_equal(objects[7]['img'], pixels[7])
    for monkey in range(10):
        scores = torch.eye(10)[np.where(labels < 0, monkey, labels)]
        assert Accuracy.calculate(scores, labels)[0][0].item() == 90
    with pytest.raises(ValueError, match='it needs test_mode=True, got False'):
        build('STL10', root, **fields)
    # of STL-10's own labels, none is without a class
    own = build('STL10', root, split='test', unmatched='keep')
    assert own.get_gt_labels().tolist() == list(range(10))


def test_fields_of_stl10(stl10):
    root, _ = stl10
    with pytest.raises(ValueError, match="label_space must be .*'cifar'"):
        build('STL10', root, label_space='cifar')
    with pytest.raises(ValueError, match="unmatched must be .*'frog'"):
        build('STL10', root, unmatched='frog')
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


@pytest.mark.parametrize('name', ['SVHN', 'STL10'])
def test_arrays_through_the_hosts_transforms(name, svhn, stl10):
    """The host's own data set of arrays gives the same."""
    (root, _), pixels = svhn, dict(SVHN=svhn, STL10=stl10)[name][1]
    fields = dict(split='train' if name == 'SVHN' else 'test')
    packed = build(name, root, pipeline=RESIZED, **fields)[1]
    assert packed['inputs'].shape == (3, 4, 8)
    assert packed['data_samples'].gt_label.tolist() == [1]
    results = dict(img=pixels[1].copy())
    for transform in RESIZED:
        results = TRANSFORMS.build(transform)(results)
    assert torch.equal(packed['inputs'], results['inputs'])


# --- CUB

BIRDS = {
    # image id: name, label, trained on, box, height, width
    1: ('001.Albatross/a.jpg', 1, 1, '10.0 4.0 20.0 13.0', 30, 50),
    2: ('001.Albatross/b.jpg', 1, 0, '0.0 0.0 40.0 20.0', 20, 40),
    3: ('200.Yellowthroat/c.jpg', 200, 1, '5.0 2.0 36.0 99.0', 24, 40),
}
FILES = (
    'images.txt',
    'image_class_labels.txt',
    'train_test_split.txt',
    'bounding_boxes.txt',
)


@pytest.fixture
def cub(tmp_path):
    for number, bird in BIRDS.items():
        path = tmp_path / 'images' / bird[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        side = max(bird[4:])
        pixels = images(1, side, seed=number)[0, : bird[4], : bird[5]]
        Image.fromarray(pixels).save(path)
    for column, name in enumerate(FILES):
        lines = [f'{number} {bird[column]}' for number, bird in BIRDS.items()]
        (tmp_path / name).write_text('\n'.join(lines) + '\n')
    return tmp_path


def decoded(root, number):
    """BGR, as the host loads it."""
    return np.asarray(Image.open(root / 'images' / BIRDS[number][0]))[
        ..., ::-1
    ]


LOAD = dict(type='LoadImageFromFile', imdecode_backend='pillow')


def test_cub_is_the_hosts_with_boxes(cub):
    for split in ('train', 'test'):
        host = CUB(data_root=str(cub), split=split)
        birds = build('CUBWithBoxes', cub, split=split)
        assert isinstance(birds, CUBWithBoxes)
        assert birds.metainfo == host.metainfo
        assert len(birds) == len(host) == dict(train=2, test=1)[split]
        for sample, theirs in zip(birds, host, strict=True):
            boxes = sample.pop('gt_bboxes')
            assert boxes.dtype == np.float32
            assert boxes.shape == (1, 4)
            assert sample == theirs
    boxes = [s['gt_bboxes'].tolist() for s in build('CUBWithBoxes', cub)]
    assert boxes == [[[10, 4, 30, 17]], [[5, 2, 41, 101]]]
    (last,) = build('CUBWithBoxes', cub, indices=[1])
    assert last['gt_bboxes'].tolist() == boxes[1]


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


def test_birds_with_context(cub):
    crop = dict(type='mmaib.CropToBox', context=0.25)
    first, _ = build('CUBWithBoxes', cub, pipeline=[LOAD, crop])
    # 5 pixels to each side, 3.25 above and below
    np.testing.assert_array_equal(first['img'], decoded(cub, 1)[1:20, 5:35])
    assert first['gt_bboxes'].tolist() == [[5, 3, 25, 16]]
    assert 'context=0.25' in repr(CropToBox(0.25))


def test_crops_through_the_hosts_transforms(cub):
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


@pytest.mark.parametrize('context', [-0.1, float('nan'), '0.1', None])
def test_a_context_that_cannot_be(context):
    with pytest.raises((TypeError, ValueError), match='context must be'):
        CropToBox(context=context)


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


def test_a_picture_without_a_box():
    """Inference on any picture of a bird."""
    image = np.zeros((4, 5, 3), np.uint8)
    whole = CropToBox(missing='whole')(dict(img=image))
    assert whole['img'] is image
    with pytest.raises(ValueError, match='needs one box'):
        CropToBox()(dict(img=image))
    with pytest.raises(ValueError, match='missing must be one of'):
        CropToBox(missing='guess')
