import os
import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from torch._tensor import _rebuild_from_type_v2 as rebuild

from mmaib.preflight.checkpoint import (
    SAFE,
    TRUSTED,
    load_safely,
    read_checkpoint,
)


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


def chain(owner, *names):
    for name in names:
        owner = Calls(getattr, owner, name)
    return owner


def through_builtins(code):
    """`exec` fetched from a method's globals: what the true `getattr` in the
    base model's own list allows."""
    get = chain(HistoryBuffer, '__init__', '__builtins__', 'get')
    run = Calls(rebuild, get, chain(get, '__class__'), ('exec',), None)
    return Calls(rebuild, run, chain(None, '__class__'), (code,), None)


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
        through_builtins('import os; os.mkdir("made_by_a_checkpoint")'),
        # an identity, and through it attributes of any class
        Calls(
            rebuild, chain(HistoryBuffer, 'current'), type(None),
            (torch.ones(1),), None,
        ),
        # eight bytes of the file as a pointer
        Calls(np.ndarray, (1,), np.dtype('O'), bytearray(b'AAAAAAAA')),
    ],
    ids=['mkdir', 'exec', 'getattr', 'identity', 'pointer'],
)  # fmt: skip
def test_a_checkpoint_that_would_run_code(save, evil, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save({**checkpoint(), 'extra': evil})
    with pytest.raises(ValueError, match=r"checkpoint\.pth' (holds|is not)"):
        read_checkpoint(path)
    assert not (tmp_path / 'made_by_a_checkpoint').exists()
    # nor does the base library's own reader run it in a process of our tools
    from mmengine.runner.checkpoint import load_from_local

    load_safely()
    for _ in range(2):
        with pytest.raises((pickle.UnpicklingError, TypeError)):
            load_from_local(path, 'cpu')
    assert not (tmp_path / 'made_by_a_checkpoint').exists()
    # which has not taken our list down with its own
    whole = load_from_local(save(checkpoint()), 'cpu')
    assert whole['message_hub']['log_scalars']['train/loss'].max() == 3


def test_log_buffers_come_and_go_as_mmengines(save):
    content = checkpoint()
    content['meta'].update(
        size=np.int64(7), palette=np.arange(6, dtype=np.uint8).reshape(2, 3),
        names=np.array(['a', 'bc']),
    )  # fmt: skip
    read = read_checkpoint(save(content))
    assert read['meta']['size'] == 7
    for name in ('palette', 'names'):
        np.testing.assert_array_equal(
            read['meta'][name], content['meta'][name]
        )
    buffer = read['message_hub']['log_scalars']['train/loss']
    buffer.update(8.0)
    again = pickle.loads(pickle.dumps(buffer, protocol=2))
    assert type(again) is HistoryBuffer
    assert again.mean() == 4


def test_a_checkpoint_that_the_user_trusts(save, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save({**checkpoint(), 'x': Calls(os.mkdir, 'trusted')})
    monkeypatch.delenv(SAFE)
    monkeypatch.setenv(TRUSTED, '1')
    assert read_checkpoint(path)['meta']['epoch'] == 1
    assert (tmp_path / 'trusted').exists()


@pytest.mark.parametrize('value', ['', '0', 'false', 'no'])
def test_only_a_yes_is_trust(save, tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(TRUSTED, value)
    with pytest.raises(ValueError, match='holds more than'):
        read_checkpoint(save(dict(x=Calls(os.mkdir, 'distrusted'))))
    assert not (tmp_path / 'distrusted').exists()


def test_a_file_that_is_no_checkpoint(tmp_path):
    path = tmp_path / 'weights.pth'
    path.write_text('<html>not found</html>')
    with pytest.raises(ValueError, match='not a whole.*22 bytes.*other kind'):
        read_checkpoint(str(path))
    torch.save([torch.ones(1)], path)
    with pytest.raises(ValueError, match='no checkpoint: it holds a list'):
        read_checkpoint(str(path))


@pytest.mark.parametrize('part', [0, 0.0001, 0.5, 0.999])
def test_a_checkpoint_that_was_cut_off(save, part):
    path = save(checkpoint())
    with open(path, 'r+b') as file:
        file.truncate(int(os.path.getsize(path) * part))
    with pytest.raises(ValueError, match=r"checkpoint\.pth' is not a whole"):
        read_checkpoint(path)
