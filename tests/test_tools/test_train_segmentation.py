"""A sample segmentor from training to pictures, through our tools and
mmseg's own."""

from pathlib import Path

import mmseg
import numpy as np
import pytest
from support import DIGITS, NO_WORKERS, REPOSITORY

OUR_TOOLS = REPOSITORY / 'tools'
MMSEG_TOOLS = Path(mmseg.__file__).parent / '.mim' / 'tools'
SHORT = [
    'train_cfg.max_iters=2',
    'train_cfg.val_interval=2',
    'train_dataloader.batch_size=2',
    *NO_WORKERS,
    'val_dataloader.dataset.indices=3',
    'default_hooks.logger.interval=1',
    'default_hooks.checkpoint.interval=2',
    'custom_hooks.0.interval=2',
]
SLIDE = [
    'model.test_cfg.mode=slide',
    'model.test_cfg.crop_size=(96,96)',
    'model.test_cfg.stride=(32,32)',
]


@pytest.mark.parametrize('tools', ['ours', 'mmseg'])
def test_from_training_to_pictures(run, scalars, data, tmp_path, tools):
    folder = {'ours': OUR_TOOLS, 'mmseg': MMSEG_TOOLS}[tools]
    work_dir = tmp_path / 'work'
    run(
        folder / 'train.py', DIGITS, '--work-dir', work_dir,
        '--cfg-options', *SHORT, *SLIDE,
    )  # fmt: skip
    entries = scalars(work_dir)
    steps = [entry for entry in entries if 'loss' in entry]
    assert len(steps) == 2
    for name in (
        'decode.loss_ce', 'loss_kl', 'loss_vq', 'loss_commit', 'kl_nats',
        'anchors_used', 'anchor_perplexity', 'attention_mean',
    ):  # fmt: skip
        assert all(np.isfinite(step[name]) for step in steps), name
    (evaluation,) = (entry for entry in entries if 'mIoU' in entry)
    assert 0 <= evaluation['mIoU'] <= 100
    assert 0 <= evaluation['attention/auc'] <= 1
    (drops,) = (entry for entry in entries if 'ablation/mirror/mIoU' in entry)
    assert {'ablation/flatten/mIoU', 'ablation/shuffle/mIoU'} < set(drops)
    pictures = list(work_dir.glob('*/vis_data/vis_image/attention_*.png'))
    assert len(pictures) == 2
    checkpoint = work_dir / 'iter_2.pth'
    if tools == 'mmseg':
        return
    run(
        folder / 'test.py', DIGITS, checkpoint,
        '--work-dir', tmp_path / 'test', '--cfg-options', *SHORT[5:8],
    )  # fmt: skip
    command = [
        'mmaib', 'visualize', DIGITS, checkpoint,
        data / 'digits' / 'img_dir' / 'val', '--max-images', 1,
    ]  # fmt: skip
    run(*command, '--out', tmp_path / 'whole')
    run(*command, '--out', tmp_path / 'slide', '--cfg-options', *SLIDE)
    for name, side in {'whole': 8, 'slide': 128}.items():
        mean = np.load(tmp_path / name / '0000.level0.npy')
        quantized = np.load(tmp_path / name / '0000.level0.quantized.npy')
        assert mean.shape == quantized.shape == (side, side)
        assert ((mean >= 0) & (mean <= 1)).all()
        assert mean.std() > 0
        assert len(np.unique(quantized)) <= 20
        assert (tmp_path / name / '0000.png').stat().st_size > 10_000


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            ['val_dataloader.dataset.data_prefix.img_path=nowhere'],
            'val_dataloader.dataset.data_prefix.img_path:',
        ),
        (
            ['model.neck.map=each'],
            "map must be one of ['per_level', 'shared']",
        ),
        (['model.pretrained=beit.pth'], "model.pretrained: 'beit.pth'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else '',
)
def test_bad_input_is_told_before_training(run, tmp_path, options, message):
    out = run(
        OUR_TOOLS / 'train.py', DIGITS, '--work-dir', tmp_path / 'work',
        '--cfg-options', *options, check=False,
    )  # fmt: skip
    assert message in out, out[-2000:]
    assert not list((tmp_path / 'work').glob('*.pth'))
