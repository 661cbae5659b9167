"""Does a second stage on a trained model make its probabilities true?

    python tools/experiments/calibration.py PLAIN STAGE2 --out DIR \\
        --seeds 1 2 3 4 5 6 7 8

trains PLAIN without every tenth image of its training set; then, from each
seed's checkpoint, STAGE2 (frozen='features') without noise, the fair
control, and with each of --kl-weights; as `study.py` does, so that
running it again skips what is finished and resumes what was interrupted.
PLAIN's calibrators (calibrators.py) are fitted on the tenth that no arm was
trained on, or on the test's data set with the options of --held-out, and then
all are trained on the whole.

All are measured on the test images and under shift: every --corruptions of
the package imagecorruptions in every --severities, the same images for all
arms and seeds, kept in DIR/images.

Classifiers (mmpretrain), detectors and segmentors, through their base
library's loader and metrics:

    C=configs/sample/bccd
    python tools/experiments/calibration.py \\
        $C/faster-rcnn_lite0_fpn_12e_bccd-256.py \\
        $C/latent-stage2_faster-rcnn_lite0_fpn_4e_bccd-256.py \\
        --out DIR --held-out ann_file=annotations/test.json \\
        --corruptions gaussian_noise fog --draws 8 --seeds 1 2 3 4 5

DIR/calibration.md has the table, made of the records (--records, by default
DIR/records.jsonl) alone: means, paired differences to plain, to two of
its calibrators and to the control, with intervals over seeds.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calibration_sets import EVERY, ImageSets, held_out
from calibration_table import (
    CONTROL,
    NOTE,
    PLAIN,
    Records,
    table,
)
from calibrators import FITS, OF_DETECTORS
from mmengine.registry import DATASETS, init_default_scope
from records import find_record, keep_record, records_of
from study import Arm, conclude, parsed, parser_of_runs, train_arms

from mmaib.cli.cfg_options import options_of
from mmaib.cli.loading import read_config
from mmaib.cli.parser import positive
from mmaib.preflight.checkpoint import load_safely
from mmaib.visualization.work_dirs import last_checkpoint

# where the weight of a second stage's KL stands
FIELDS = {
    'mmdet': 'model.roi_head.bbox_head.latent.beta',
    'mmseg': 'model.decode_head.latent.beta',
    'mmpretrain': 'model.head.latent.beta',
}


def parse_args() -> argparse.Namespace:
    parser = parser_of_runs(__doc__)
    add = parser.add_argument
    add('plain', type=Path)
    add('stage2', type=Path)
    add(
        '--kl-weights', nargs='*', type=float, default=[0.1, 0.3, 1.0],
        help='none: the calibrators alone, without a second stage',
    )  # fmt: skip
    add('--draws', type=positive, default=16, help='of the latent in a test')
    add(
        '--corruptions', nargs='*',
        help="of imagecorruptions; by default its 15 'common' ones",
    )  # fmt: skip
    add(
        '--severities', nargs='+', type=int, choices=range(1, 6),
        default=[1, 3, 5],
    )  # fmt: skip
    add('--max-images', type=positive, help='test on about so many, evenly')
    add(
        '--held-out', nargs='+', default=[],
        help="options of the test's data set that make it another one:\n"
        'calibrators are fitted on that',
    )  # fmt: skip
    args = parsed(parser)
    args.records = args.records or args.out / 'records.jsonl'
    # what is trained with each of the weights
    args.stages = {
        f'stage2-kl-{weight:g}': weight for weight in args.kl_weights
    }
    try:
        args.held_out = options_of(args.held_out, '--held-out')
        if not args.report_only:
            check(args)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return args


def check(args: argparse.Namespace) -> None:
    """Refuse what the study would stop at, or would lose.

    Raises:
        OSError, ValueError: naming the option.
    """
    args.corruptions = known_corruptions(args.corruptions)
    stage2 = read_config(args.stage2)
    if stage2.model.get('frozen') != 'features':
        raise ValueError(
            f"{args.stage2}: model.frozen must be 'features', got "
            f'{stage2.model.get("frozen")!r}'
        )
    if stage2.default_scope == 'mmdet' and args.max_images:
        raise ValueError(
            '--max-images: mmdet counts every image of its '
            'annotations; give it fewer by --cfg-options'
        )
    args.library = stage2.default_scope
    args.field = FIELDS[args.library]
    if args.held_out:
        cfg = read_config(args.plain, args.cfg_options)
        init_default_scope(cfg.default_scope)
        try:
            DATASETS.build(held_out(args, cfg))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f'--held-out {args.held_out}: {error}') from error
    for record in records_of(args.records):
        if record.get('settings') != settings(args):
            raise ValueError(
                f'{args.records} is of another test, '
                f'{record.get("settings")}, and would be lost or mixed with '
                f'this one, {settings(args)}: take another --records'
            )


def known_corruptions(names: list[str] | None) -> list[str]:
    """Those of the package that are asked for."""
    if names == []:
        return []
    try:
        from imagecorruptions import get_corruption_names
    except ImportError as error:
        raise ValueError(
            f'--corruptions needs imagecorruptions ({error}): pip install '
            'imagecorruptions, or --corruptions without a name for none'
        ) from error
    known = [*get_corruption_names('all')]
    if not {*(names or ())} <= {*known}:
        raise ValueError(
            f'--corruptions {names}: choose from {" ".join(known)}'
        )
    return names or [*get_corruption_names('common')]


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What a test is made of, for its records."""
    found = dict(
        corruptions=args.corruptions,
        severities=args.severities,
        draws=args.draws,
        max_images=args.max_images,
    )
    return {**found, 'held_out': args.held_out} if args.held_out else found


