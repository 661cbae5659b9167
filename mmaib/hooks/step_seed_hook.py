from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmaib.registry import HOOKS


@HOOKS.register_module()
class StepSeedHook(Hook):
    """Make the noise of a step depend on the seed and the step alone.

    MMEngine's checkpoints hold no state of the random generators: a resumed
    training starts the noise of its first step anew. With this hook it draws
    what the uninterrupted one would have drawn, on every rank, and a
    validation in between changes nothing. PyTorch's generators (map, latent,
    dropout, samplers of boxes) are seeded before each step, Python's and
    NumPy's (augmentation without workers) before the data of each step.

    Workers seed themselves at their start, so bit for bit this holds without
    workers; and in an iteration-based loop where MMEngine resumes at the
    sampler (0.10.12), not by loading all past data again (0.10.7).

    The seed is the Runner's, so ``randomness=dict(diff_rank_seed=True)``
    gives each rank a noise of its own.
    """

    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner: Runner) -> None:
        _seed_data(runner, runner.iter)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        torch.manual_seed(_step_seed(runner, runner.iter))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        _seed_data(runner, runner.iter + 1)

    def after_val_epoch(
        self, runner: Runner, metrics: dict | None = None
    ) -> None:
        _seed_data(runner, runner.iter)


def _step_seed(runner: Runner, step: int) -> int:
    """A seed of 32 bits: of neighbouring steps and ranks far apart."""
    mixed = np.random.SeedSequence([runner.seed, step]).generate_state(1)
    return int(mixed[0])


def _seed_data(runner: Runner, step: int) -> None:
    seed = _step_seed(runner, step)
    random.seed(seed)
    np.random.seed(seed)
