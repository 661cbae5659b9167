"""Evaluate a checkpoint of any host with the host's own metrics."""

import argparse
import os.path as osp

import mmengine
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.registry import METRICS

from mmaib.hooks.visualization import scores_with_std
from mmaib.registry import type_name
from mmaib.reliability import preflight
from mmaib.reliability.launch import (
    argument_parser,
    build_runner,
    leave,
    load_config,
)
from mmaib.reliability.preflight.fields import configs_with

# for configs without one, as the hosts' own tools have it
TTA_MODELS = {
    'mmdet': dict(
        type='DetTTAModel',
        tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
    ),
    'mmseg': dict(type='SegTTAModel'),
    'mmpretrain': dict(type='AverageClsScoreTTA'),
}
FILES = {
    'pred': ('.pkl', '.pickle'),
    'metrics': ('.json', '.yml', '.yaml', '.pkl', '.pickle'),
}


def parse_args() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--out',
        help='dump predictions to this .pkl file; those of a segmentor also '
        'to a folder, as images of labels',
    )
    parser.add_argument(
        '--out-item',
        choices=list(FILES),
        help="what --out is for: predictions, or metrics ('.json', ...)",
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help="test-time augmentation by the config's tta_pipeline and "
        'tta_model; without them the image and its mirror image',
    )
    parser.add_argument('--show', action='store_true', help='show predictions')
    parser.add_argument(
        '--show-dir',
        help="save drawn predictions here; a detector's under the work dir",
    )
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds of each --show'
    )
    parser.add_argument(
        '--interval',
        type=int,
        default=1,
        help='of the images that a classifier shows',
    )
    args = parser.parse_args()
    if args.out_item and not args.out:
        parser.error('--out-item needs --out')
    args.out_item = args.out_item or 'pred'
    if not osp.isfile(args.checkpoint) and '://' not in args.checkpoint:
        parser.error(f'checkpoint: no file {args.checkpoint}')
    return args


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
    """Have the host's hook draw predictions."""
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
    # the image itself first: it tells the ground truth
    flips = [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)]
    return [*steps, dict(type='TestTimeAug', transforms=[flips, [pack]])]


def main() -> None:
    args = parse_args()
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
    with scores_with_std(runner.visualizer):
        metrics = runner.test()
    if is_main_process():
        preflight.tell_untrained(args.checkpoint, runner.model)
        if args.out and args.out_item == 'metrics':
            mmengine.dump(metrics, args.out)


if __name__ == '__main__':
    main()
    leave()
