import errno
import os
from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from torch import nn

from mmaib.hooks import SafeCheckpointHook
from mmaib.hooks.safe_checkpoint_hook import AtomicLocalBackend
from mmaib.preflight.checkpoint import read_checkpoint


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
        return dict(score=results[-1], twice=2 * results[-1])


@pytest.fixture
def train(tmp_path):
    """Train for some epochs of one step, a checkpoint after each."""

    def run(
        epochs,
        filename_tmpl='epoch_{}.pth',
        folder=tmp_path,
        keep=1,
        best='score',
        **options,
    ):
        loader = dict(
            dataset=[0], sampler=dict(type='DefaultSampler'), batch_size=1
        )
        Runner(
            Model(),
            str(folder),
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
                    max_keep_ckpts=keep,
                    save_best=best,
                    rule='greater' if best else None,
                ),
                logger=None,
            ),
            experiment_name=f'{tmp_path.name}_{len(options)}_{epochs}_{keep}',
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


@pytest.mark.parametrize('best', ['score', ['score', 'twice']])
@pytest.mark.parametrize('epochs', [3, 4])
def test_a_name_that_is_used_again_is_not_removed(
    train, tmp_path, epochs, best
):
    """Of an even number of epochs and of an odd one: what is gone once is
    not there to be removed the next time."""
    train(epochs, filename_tmpl='latest.pth', best=best)
    names = [best] if isinstance(best, str) else best
    assert checkpoints(tmp_path) == {
        f'{name}latest.pth': epochs
        for name in ('', *(f'best_{name}_' for name in names))
    }


@pytest.mark.parametrize('keep', [1, 2])
def test_a_name_that_is_used_again_without_a_best(train, tmp_path, keep):
    """With a best one, MMEngine writes the other a second time."""
    train(4, filename_tmpl='latest.pth', keep=keep, best=None)
    assert checkpoints(tmp_path) == {'latest.pth': 4.0}


@pytest.mark.parametrize('names', [('link', 'work'), ('work', 'link')])
def test_the_name_of_a_best_one_in_another_spelling(train, tmp_path, names):
    """Its path in a checkpoint that is resumed leads through a link, or the
    one that is written."""
    first, second = (tmp_path / name for name in names)
    (tmp_path / 'work').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'work')
    train(2, filename_tmpl='latest.pth', folder=first)
    train(3, filename_tmpl='latest.pth', folder=second, resume=True)
    assert checkpoints(second) == {
        'latest.pth': 3.0,
        'best_score_latest.pth': 3.0,
    }


def test_fewer_are_kept_than_before(train, tmp_path, monkeypatch):
    """MMEngine removes what is too many before the first step; a name that
    all have is that of the only one."""
    train(3, filename_tmpl='latest.pth', keep=3, best=None)

    def full(self, obj, filepath):
        raise OSError(errno.ENOSPC, 'full')

    with monkeypatch.context() as patch:
        patch.setattr(AtomicLocalBackend, 'put', full)
        with pytest.raises(OSError, match='full'):
            train(4, filename_tmpl='latest.pth', best=None, resume=True)
    assert checkpoints(tmp_path) == {'latest.pth': 3.0}
    train(3, keep=3, best=None)
    train(4, keep=2, best=None, resume=True)
    assert {*checkpoints(tmp_path)} == {
        'latest.pth', 'epoch_3.pth', 'epoch_4.pth'
    }  # fmt: skip


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
def test_other_places_are_written_as_the_base_model_writes_them(
    monkeypatch, options, backend
):
    monkeypatch.setattr(CheckpointHook, 'before_train', lambda *args: None)
    hook = SafeCheckpointHook(**options)
    runner = SimpleNamespace(work_dir='work', model=None, _load_from=None)
    hook.before_train(runner)
    assert (hook.backend_args or {}).get('backend') == backend
