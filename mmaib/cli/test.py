"""Evaluate a checkpoint of any base library with its own metrics."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import mmengine
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.registry import METRICS

from mmaib import preflight
from mmaib.models.known import TTA_MODELS
from mmaib.preflight.fields import configs_with
from mmaib.registry import type_name

from .launch import build_runner, last_work, load_config

FILES = {
    'pred': ('.pkl', '.pickle'),
    'metrics': ('.json', '.yml', '.yaml', '.pkl', '.pickle'),
}


def prepare(args: argparse.Namespace) -> Callable[[], None]:
    """Check everything that can be checked before a test; what is left to do
    is to evaluate."""
    if args.out_item and not args.out:
        raise ValueError('--out-item needs --out')
    args.out_item = args.out_item or 'pred'
    cfg = load_config(args)
    apply_options(cfg, args)
    preflight.check_checkpoint('checkpoint', args.checkpoint)
    runner = build_runner(cfg, ('test_dataloader',))
    if args.out_item == 'pred' and (args.out or '').endswith(FILES['pred']):
        # mmdet's keeps masks as run lengths
        detector = cfg.default_scope == 'mmdet'
        kind = 'mmdet.DumpDetResults' if detector else 'DumpResults'
        dump = METRICS.build(dict(type=kind, out_file_path=args.out))
        runner.test_evaluator.metrics.append(dump)
    return last_work(runner, partial(evaluate, args=args))


def evaluate(runner: Any, args: argparse.Namespace) -> None:
    metrics = runner.test()
    if is_main_process():
        preflight.warn_untrained(args.checkpoint, runner.model)
        if args.out and args.out_item == 'metrics':
            mmengine.dump(metrics, args.out)


def apply_options(cfg: Config, args: argparse.Namespace) -> None:
    """Merge what only a test knows into the config."""
    cfg.load_from = args.checkpoint
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.show or args.show_dir:
        if 'visualization' not in (cfg.get('default_hooks') or {}):
            raise ValueError(
                '--show and --show-dir need default_hooks.visualization in '
                f'{args.config}'
            )
        show(cfg, args)
    if args.out and not args.out.endswith(FILES[args.out_item]):
        if args.out_item == 'metrics' or cfg.default_scope != 'mmseg':
            raise ValueError(
                f'--out of {args.out_item} must be a file of '
                f'{", ".join(FILES[args.out_item])}, got {args.out}'
            )
        found = cfg.test_evaluator
        for metric in found if isinstance(found, list) else [found]:
            if not type_name(metric.type).startswith('mmaib.'):
                metric.output_dir = args.out
    if args.tta:
        augment(cfg)


def show(cfg: Config, args: argparse.Namespace) -> None:
    """Have the base library's hook draw predictions."""
    hook = cfg.default_hooks.visualization
    hook.update(show=args.show, wait_time=args.wait_time)
    if cfg.default_scope == 'mmpretrain':
        hook.update(enable=True, interval=args.interval, out_dir=args.show_dir)
        return
    hook.draw = True
    if not args.show_dir:
        return
    if cfg.default_scope == 'mmseg':
        cfg.visualizer.save_dir = args.show_dir
    else:
        hook.test_out_dir = args.show_dir


def augment(cfg: Config) -> None:
    """Average predictions over augmented images."""
    if 'tta_model' not in cfg:
        cfg.tta_model = TTA_MODELS[cfg.default_scope]
    if type_name(cfg.tta_model.type) in ('SegTTAModel', 'mmseg.SegTTAModel'):
        cfg.tta_model.type = 'mmaib.SegTTAModel'
    draws = cfg.model.get('test_draws')
    if isinstance(draws, dict):  # of a view, not of what they are merged to
        draws.pop('uncertainty', None)
    datasets = configs_with('pipeline', cfg.test_dataloader, '')
    for _, dataset in [*datasets]:
        dataset['pipeline'] = cfg.get('tta_pipeline') or mirrored(
            dataset['pipeline']
        )
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def mirrored(pipeline: list[dict]) -> list[dict]:
    """A test pipeline that gives the image and its mirror image."""
    *steps, pack = pipeline
    if 'meta_keys' in pack:
        keys = (*pack['meta_keys'], 'flip', 'flip_direction')
        pack = dict(pack, meta_keys=tuple(dict.fromkeys(keys)))
    # the image itself first: it has the ground truth
    flips = [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)]
    return [*steps, dict(type='TestTimeAug', transforms=[flips, [pack]])]
