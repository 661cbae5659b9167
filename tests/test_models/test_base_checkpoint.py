"""Checkpoints of a readout hold what was learned, and name their base."""

import copy

import pytest
import torch
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import save_checkpoint
from support import detection as det

from mmaib.models.base_checkpoint import KEY, BaseCheckpoint, join, learned

GATE = dict(modulation=dict(type='mmaib.InformationGate'))


def read_config():
    return det.shrink(det.plain_config())


def readout_config(**fields):
    cfg = read_config()
    cfg.model.update(type='mmaib.AIBFasterRCNN', frozen='base', **fields)
    cfg.model.neck = dict(
        type='mmaib.AIBNeck', neck=cfg.model.neck, bottleneck=GATE
    )
    return cfg


def seeded(cfg, seed):
    torch.manual_seed(seed)
    return det.build(cfg)


@pytest.fixture
def base(tmp_path):
    """A base model, and the path of its checkpoint."""
    model = seeded(read_config(), 0)
    path = tmp_path / 'base.pth'
    save_checkpoint(dict(state_dict=model.state_dict()), str(path))
    return model, path


@pytest.fixture
def saved(base, tmp_path):
    """A readout over it, and the path of its own checkpoint."""
    model = seeded(readout_config(), 1)
    load_checkpoint(model, str(base[1]))
    own = learned(model, model.state_dict(), BaseCheckpoint.of(base[1]))
    path = tmp_path / 'readout.pth'
    save_checkpoint(dict(state_dict=own), str(path))
    return model, path


def same(first, second):
    states = first.state_dict(), second.state_dict()
    assert states[0].keys() == states[1].keys()
    return all(torch.equal(v, states[1][k]) for k, v in states[0].items())


def test_it_holds_no_tensor_of_the_base_model_and_restores_both(base, saved):
    model, path = saved
    state = torch.load(path, weights_only=True)['state_dict']
    assert {k.split('.')[1] for k in state if k != KEY} == {'bottleneck'}
    assert path.stat().st_size < base[1].stat().st_size / 10
    again = seeded(readout_config(), 2)
    assert not same(again, model)
    load_checkpoint(again, str(path))
    assert same(again, model)
    assert again.base_checkpoint == BaseCheckpoint.of(base[1])


def test_by_torch_alone_and_below_a_prefix(saved):
    model, path = saved
    state = torch.load(path, weights_only=True)['state_dict']
    again = seeded(readout_config(), 2)
    found = again.load_state_dict(state, strict=False)
    assert not found.unexpected_keys
    assert same(again, model)
    outer = torch.nn.ModuleDict({'module': seeded(readout_config(), 3)})
    below = {f'module.{k}': v for k, v in state.items()}
    found = outer.load_state_dict(below, strict=False)
    assert not found.unexpected_keys
    assert same(outer['module'], model)


def test_another_base_model_is_refused_by_its_hash(base, saved):
    _, path = base
    other = seeded(read_config(), 5)
    save_checkpoint(dict(state_dict=other.state_dict()), str(path))
    with pytest.raises(ValueError, match='SHA-256'):
        load_checkpoint(seeded(readout_config(), 2), str(saved[1]))


def test_a_base_model_that_was_moved_is_named_by_a_field(base, saved):
    moved = base[1].with_name('moved.pth')
    base[1].rename(moved)
    with pytest.raises(FileNotFoundError, match=r'model\.base_checkpoint='):
        load_checkpoint(seeded(readout_config(), 2), str(saved[1]))
    again = seeded(readout_config(base_checkpoint=str(moved)), 2)
    load_checkpoint(again, str(saved[1]))
    assert same(again, saved[0])


def test_a_checkpoint_with_all_tensors_loads_as_ever(saved):
    model, _ = saved
    state = copy.copy(model.state_dict())
    assert join(state) is None
    again = seeded(readout_config(), 2)
    again.load_state_dict(state)
    assert same(again, model)
    assert again.base_checkpoint is None
