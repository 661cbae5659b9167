"""A sample config from training to pictures, through our tools and mmdet's
own."""

from pathlib import Path
from types import SimpleNamespace

import mmdet
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from support import NO_WORKERS, REPOSITORY, TREES

from mmaib.cli.train import apply_options
from mmaib.models.base_checkpoint import join
from mmaib.preflight.checkpoint import read_checkpoint

OUR_TOOLS = REPOSITORY / 'tools'
PLAIN = TREES.with_name('faster-rcnn_lite0_fpn_6e_trees-256.py')
READOUT = TREES.with_name('readout_faster-rcnn_lite0_fpn_3e_trees-256.py')
MMDET_TOOLS = Path(mmdet.__file__).parent / '.mim' / 'tools'
SHORT = [
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=1',
    'train_dataloader.dataset.indices=12',
    *NO_WORKERS,
    'val_dataloader.dataset.indices=2',
    'default_hooks.logger.interval=1',
    'custom_hooks.0.interval=1',
]


@pytest.mark.parametrize('tools', ['ours', 'mmdet'])
def test_from_training_to_pictures(run, scalars, data, tmp_path, tools):
    folder = {'ours': OUR_TOOLS, 'mmdet': MMDET_TOOLS}[tools]
    work_dir = tmp_path / 'work'
    run(
        folder / 'train.py', TREES, '--work-dir', work_dir,
        '--cfg-options', *SHORT,
    )  # fmt: skip
    entries = scalars(work_dir)
    steps = [entry for entry in entries if 'loss' in entry]
    assert len(steps) == 3
    for name in (
        'loss_kl_cls', 'loss_kl_reg', 'loss_vq', 'loss_commit', 'kl_nats',
        'anchors_used', 'anchor_perplexity', 'attention_mean',
        'attention_std',
        'attention_contrast',
        'attention_saturated',
    ):  # fmt: skip
        assert all(np.isfinite(step[name]) for step in steps), name
    found = {name for entry in entries for name in entry}
    changes = ('mirror', 'flatten', 'shuffle')
    assert {
        'coco/bbox_mAP', 'attention/auc', 'attention/contrast',
        *(f'ablation/{change}/coco/bbox_mAP' for change in changes),
    } <= found  # fmt: skip
    pictures = list(work_dir.glob('*/vis_data/vis_image/attention_*.png'))
    assert len(pictures) == 2
    checkpoint = work_dir / 'epoch_1.pth'
    if tools == 'mmdet':
        return
    run('mmaib', 'report', work_dir, '--title', 'Trees')
    page = (work_dir / 'report.html').read_text()
    assert len(page) < 15e6
    for text in (
        'aria-label="loss_vq"',
        'lost by mirror',
        'finished, epoch 1',
        '--title Trees',  # of the command
    ):
        assert text in page
    assert page.count('<figure ') == 2  # what the hook drew
    run(
        folder / 'test.py', TREES, checkpoint,
        '--work-dir', tmp_path / 'test',
        '--out', tmp_path / 'predictions.pkl',
    )  # fmt: skip
    assert (tmp_path / 'predictions.pkl').stat().st_size > 1000
    run(
        'mmaib', 'visualize', TREES, checkpoint,
        data / 'trees' / 'test', '--out', tmp_path / 'maps',
        '--max-images', 1,
    )  # fmt: skip
    assert (tmp_path / 'maps' / '0000_0000.png').stat().st_size > 10_000
    levels = [
        np.load(tmp_path / 'maps' / f'0000_0000.level{level}.npy')
        for level in range(5)
    ]
    assert [m.shape for m in levels] == [
        (side, side) for side in (64, 32, 16, 8, 4)
    ]
    assert all(((m >= 0) & (m <= 1)).all() for m in levels)
    assert levels[0].std() > 0
    quantized = np.load(tmp_path / 'maps' / '0000_0000.level0.quantized.npy')
    assert len(np.unique(quantized)) <= 20


def test_resume_goes_on_from_the_last_checkpoint(run, tmp_path):
    work_dir = tmp_path / 'work'
    command = [
        OUR_TOOLS / 'train.py', TREES, '--work-dir', work_dir, '--resume',
        '--cfg-options', *SHORT,
    ]  # fmt: skip
    run(*command)
    out = run(*command, 'train_cfg.max_epochs=2')
    assert 'resumed epoch: 1' in out
    assert (work_dir / 'epoch_2.pth').exists()


