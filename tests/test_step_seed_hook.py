import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmaib.preflight import StepSeedHook


def drawn():
    """A number of each generator."""
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]


def steps(seed, first, last, noise=0):
    """What steps draw, their data before they begin."""
    hook = StepSeedHook()
    runner = SimpleNamespace(seed=seed, iter=first)
    torch.manual_seed(noise)
    random.seed(noise)
    np.random.seed(noise)
    hook.before_train_epoch(runner)
    found = []
    for step in range(first, last):
        runner.iter = step
        data = drawn()[:2]
        hook.before_train_iter(runner, 0)
        found.append([*data, drawn()[2]])
        hook.after_train_iter(runner, 0)
        if step % 2:  # a validation draws too
            runner.iter = step + 1
            drawn()
            hook.after_val_epoch(runner)
    return found


def test_a_resumed_training_draws_what_the_whole_one_did():
    whole = steps(5, 0, 6)
    for first in range(6):
        assert steps(5, first, 6, noise=first) == whole[first:]


@pytest.mark.parametrize('generator', [0, 1, 2])
def test_steps_and_seeds_differ(generator):
    """Seeds of ranks are neighbours, and so are those of steps."""
    found = [row[generator] for seed in (5, 6, 7) for row in steps(seed, 0, 4)]
    assert len({*found}) == len(found)
