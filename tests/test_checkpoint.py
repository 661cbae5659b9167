import os
import pickle

import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmaib.checkpoint import SAFE, TRUSTED, load_safely, read_checkpoint


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    monkeypatch.delenv(TRUSTED, raising=False)
    # so that it is put back after the test
    monkeypatch.setenv(SAFE, '0')


@pytest.fixture
def save(tmp_path):
    def write(content, **options):
        torch.save(content, tmp_path / 'checkpoint.pth', **options)
        return str(tmp_path / 'checkpoint.pth')

    return write


class Calls:
    """Something whose loading calls a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def checkpoint():
    buffer = HistoryBuffer([1.0, 3.0], [1, 1])
    return dict(
        meta=dict(epoch=1, seed=3),
        message_hub=dict(log_scalars={'train/loss': buffer}),
        state_dict={'weight': torch.ones(2)},
    )


@pytest.mark.parametrize('archive', [True, False])
def test_what_mmengine_saves(save, archive):
    path = save(checkpoint(), _use_new_zipfile_serialization=archive)
    read = read_checkpoint(path)
    assert torch.equal(read['state_dict']['weight'], torch.ones(2))
    assert read['message_hub']['log_scalars']['train/loss'].mean() == 2


@pytest.mark.parametrize(
    'evil',
    [
        Calls(os.mkdir, 'made_by_a_checkpoint'),
        Calls(exec, 'import os; os.mkdir("made_by_a_checkpoint")'),
        # what would open every door if `getattr` were let through as it is
        Calls(getattr, HistoryBuffer, '__init__'),
        Calls(getattr, HistoryBuffer, '__class__'),
    ],
    ids=lambda evil: str(evil.call[0].__name__),
)
def test_a_checkpoint_that_would_run_code(save, evil, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save({**checkpoint(), 'extra': evil})
    with pytest.raises(ValueError, match=r"checkpoint\.pth' holds more than"):
        read_checkpoint(path)
    assert not (tmp_path / 'made_by_a_checkpoint').exists()
    # nor does the host's own reader run it in a process of our tools
    from mmengine.runner.checkpoint import load_from_local

    load_safely()
    with pytest.raises(pickle.UnpicklingError):
        load_from_local(path, 'cpu')
    assert not (tmp_path / 'made_by_a_checkpoint').exists()


def test_a_checkpoint_that_the_user_trusts(save, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save({**checkpoint(), 'x': Calls(os.mkdir, 'trusted')})
    monkeypatch.delenv(SAFE)
    monkeypatch.setenv(TRUSTED, '1')
    assert read_checkpoint(path)['meta']['epoch'] == 1
    assert (tmp_path / 'trusted').exists()


@pytest.mark.parametrize('part', [0, 0.0001, 0.5, 0.999])
def test_a_checkpoint_that_was_cut_off(save, part):
    path = save(checkpoint())
    with open(path, 'r+b') as file:
        file.truncate(int(os.path.getsize(path) * part))
    with pytest.raises(ValueError, match=r"checkpoint\.pth' is not a whole"):
        read_checkpoint(path)
