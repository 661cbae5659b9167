"""Trainings that are cut off, through the commands that users type."""

import json
import random
import signal

import pytest
import torch
from mmengine.runner.loops import _InfiniteDataloaderIterator
from support import DIGITS, NO_WORKERS, REPOSITORY, TREES

from mmaib.preflight.checkpoint import read_checkpoint

TRAIN = REPOSITORY / 'tools' / 'train.py'
COMMON = [
    'train_dataloader.batch_size=2',
    *NO_WORKERS,
    'val_dataloader.dataset.indices=2',
]
STEPS = 8
# epochs of four steps, a checkpoint and a validation after each
DETECTION = (
    TREES,
    [
        f'train_cfg.max_epochs={STEPS // 4}',
        'train_cfg.val_interval=1',
        'train_dataloader.dataset.indices=8',
    ],
)
# the same behind an information gate, which fades in until the last step
GATE = (
    TREES.with_name('gate_faster-rcnn_lite0_fpn_6e_trees-256.py'),
    [*DETECTION[1], f'custom_hooks.0.end={STEPS}'],
)
STRENGTH = 'neck.bottleneck.modulation.strength'
# a checkpoint every third step, a validation in the middle
SEGMENTATION = (
    DIGITS,
    [
        f'train_cfg.max_iters={STEPS}',
        'train_cfg.val_interval=5',
        'default_hooks.checkpoint.interval=3',
    ],
)
SAMPLES = pytest.mark.parametrize(
    ('base', 'options'),
    [
        pytest.param(*DETECTION, id='detection'),
        pytest.param(*GATE, id='gate'),
        pytest.param(
            *SEGMENTATION,
            id='segmentation',
            marks=pytest.mark.skipif(
                not hasattr(_InfiniteDataloaderIterator, 'skip_iter'),
                reason='this mmengine loads the data of past iterations '
                'again when it resumes: other augmentations without workers',
            ),
        ),
    ],
)


@pytest.fixture
def train(run, probed, tmp_path):
    """Train into a folder, killed if asked for; its last checkpoint."""

    def run_train(
        name, base, options, *arguments, kill=None, writing=False, ranks=1
    ):
        work_dir = tmp_path / name
        options = [*COMMON, *options]
        if kill is not None:
            options += [
                'default_hooks.kill.type=KillAt',
                f'default_hooks.kill.step={kill}',
                f'default_hooks.kill.writing={writing}',
            ]
        tool = [TRAIN, probed(base)]
        if ranks > 1:
            tool = [TRAIN.with_name('dist_train.sh'), probed(base), ranks]
        out = run(
            *tool, '--work-dir', work_dir, *arguments,
            '--cfg-options', *options, check=False,
        )  # fmt: skip
        killed = signal.SIGXFSZ if writing else signal.SIGKILL
        # torchrun ends with 1 when a process of its was killed
        ended = 0 if kill is None else -killed if ranks == 1 else 1
        assert out.returncode == ended, out[-3000:]
        last = (work_dir / 'last_checkpoint').read_text()
        return read_checkpoint(last)

    return run_train


def seed_of(checkpoint):
    """The option that gives another training the seed this one drew: the
    configs leave it open."""
    return f'randomness.seed={checkpoint["meta"]["seed"]}'


def assert_same_training(one, other):
    for part in ('state_dict', 'optimizer'):
        torch.testing.assert_close(one[part], other[part], rtol=0, atol=0)
    assert one['param_schedulers'] == other['param_schedulers']
    assert one['meta']['iter'] == other['meta']['iter']


def evaluated(work_dir):
    """What the newest log has behind its last training step."""
    log = sorted(work_dir.glob('*/vis_data/scalars.json'))[-1]
    found = {}
    for line in log.read_text().splitlines():
        entry = json.loads(line)
        found = {} if 'loss' in entry else {**found, **entry}
    found.pop('step')  # one apart where nothing was trained
    return {k: v for k, v in found.items() if 'time' not in k}


@SAMPLES
def test_killed_and_resumed_is_never_killed(train, base, options):
    # after the first checkpoint, before the last
    at = random.Random(0).randrange(4, STEPS)
    cut = train('cut', base, options, kill=at)
    if (base, options) == GATE:  # cut off while it fades in
        assert cut['state_dict'][STRENGTH] == 3 / STEPS
    whole = train('whole', base, [*options, seed_of(cut)])
    assert_same_training(whole, train('cut', base, options, '--resume'))


def test_killed_in_its_last_validation(train, tmp_path):
    """Nothing is left to train, and the figure is still to be had."""
    base, options = DETECTION
    whole = train('run', base, options)
    last = evaluated(tmp_path / 'run')
    assert_same_training(whole, train('run', base, options, '--resume'))
    assert last
    assert evaluated(tmp_path / 'run') == last


def test_killed_while_a_checkpoint_is_written(train, tmp_path):
    base, options = SEGMENTATION
    # one checkpoint is kept, so the second is written over none but itself
    cut = train('cut', base, options, kill=4, writing=True)
    assert cut['meta']['iter'] == 3
    (partial,) = (tmp_path / 'cut').glob('*.partial')
    assert 0 < partial.stat().st_size <= 2**20
    resumed = train('cut', base, options, '--resume')
    assert resumed['meta']['iter'] == STEPS
    assert not list((tmp_path / 'cut').glob('*.partial'))


@pytest.mark.slow
@SAMPLES
def test_killed_ten_times(train, base, options):
    """Cut off again and again at random steps, each time resumed."""
    steps = random.Random(1)
    cut = train('cut', base, options, kill=steps.randrange(4, STEPS))
    whole = train('whole', base, [*options, seed_of(cut)])
    for _ in range(9):
        at = steps.randrange(cut['meta']['iter'], STEPS)
        cut = train('cut', base, options, '--resume', kill=at)
    assert_same_training(whole, train('cut', base, options, '--resume'))


@pytest.mark.slow
@SAMPLES
def test_two_ranks_killed_and_resumed(train, base, options):
    # four steps an epoch on each
    options = [*options, 'train_dataloader.dataset.indices=16']
    cut = train('cut', base, options, kill=STEPS - 2, ranks=2)
    whole = train('whole', base, [*options, seed_of(cut)], ranks=2)
    assert_same_training(
        whole, train('cut', base, options, '--resume', ranks=2)
    )
