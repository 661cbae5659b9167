"""Two processes over gloo, on one machine without a GPU."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import MMLogger
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from torch import distributed, nn

from mmaib.cli.launch import leave

from .processes import take_environment

ADAM = dict(optimizer=dict(type='Adam', lr=1e-3))


def on_two_ranks(work: Callable[[int], Any], folder: Path) -> list[Any]:
    """What ``work(rank)`` returns on each of two ranks.

    Args:
        work: a function of a module, or a partial of one.
        folder: for the rendezvous and the answers, which stay there.
    """
    torch.multiprocessing.start_processes(
        _launch,
        (str(folder), work, dict(os.environ)),
        nprocs=2,
        start_method='forkserver',
    )
    return [torch.load(folder / f'{rank}.pth') for rank in (0, 1)]


def _launch(
    rank: int,
    folder: str,
    work: Callable[[int], Any],
    environ: dict[str, str],
) -> None:
    take_environment(environ)
    torch.set_num_threads(1)
    # not a line for each parameter
    MMLogger.get_instance('mmengine', log_level=logging.WARNING)
    # the file of an earlier call is gone: its last process removes it
    distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/rendezvous', rank=rank,
        world_size=2, timeout=timedelta(minutes=5),
    )  # fmt: skip
    torch.save(work(rank), f'{folder}/{rank}.pth')
    leave()


def two_steps(
    model: nn.Module,
    rank: int,
    new_data: Callable[[], dict[str, Any]],
    **options: Any,
) -> None:
    """Train a model, built alike on both ranks, on data of each rank's own.

    Without ``find_unused_parameters=True`` among the ``options`` of
    DistributedDataParallel, that refuses the second step if a parameter had
    no gradient in the first.

    Raises:
        RuntimeError: if it does.
        AssertionError: if the ranks' parameters differ after both, or none
            has moved.
    """
    wrapper = MMDistributedDataParallel(model, **options)
    optimizer = build_optim_wrapper(model, ADAM)
    torch.manual_seed(rank)
    before = _flat(model)
    for _ in range(2):
        wrapper.train()
        wrapper.train_step(new_data(), optimizer)
    after = _flat(model)
    both = [torch.empty_like(after) for _ in range(2)]
    distributed.all_gather(both, after)
    assert torch.equal(*both), 'the ranks have different parameters'
    assert not torch.equal(before, after), 'no parameter has moved'


def _flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])