@pytest.mark.parametrize('loaded', [None, 'base.pth'])
@pytest.mark.parametrize(
    ('resume', 'there', 'expected'),
    [
        (None, True, (False, 'as it was')),
        ('auto', False, (False, 'as it was')),
        ('auto', True, (True, None)),
        ('epoch_2.pth', False, (True, 'epoch_2.pth')),
        ('epoch_2.pth', True, (True, 'epoch_2.pth')),
    ],
)
def test_resume_forgets_load_from_only_if_there_is_a_checkpoint(
    tmp_path, loaded, resume, there, expected
):
    if there:
        (tmp_path / 'last_checkpoint').write_text('epoch_1.pth')
    cfg = Config(dict(work_dir=str(tmp_path), load_from=loaded, resume=False))
    args = SimpleNamespace(
        amp=False, auto_scale_lr=False, no_validate=False, resume=resume
    )
    apply_options(cfg, args)
    resumed, source = expected
    assert cfg.resume is resumed
    assert cfg.load_from == (loaded if source == 'as it was' else source)


def test_a_readout_that_may_resume_begins_with_the_base_model_it_was_given(
    run, scalars, tmp_path
):
    """Through the commands: a base model of no steps, then its readout."""
    init_default_scope('mmdet')
    torch.manual_seed(7)
    base = MODELS.build(Config.fromfile(PLAIN).model)
    base.init_weights()
    for parameter in base.parameters():
        parameter.data += 0.01
    torch.save(dict(state_dict=base.state_dict()), tmp_path / 'base.pth')
    work_dir = tmp_path / 'work'
    run(
        OUR_TOOLS / 'train.py', READOUT, '--work-dir', work_dir, '--resume',
        '--cfg-options', f'load_from={tmp_path / "base.pth"}', *SHORT[:-1],
        'default_hooks.attention.ablations=[]',
    )  # fmt: skip
    trained = read_checkpoint(str(work_dir / 'epoch_1.pth'))['state_dict']
    join(trained)
    for key, value in base.state_dict().items():
        assert torch.equal(trained[key], value), key
    steps = [entry for entry in scalars(work_dir) if 'loss' in entry]
    assert steps[-1]['loss_info'] > 0


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            ['train_dataloader.dataset.data_root=/nowhere'],
            "train_dataloader.dataset.data_root: '/nowhere' does not exist",
        ),
        (
            ['model.neck.bottleneck.modulation.mode=plus'],
            "mode must be one of ['bias', 'concat', 'scale', "
            "'scale_residual'], got 'plus'",
        ),
        (
            ['model.neck.bottleneck.modulation.mode=concat'],
            "init='identity' needs a mode that adds to x",
        ),
        (
            ['model.roi_head.bbox_head.latent.beta=-0.5'],
            'beta must be >= 0.0, got -0.5',
        ),
        (
            ['model.neck.bottleneck.quantizer.num_anchors=0'],
            'num_anchors must be >= 1, got 0',
        ),
        (
            ['model.test_draws={"attention":0}'],
            "test_draws.attention must be 'mean' or an integer >= 1, got 0",
        ),
        (
            ['model.type=WithoutUs'],
            'WithoutUs is not in the mmdet::model registry',
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else '',
)
def test_bad_input_is_told_before_training(run, tmp_path, options, message):
    config = tmp_path / 'config.py'
    lines = [f'_base_ = {str(TREES)!r}', 'custom_imports = None']
    merged = []
    for option in options:
        key, value = option.split('=', 1)
        if not value.startswith('{'):
            merged.append(option)
            continue
        *parents, last = key.split('.')
        body = f'{last}={value}'
        for parent in reversed(parents):
            body = f'{parent}=dict({body})'
        lines.append(body)
    config.write_text('\n'.join(lines) + '\n')
    command = [OUR_TOOLS / 'train.py', config, '--work-dir', tmp_path / 'work']
    if merged:
        command += ['--cfg-options', *merged]
    out = run(*command, check=False)
    assert message in out, out[-2000:]
    assert not list((tmp_path / 'work').glob('*.pth'))


def test_a_detector_that_does_not_collect_is_told_before_training(
    run, tmp_path
):
    config = tmp_path / 'config.py'
    config.write_text(
        f'_base_ = {str(TREES)!r}\n'
        "model = dict(type='FasterRCNN')\n"
        '_base_.model.pop("test_draws")\n'
    )
    out = run(
        OUR_TOOLS / 'train.py', config, '--work-dir', tmp_path / 'work',
        '--cfg-options', *SHORT, check=False,
    )  # fmt: skip
    assert 'does not collect the losses of neck' in out, out[-2000:]
