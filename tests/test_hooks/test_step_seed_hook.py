import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmaib.hooks import StepSeedHook


def drawn():
    """A number of each generator; the first belongs to a step, the others to
    its data."""
    return torch.rand(()).item(), random.random(), np.random.rand()


def trained(begin, end, seed=3, validated=(), steps_an_epoch=4):
    """What each step from ``begin`` on draws, by hook calls in MMEngine's
    order: data of a step are loaded before the hooks know of it."""
    hook = StepSeedHook()
    runner = SimpleNamespace(seed=seed, iter=begin)
    # whatever a process did before
    torch.manual_seed(begin), random.seed(begin), np.random.seed(begin)
    found = {}
    for step in range(begin, end):
        runner.iter = step
        if step == begin or step % steps_an_epoch == 0:
            hook.before_train_epoch(runner)
        data = drawn()[1:]
        hook.before_train_iter(runner, 0)
        found[step] = (drawn()[0], *data)
        drawn()  # a backward may draw too
        hook.after_train_iter(runner, 0)
        runner.iter = step + 1
        if step in validated:
            drawn()
            hook.after_val_epoch(runner)
    return found


def test_a_resumed_training_draws_what_the_uninterrupted_one_does():
    whole = trained(0, 10)
    for begin in (4, 6):
        resumed = trained(begin, 10)
        assert resumed == {n: whole[n] for n in range(begin, 10)}


def test_a_validation_changes_nothing():
    assert trained(0, 10, validated=(3, 5)) == trained(0, 10)


@pytest.mark.parametrize('kind', range(3), ids=['torch', 'random', 'numpy'])
def test_steps_and_ranks_draw_different_noise(kind):
    """MMEngine's ``diff_rank_seed`` makes neighbouring seeds of ranks."""
    numbers = [
        values[kind]
        for seed in (0, 1, 2)
        for values in trained(0, 10, seed).values()
    ]
    assert len({*numbers}) == 30


def test_it_seeds_before_other_hooks_draw():
    assert StepSeedHook.priority == 'VERY_HIGH'
