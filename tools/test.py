"""Evaluate a checkpoint of any host with the host's own metrics."""

import argparse
import os.path as osp

from mmengine.config import Config
from mmengine.evaluator import DumpResults

from mmaib.reliability import preflight
from mmaib.reliability.launch import (
    argument_parser,
    build_runner,
    leave,
    load_config,
)


def parse_args() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', help='dump predictions to this .pkl')
    parser.add_argument('--show', action='store_true', help='show predictions')
    parser.add_argument(
        '--show-dir', help='save drawn predictions here, under the work dir'
    )
    args = parser.parse_args()
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out must be a .pkl file, got {args.out}')
    if not osp.isfile(args.checkpoint) and '://' not in args.checkpoint:
        parser.error(f'checkpoint: no file {args.checkpoint}')
    return args


def apply_options(cfg: Config, args: argparse.Namespace) -> None:
    """Merge what only a test knows into the config."""
    cfg.load_from = args.checkpoint
    if args.show or args.show_dir:
        if 'visualization' not in cfg.default_hooks:
            raise ValueError(
                '--show and --show-dir need default_hooks.visualization in '
                f'{args.config}'
            )
        hook = cfg.default_hooks.visualization
        if cfg.default_scope == 'mmpretrain':
            hook.update(enable=True, interval=1, show=args.show)
            hook.out_dir = args.show_dir
        else:
            hook.update(draw=True, show=args.show)
            if args.show_dir:
                hook.test_out_dir = args.show_dir


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    apply_options(cfg, args)
    preflight.check_checkpoint('checkpoint', args.checkpoint)
    runner = build_runner(cfg, ('test_dataloader',))
    if args.out:
        runner.test_evaluator.metrics.append(DumpResults(args.out))
    runner.test()
    leave()


if __name__ == '__main__':
    main()
