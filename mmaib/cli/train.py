"""Train a model of any base library: the config's `default_scope` says
which."""

from __future__ import annotations

import argparse
import os.path as osp
from collections.abc import Callable

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmaib import preflight
from mmaib.hooks import LearningHook, MonitorHook

from .launch import build_runner, last_work, load_config


def prepare(args: argparse.Namespace) -> Callable[[], None]:
    """Check everything that can be checked before a training; what is left
    to do is to train."""
    cfg = load_config(args)
    apply_options(cfg, args)
    preflight.check_weights(cfg)
    preflight.take_seed(cfg)
    runner = build_runner(cfg, ('train_dataloader', 'val_dataloader'))
    preflight.check_collects(runner.model)
    preflight.check_frozen(cfg, runner.model)
    preflight.check_resume(cfg, runner.model)
    runner.register_hook(MissedValidationHook(), 'LOWEST')
    runner.register_hook(LearningHook(), 'LOWEST')
    runner.register_hook(MonitorHook())
    return last_work(runner, lambda it: it.train())


def apply_options(cfg: Config, args: argparse.Namespace) -> None:
    """Merge what only a training knows into the config."""
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ValueError(
                '--auto-scale-lr needs auto_scale_lr.base_batch_size in '
                f'{args.config}'
            )
        cfg.auto_scale_lr.enable = True
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.resume == 'auto':
        # without one, begin from load_from, which resuming would forget
        if osp.exists(osp.join(cfg.work_dir, 'last_checkpoint')):
            cfg.resume = True
            cfg.load_from = None
    elif args.resume:
        cfg.resume = True
        cfg.load_from = args.resume


class MissedValidationHook(Hook):
    """Validates what was saved at the last step by a training that was
    killed before it could."""

    def before_train(self, runner: Runner) -> None:
        if runner.iter >= runner.max_iters and runner.val_loop is not None:
            runner.logger.info('nothing is left to train: validating')
            runner.val_loop.run()
