"""The ADE20K configs at full size: BEiT-base, 150 classes, 512x512, on a few
photographs with random labels in ADE20K's layout."""

from pathlib import Path

import mmseg
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images
from support import REPOSITORY
from support.segmentation import BEIT, UPERNET

TOOLS = {
    'ours': REPOSITORY / 'tools',
    'mmseg': Path(mmseg.__file__).parent / '.mim' / 'tools',
}
OPTIONS = [
    'model.pretrained=None',  # BEiT's weights come with no package
    'train_cfg.max_iters=2',
    'train_cfg.val_interval=2',
    'default_hooks.checkpoint.interval=2',
    'default_hooks.logger.interval=1',
    'train_dataloader.num_workers=1',
    'val_dataloader.num_workers=1',
    'val_dataloader.dataset.indices=1',  # two windows, two draws each
]
# One image a process: BatchNorm would see one value behind the pooling.
SINGLE = [
    'train_dataloader.batch_size=1',
    'model.decode_head.norm_cfg.type=GN',
    'model.decode_head.norm_cfg.num_groups=32',
]
BASE = {'decode.loss_ce', 'aux.loss_ce'}
KL = {'loss_kl'}
ANCHORS = {'loss_vq', 'loss_commit'}


@pytest.fixture(scope='session')
def ade20k(tmp_path_factory):
    """Folder in the layout of ADEChallengeData2016."""
    root = tmp_path_factory.mktemp('ade')
    rng = np.random.default_rng(0)
    for split in ('training', 'validation'):
        for kind in ('images', 'annotations'):
            (root / kind / split).mkdir(parents=True)
        for i, photograph in enumerate(load_sample_images().images):
            blocks = rng.integers(0, 151, (7, 10), dtype=np.uint8)
            labels = np.kron(blocks, np.ones((61, 64), np.uint8))
            assert labels.shape == photograph.shape[:2]
            name = f'ADE_{split}_{i:08d}'
            Image.fromarray(photograph).save(
                root / 'images' / split / f'{name}.jpg'
            )
            Image.fromarray(labels).save(
                root / 'annotations' / split / f'{name}.png'
            )
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'tools', 'options', 'losses'),
    [
        ('aib-qt_', 'ours', [], BASE | KL | ANCHORS),
        ('aib-qt_', 'mmseg', SINGLE, BASE | KL | ANCHORS),
        ('aib_', 'ours', SINGLE, BASE | KL),
        ('', 'ours', SINGLE, BASE),
    ],
)
def test_ade20k_config_trains_and_evaluates(
    run, scalars, tmp_path, ade20k, name, tools, options, losses
):
    roots = [
        f'{loader}.dataset.data_root={ade20k}'
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader')
    ]
    run(
        TOOLS[tools] / 'train.py', UPERNET / f'{name}{BEIT}',
        '--work-dir', tmp_path,
        '--cfg-options', *OPTIONS, *roots, *options,
    )  # fmt: skip
    entries = scalars(tmp_path)
    steps = [entry for entry in entries if 'loss' in entry]
    assert len(steps) == 2
    for step in steps:
        found = {k for k in step if 'loss_' in k}
        assert found == losses
        assert all(np.isfinite(step[k]) for k in found)
    assert 0 <= entries[-1]['mIoU'] <= 100
    assert (tmp_path / 'iter_2.pth').exists()
