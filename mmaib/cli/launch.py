"""What `train` and `test` share: from a command line to a Runner whose base
library and data are known to be there."""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_distributed, is_main_process
from mmengine.hooks import LoggerHook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmaib import preflight
from mmaib.preflight.checkpoint import load_safely

from .cfg_options import options_of
from .loading import reader


def device_argument(name: str) -> torch.device:
    """The type of an argument ``--device``.

    Raises:
        argparse.ArgumentTypeError: if torch finds no such device.
    """
    try:
        return torch.empty(1, device=name).device
    except (AssertionError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(f'{name!r}: {reason}') from error


def device_of(name: str | None) -> torch.device:
    """The device of that name; without one a GPU if there is one.

    Raises:
        ValueError: if torch finds no such device.
    """
    try:
        return device_argument(name or get_device())
    except argparse.ArgumentTypeError as error:
        raise ValueError(f'--device {error}') from error


def load_config(args: argparse.Namespace) -> Config:
    """The config with the common arguments merged in."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    load_safely()
    cfg = reader(args.config)()
    cfg.launcher = args.launcher
    cfg.merge_from_dict(options_of(args.cfg_options))
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = f'work_dirs/{Path(args.config).stem}'
    if args.amp and get_device() == 'cpu':
        raise ValueError(
            "--amp needs a GPU: on a CPU MMEngine's AmpOptimWrapper is not to "
            "be had, and mmcv's NMS has no half precision"
        )
    _set_dataloaders(cfg, args)
    return cfg


def _set_dataloaders(cfg: Config, args: argparse.Namespace) -> None:
    """Merge the arguments on dataloaders into the config, and under
    mmpretrain what its own tools set: stacked batches in pinned memory."""
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if not loader:
            continue
        if cfg.get('default_scope') == 'mmpretrain':
            loader.setdefault('collate_fn', dict(type='default_collate'))
            loader.setdefault('pin_memory', get_device() != 'cpu')
        if args.no_pin_memory:
            loader.pin_memory = False
        if args.no_persistent_workers:
            loader.persistent_workers = False


def build_runner(cfg: Config, loaders: tuple[str, ...]) -> Runner:
    """The config's Runner, once its base library and data are known to be
    there.

    Args:
        cfg: the experiment's config.
        loaders: the dataloaders that will be used.
    """
    preflight.check_runner(cfg)
    preflight.check_library(cfg.get('default_scope'))
    preflight.check_data(cfg, loaders)
    if cfg.get('launcher', 'none') != 'none' and get_device() == 'cpu':
        _join_without_gpu(cfg)
    runner = (
        RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    )
    preflight.check_annotations(cfg, loaders)
    preflight.check_datasets(runner, cfg, loaders)
    if not is_main_process():
        _leave_metrics_to_first(runner)
    return runner


def _leave_metrics_to_first(runner: Runner) -> None:
    """Every process of MMEngine's LoggerHook writes a test's metrics to one
    file: a shorter text over a longer one leaves no JSON."""
    for hook in runner.hooks:
        if isinstance(hook, LoggerHook):
            hook.after_test_epoch = lambda *_, **__: None


def _join_without_gpu(cfg: Config) -> None:
    """Join the other processes over gloo. MMEngine's own way there sets a
    GPU by number, and so does its default wrapper."""
    if cfg.launcher != 'pytorch':
        raise ValueError(
            f'--launcher {cfg.launcher} needs a GPU in each process; without '
            'one take tools/dist_train.sh, which is --launcher pytorch'
        )
    if not is_distributed():
        torch.distributed.init_process_group('gloo')
    cfg.setdefault(
        'model_wrapper_cfg',
        dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        ),
    )


def last_work(runner: Runner, work: Callable[[Any], None]) -> Callable:
    """What a script does last: some work with its runner, and to leave the
    other processes."""
    # popped, so that no model holds the group of processes that is left
    waiting = [runner]

    def run() -> None:
        work(waiting.pop())
        leave()

    return run


def leave() -> None:
    """Leave the other processes, if there are any; for the last line of a
    script, when its model is out of scope.

    A thread of the group that still lives when the interpreter ends may
    abort it, and a run that went well ends with an error. The group's
    destructor joins its threads, but the model's wrapper holds the group.
    """
    if is_distributed():
        group = torch.distributed.group.WORLD
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
        gc.collect()
        del group  # the last of it: joined without Python's lock
