"""Broken data, disks and numbers, through the commands that users type: each
gets a message that names it, and nothing on the disk is lost."""

import functools
import hashlib
import json
import re
import shutil
import subprocess

import pytest
from PIL import Image
from support import DIGITS, NO_WORKERS, REPOSITORY, TREES

from mmaib.preflight.checkpoint import read_checkpoint

TRAIN = REPOSITORY / 'tools' / 'train.py'
COMMON = [
    'train_dataloader.batch_size=2',
    *NO_WORKERS,
    'val_dataloader.dataset.indices=2',
    'default_hooks.logger.interval=1',
]
SHORT = {
    TREES: [
        *COMMON,
        'train_cfg.max_epochs=1',
        'train_dataloader.dataset.indices=4',
    ],
    DIGITS: [
        *COMMON,
        'train_cfg.max_iters=4',
        'default_hooks.checkpoint.interval=1',
    ],
}
ANNOTATIONS, IMAGES = 'trees/annotations/train.json', 'digits/img_dir/train'


def digests(folder):
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob('*')
        if path.is_file()
    }


def edit(change):
    """Change the trees' annotations."""

    @functools.wraps(change)
    def change_file(data):
        path = data / ANNOTATIONS
        coco = json.loads(path.read_text())
        change(coco)
        path.write_text(json.dumps(coco))

    return change_file


def cut(name, part=0.5):
    def cut_file(data):
        path = data / name
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])

    return cut_file


def shrink_images_and_masks(data):
    for kind in ('img_dir', 'ann_dir'):
        for path in (data / f'digits/{kind}/train').iterdir():
            Image.open(path).crop((0, 0, 1, 1)).save(path)


def shrink_images(data):
    for path in (data / 'trees/train').iterdir():
        Image.open(path).crop((0, 0, 1, 1)).save(path)

    def shrink(coco):
        for image in coco['images']:
            image.update(width=1, height=1)
        for annotation in coco['annotations']:
            annotation.update(bbox=[0, 0, 1, 1], area=1)

    edit(shrink)(data)


def resize_masks(data):
    for path in (data / 'digits/ann_dir/train').iterdir():
        Image.open(path).resize((64, 64)).save(path)


def relabel_masks(data):
    for path in (data / 'digits/ann_dir/train').iterdir():
        Image.eval(Image.open(path), lambda label: label + 77).save(path)


def rename_images(data):
    for path in (data / IMAGES).iterdir():
        path.rename(path.with_suffix('.JPG'))


def cut_images(data):
    for path in (data / IMAGES).iterdir():
        cut(path)(data)


def empty_images(data):
    for path in (data / IMAGES).iterdir():
        path.write_bytes(b'')


@edit
def move_boxes(coco):
    for annotation in coco['annotations'][::3]:
        annotation['bbox'][0] = 400


@edit
def flatten_boxes(coco):
    for annotation in coco['annotations'][::4]:
        annotation['bbox'][2] = 0


@edit
def add_a_category(coco):
    coco['categories'].append(dict(id=2, name='bush'))
    for annotation in coco['annotations'][::5]:
        annotation['category_id'] = 2


@edit
def rename_the_category(coco):
    coco['categories'][0]['name'] = 'Tree'


@pytest.mark.parametrize(
    ('base', 'breaks', 'message', 'trains'),
    [
        (DIGITS, cut_images, r"0\d+\.jpg' is broken or cut off", False),
        (DIGITS, empty_images, r"0\d+\.jpg' is empty", False),
        (DIGITS, resize_masks, r"0\d+\.png' has \(64, 64\)", False),
        (DIGITS, shrink_images_and_masks, r'has \(1, 1\)', False),
        (DIGITS, relabel_masks, r'32 of 32 images .* has the values', False),
        (DIGITS, rename_images, r'has no image: img_suffix=', False),
        (TREES, shrink_images, r'coco/bbox_mAP:', True),
        (TREES, move_boxes, r'666 of 1997 boxes lie outside', True),
        (TREES, flatten_boxes, r'500 of 1997 boxes have no area', True),
        (TREES, add_a_category, r"400 of 1997 .* of 'bush'", True),
        (TREES, rename_the_category, r"none of .*\['tree'\].*Tree", False),
        (TREES, cut(ANNOTATIONS), r'train\.json.* is no whole JSON', False),
    ],
    ids=lambda value: getattr(value, '__name__', ''),
)
def test_broken_data_are_named(
    run, data, tmp_path, base, breaks, message, trains
):
    broken = tmp_path / 'data'
    shutil.copytree(data, broken)
    breaks(broken)
    before = digests(broken)
    out = run(
        TRAIN, base, '--work-dir', tmp_path / 'work', '--cfg-options',
        *SHORT[base], check=False, data_root=broken,
    )  # fmt: skip
    assert re.search(message, out), out[-3000:]
    assert (out.returncode == 0) == trains
    assert any((tmp_path / 'work').glob('*.pth')) == trains
    assert digests(broken) == before


