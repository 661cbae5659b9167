"""Two processes over gloo, through the commands that users type."""

import json

import pytest
import torch
from support import DIGITS, NO_WORKERS, REPOSITORY, TREES

TOOLS = REPOSITORY / 'tools'
STEPS = 20
SHORT = [
    *NO_WORKERS,
    # odd, so that the sampler of two ranks has to pad
    'val_dataloader.dataset.indices=5',
]
TEST = [option.replace('val_', 'test_') for option in SHORT[2:]]
DETECTION = (
    TREES,
    [
        'train_cfg.max_epochs=1',
        f'train_dataloader.dataset.indices={2 * STEPS}',
        'train_dataloader.batch_size=1',
    ],
    # untrained scores are low; drawn maps and latents in the evaluation
    ['model.test_cfg.rcnn.score_thr=0.0', 'model.test_draws.attention=2'],
)
SEGMENTATION = (
    DIGITS,
    [
        f'train_cfg.max_iters={STEPS}',
        f'default_hooks.checkpoint.interval={STEPS}',
        'train_dataloader.batch_size=2',
    ],
    [],
)


def metrics(work_dir):
    (path,) = work_dir.glob('*/*.json')
    found = json.loads(path.read_text())
    return {k: v for k, v in found.items() if 'time' not in k}


def probe(folder):
    folder.mkdir(exist_ok=True)
    return [
        'default_hooks.probe.type=RankProbe',
        f'default_hooks.probe.out={folder}',
    ]


def none_is_left_to_abort(folder):
    """A thread of gloo at the interpreter's end aborts it, now and then."""
    files = [folder / f'rank{rank}.threads' for rank in (0, 1)]
    return not any('gloo' in file.read_text() for file in files)


@pytest.mark.parametrize(
    ('base', 'train', 'evaluate'),
    [DETECTION, SEGMENTATION],
    ids=['detection', 'segmentation'],
)
def test_two_ranks_are_one_model(run, probed, tmp_path, base, train, evaluate):
    config, work_dir = probed(base), tmp_path / 'work'
    if evaluate:
        with config.open('a') as file:
            file.write('model = dict(test_draws=dict(attention=1))\n')
    run(
        TOOLS / 'dist_train.sh', config, 2, '--work-dir', work_dir,
        '--cfg-options', *SHORT, *train, *probe(tmp_path),
        'default_hooks.logger.interval=1',
    )  # fmt: skip
    assert none_is_left_to_abort(tmp_path)
    first, second = (
        torch.load(tmp_path / f'rank{rank}.pth', weights_only=True)
        for rank in (0, 1)
    )

    assert 'neck.bottleneck.quantizer.anchors' in first['parameters']
    assert first['parameters'].keys() == second['parameters'].keys()
    for name, parameter in first['parameters'].items():
        assert torch.equal(parameter, second['parameters'][name]), name

    assert len(first['noise']) == STEPS
    noise = torch.cat(first['noise'] + second['noise'])
    assert len(noise.unique(dim=0)) == 2 * STEPS

    for logged in (first['logged'], second['logged']):
        own = torch.tensor([first['own'], second['own']])
        assert own[0] != pytest.approx(own[1])
        torch.testing.assert_close(torch.stack(logged), own.mean(0))

    checkpoint = next(work_dir.glob('*_[0-9]*.pth'))
    run(
        TOOLS / 'test.py', config, checkpoint, '--work-dir',
        tmp_path / 'one', '--cfg-options', *TEST, *evaluate,
    )  # fmt: skip
    run(
        TOOLS / 'dist_test.sh', config, checkpoint, 2, '--work-dir',
        tmp_path / 'two', '--cfg-options', *TEST, *evaluate,
        *probe(tmp_path / 'two'),
    )  # fmt: skip
    assert none_is_left_to_abort(tmp_path / 'two')
    alone = metrics(tmp_path / 'one')
    assert alone == metrics(tmp_path / 'two')
    assert any(value > 0 for value in alone.values())
