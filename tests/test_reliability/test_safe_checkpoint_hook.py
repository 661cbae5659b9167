import errno
import os
from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from torch import nn

from mmaib.reliability import SafeCheckpointHook
from mmaib.reliability.checkpoint import read_checkpoint
from mmaib.reliability.safe_checkpoint_hook import AtomicLocalBackend


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / 'folder' / 'checkpoint.pth'
    backend = AtomicLocalBackend()
    backend.put(b'first', path)

    def full(descriptor):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(
        OSError, match=r'No space left.* MiB are free'
    ) as raised:
        backend.put(b'second', str(path))
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.filename == str(path)
    assert os.listdir(path.parent) == ['checkpoint.pth']
    assert path.read_bytes() == b'first'


class Model(nn.Module):
    """Its one weight counts the steps."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def train_step(self, data, optim_wrapper):
        optim_wrapper.update_params(-self.weight)
        return dict(loss=self.weight.detach())

    def val_step(self, data):
        return [self.weight.item()]


class Score(BaseMetric):
    """Better with every step."""

    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        return dict(score=results[-1])


@pytest.fixture
def train(tmp_path):
    """Train for some epochs of one step, a checkpoint after each."""

    def run(epochs, filename_tmpl='epoch_{}.pth', **options):
        loader = dict(
            dataset=[0], sampler=dict(type='DefaultSampler'), batch_size=1
        )
        Runner(
            Model(),
            str(tmp_path),
            train_dataloader=loader,
            val_dataloader=loader,
            val_evaluator=Evaluator(Score()),
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            val_cfg=dict(),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0)),
            default_hooks=dict(
                checkpoint=dict(
                    type='mmaib.SafeCheckpointHook',
                    interval=1,
                    filename_tmpl=filename_tmpl,
                    max_keep_ckpts=1,
                    save_best='score',
                    rule='greater',
                ),
                logger=None,
            ),
            experiment_name=f'{tmp_path.name}_{len(options)}_{epochs}',
            log_level='ERROR',
            **options,
        ).train()

    return run


def checkpoints(folder):
    return {
        path.name: read_checkpoint(str(path))['state_dict']['weight']
        for path in folder.glob('*.pth')
    }


def test_keeps_as_many_as_asked_for(train, tmp_path):
    train(3)
    assert checkpoints(tmp_path) == {
        'epoch_3.pth': 3.0,
        'best_score_epoch_3.pth': 3.0,
    }
    assert not list(tmp_path.glob('*.partial'))
    train(5, resume=True)
    assert checkpoints(tmp_path)['epoch_5.pth'] == 5.0
    assert not (tmp_path / 'epoch_3.pth').exists()


def test_a_name_that_is_used_again_is_not_removed(train, tmp_path):
    train(3, filename_tmpl='latest.pth')
    assert checkpoints(tmp_path) == {
        'latest.pth': 3.0,
        'best_score_latest.pth': 3.0,
    }


@pytest.mark.parametrize('failing', ['epoch_3.pth', 'best_score_epoch_3.pth'])
def test_what_is_old_goes_after_what_is_new_is_there(
    train, tmp_path, monkeypatch, failing
):
    put = AtomicLocalBackend.put

    def fail_at(self, obj, filepath):
        if os.path.basename(filepath) == failing:
            raise OSError(errno.EIO, 'gone')
        put(self, obj, filepath)

    monkeypatch.setattr(AtomicLocalBackend, 'put', fail_at)
    with pytest.raises(OSError, match='gone'):
        train(3)
    kept = checkpoints(tmp_path)
    assert kept['best_score_epoch_2.pth'] == 2.0
    last = (tmp_path / 'last_checkpoint').read_text()
    assert os.path.basename(last) in kept


@pytest.mark.parametrize(
    ('options', 'backend'),
    [
        (dict(), 'mmaib.atomic'),
        (dict(out_dir='/local'), 'mmaib.atomic'),
        (dict(out_dir='s3://bucket'), None),
        (dict(backend_args=dict(backend='petrel')), 'petrel'),
    ],
)
def test_other_places_are_written_as_the_host_writes_them(
    monkeypatch, options, backend
):
    monkeypatch.setattr(CheckpointHook, 'before_train', lambda *args: None)
    hook = SafeCheckpointHook(**options)
    hook.before_train(SimpleNamespace(work_dir='work'))
    assert (hook.backend_args or {}).get('backend') == backend