def test_broken_images_are_skipped_if_asked(run, data, tmp_path):
    broken = tmp_path / 'data'
    shutil.copytree(data, broken)
    for path in sorted((broken / IMAGES).iterdir())[::2]:
        path.write_bytes(b'')
    out = run(
        TRAIN, DIGITS, '--work-dir', tmp_path / 'work', '--cfg-options',
        *SHORT[DIGITS],
        'train_dataloader.dataset.pipeline.0.broken=skip',
        data_root=broken,
    )  # fmt: skip
    assert '1 broken so far' in out


def test_a_nan_stops_the_training_before_a_checkpoint(run, probed, tmp_path):
    config = probed(DIGITS)
    with config.open('a') as file:
        file.write(
            'train_pipeline = _base_.train_pipeline\n'
            "train_pipeline.insert(-1, dict(type='Poison', call=7))\n"
            'train_dataloader = dict(dataset=dict(pipeline=train_pipeline))\n'
        )
    work_dir = tmp_path / 'work'
    out = run(
        TRAIN, config, '--work-dir', work_dir, '--cfg-options',
        *SHORT[DIGITS], 'train_cfg.max_iters=5', check=False,
    )  # fmt: skip
    assert out.returncode == 1
    assert re.search(
        r'FloatingPointError: \d of \d+ values of the input are not finite'
        r'.*img_dir/train/\d+\.jpg \(iteration 4, rank 0\)',
        out,
    ), out[-3000:]
    last = read_checkpoint((work_dir / 'last_checkpoint').read_text())
    assert last['meta']['iter'] == 3
    assert all(value.isfinite().all() for value in last['state_dict'].values())


@pytest.fixture
def small_disk(tmp_path):
    """A disk that holds one checkpoint and no second."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=80m', 'tmpfs', str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip('mounting a small tmpfs needs root')
    yield folder
    subprocess.run(['umount', str(folder)], check=True)


def test_a_full_disk_leaves_the_last_checkpoint(run, small_disk):
    out = run(
        TRAIN, DIGITS, '--work-dir', small_disk / 'work',
        '--cfg-options', *SHORT[DIGITS], check=False,
    )  # fmt: skip
    assert out.returncode == 1
    assert re.search(
        r'No space left on device: a checkpoint of \d+\.\d MiB.*iter_2\.pth',
        out,
    ), out[-3000:]
    last = (small_disk / 'work' / 'last_checkpoint').read_text()
    assert last.endswith('iter_1.pth')
    assert read_checkpoint(last)['meta']['iter'] == 1
    assert not list((small_disk / 'work').glob('*.partial'))


def test_another_model_is_not_resumed(run, tmp_path):
    work_dir = tmp_path / 'work'
    command = [TRAIN, DIGITS, '--work-dir', work_dir]
    options = ['--cfg-options', *SHORT[DIGITS], 'train_cfg.max_iters=1']
    run(*command, *options)
    before = digests(work_dir)
    out = run(
        *command, '--resume', *options,
        'model.neck.bottleneck.quantizer.num_anchors=50',
        'model.neck.bottleneck.modulation.init=paper', check=False,
    )  # fmt: skip
    assert out.returncode == 2
    for difference in (
        'neck.bottleneck.modulation.gate is only in it',
        'neck.bottleneck.quantizer.anchors is (20,) in it, (50,) here',
        "iter_1.pth' is of another architecture",
    ):
        assert difference in out, out[-3000:]
    after = digests(work_dir)
    assert {path: after[path] for path in before if path.suffix == '.pth'} == {
        path: digest for path, digest in before.items()
        if path.suffix == '.pth'
    }  # fmt: skip

    # and one that was cut off is named, with one that was not
    shutil.copy(work_dir / 'iter_1.pth', work_dir / 'x.pth')
    cut('iter_1.pth')(work_dir)
    out = run(*command, '--resume', *options, check=False)
    assert re.search(r"resume: .*iter_1\.pth' is not a whole.*x\.pth", out)