def arms_of(args: argparse.Namespace) -> list[Arm]:
    """What is trained, PLAIN first."""
    plain, stage2 = args.plain, args.stage2
    if not args.held_out:
        plain, stage2 = (
            without_held_out(path, args.out / 'configs', args.cfg_options)
            for path in (plain, stage2)
        )
    means = ['model.train_draws=mean', 'model.test_draws=mean']
    first = Arm(PLAIN, plain)
    if not args.stages:
        return [first]
    return [
        first,
        Arm(CONTROL, stage2, [*means, f'{args.field}=0'], first),
        *(
            Arm(name, stage2, [f'{args.field}={weight:g}'], first)
            for name, weight in args.stages.items()
        ),
    ]


def without_held_out(
    path: Path, folder: Path, options: Sequence[str] = ()
) -> Path:
    """A child of a config that leaves out the training images on which
    calibrators are fitted.

    Raises:
        SystemExit: if the config, or an option, which is stronger than the
            child, chooses images itself, or if the child would take the place
            of a config.
    """
    cfg = read_config(path, options)
    init_default_scope(cfg.default_scope)
    dataset = cfg.train_dataloader.dataset
    for field in ('dataset', 'datasets', 'indices'):
        if dataset.get(field) is not None:
            sys.exit(
                f'{path}: train_dataloader.dataset must be a data set '
                f'itself without indices, got {dataset.type} with '
                f'{field}: its every tenth image is held out for the '
                'calibrators; or name other images by --held-out'
            )
    child = folder / path.name
    if child.resolve() == path.resolve():
        sys.exit(f'{path} would be written over: take another --out')
    folder.mkdir(parents=True, exist_ok=True)
    child.write_text(
        f'_base_ = {str(path.resolve())!r}\n\n'
        'train_dataloader = dict(\n'
        f'    dataset=dict(indices=[i for i in range('
        f'{len(DATASETS.build(dataset))}) if i % {EVERY}]))\n'
    )
    return child


def measure_all(args: argparse.Namespace, arms: Sequence[Arm]) -> None:
    """The records of all finished runs that have none of this test yet."""
    own = settings(args)
    sets: ImageSets | None = None
    for seed, arm in ((seed, arm) for seed in args.seeds for arm in arms):
        work_dir = arm.work_dir(args.out, seed)
        plain = arm.name == PLAIN
        fits = fits_of(args.library) if plain else []
        names = [arm.name, *fits]
        if all(
            find_record(args.records, name, seed, arm.config) for name in names
        ):
            continue
        sets = sets or ImageSets(
            args, read_config(args.plain, args.cfg_options)
        )
        print('measure', work_dir, flush=True)
        options = [*args.cfg_options, *arm.options]
        if arm.name in args.stages:
            options.append(f'model.test_draws.latent={args.draws}')
        found = sets.figures(
            read_config(arm.config, options),
            str(last_checkpoint(work_dir)),
            fits,
        )
        of_run = json.loads((work_dir / 'record.json').read_text())
        for name, metrics in zip(names, found):
            record = dict(of_run, arm=name, settings=own, metrics=metrics)
            keep_record(args.records, name, record)


def fits_of(library: str) -> list[str]:
    """Names of the calibrators of a base library's models."""
    return [n for n in FITS if library == 'mmdet' or n not in OF_DETECTORS]


def figures_of(args: argparse.Namespace) -> Records:
    """The figures of every arm and seed that has a record."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    tests = []
    fits = fits_of(read_config(args.plain).default_scope)
    control = [CONTROL] if args.stages else []
    for name in (PLAIN, *fits, *control, *args.stages):
        found[name] = {}
        for seed in args.seeds:
            plain = name in (PLAIN, *fits)
            config = args.plain if plain else args.stage2
            if record := find_record(args.records, name, seed, config):
                found[name][seed] = record['metrics']
                tests.append(record['settings'])
    if other := next((test for test in tests if test != tests[0]), None):
        sys.exit(f'records of two tests, {tests[0]} and {other}: no table')
    return found


def main() -> None:
    args = parse_args()
    done = True
    if not args.report_only:
        load_safely()
        arms = arms_of(args)
        done = train_arms(arms, args, keep=False)
        if done:
            measure_all(args, arms)
    path = args.out / 'calibration.md'
    conclude(path, table(figures_of(args)), NOTE, done)


if __name__ == '__main__':
    main()
