"""Does a second stage on a trained model make its probabilities true?

    python tools/experiments/calibration.py PLAIN STAGE2 --out DIR \\
        --seeds 1 2 3 4 5 6 7 8

trains PLAIN without every tenth image of its training set; then, from each
seed's checkpoint, STAGE2 (freeze='features') without noise, the fair
control, and with each of --kl-weights; as `study.py` does, so that
running it again skips what is finished and resumes what was interrupted. A
temperature for PLAIN is fitted on the tenth that no arm was trained on, or on
the test's data set with the options of --held-out, and then all are trained on
the whole. --others names more configs, trained from the start.

All are measured on the test images and under shift: every --corruptions of
the package imagecorruptions in every --severities, the same images for all
arms and seeds, kept in DIR/images. With --ood the AUROC separates images
of a folder by the lack of confidence and by the uncertainty of the samples.

Classifiers (mmpretrain), detectors and segmentors, through their base
library's loader and metrics:

    C=configs/sample/bccd
    python tools/experiments/calibration.py \\
        $C/faster-rcnn_lite0_fpn_12e_bccd-256.py \\
        $C/latent-stage2_faster-rcnn_lite0_fpn_4e_bccd-256.py \\
        --out DIR --held-out ann_file=annotations/test.json \\
        --corruptions gaussian_noise fog --draws 8 --seeds 1 2 3 4 5

DIR/calibration.md has the table, made of the records alone: means, paired
differences to plain, to temperature scaling and to the control, with
bootstrap intervals over seeds.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from calibration_sets import EVERY, ImageSets, held_out
from calibration_table import (
    CONTROL,
    PLAIN,
    REFERENCES,
    TEMPERATURE,
    Records,
    table,
)
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from study import add_arguments_of_runs, check_runs

from mmaib import compat
from mmaib.cli.cfg_options import CfgOptions, options_of
from mmaib.cli.runs import (
    find_record,
    keep_record,
    refuse_other_record,
    train_all,
)
from mmaib.preflight.checkpoint import load_safely
from mmaib.visualization.image_sources import images
from mmaib.visualization.work_dirs import last_checkpoint, read_records

# where the weight of a second stage's KL stands
FIELDS = {
    'mmdet': 'model.roi_head.bbox_head.latent.beta',
    'mmseg': 'model.decode_head.latent.beta',
    'mmpretrain': 'model.head.latent.beta',
}


class Arm(NamedTuple):
    """One row: a config, its options, and whether it starts from PLAIN."""

    name: str
    config: Path
    options: list[str]
    from_plain: bool = False
    draws: bool = False


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('plain', type=Path)
    parser.add_argument('stage2', type=Path)
    parser.add_argument('--others', nargs='+', type=Path, default=[])
    parser.add_argument(
        '--kl-weights', nargs='+', type=float, default=[0.1, 0.3, 1.0]
    )
    parser.add_argument(
        '--field',
        help="the weight in STAGE2; by default its one head's",
    )
    parser.add_argument(
        '--draws', type=int, default=16, help='of the latent in a test'
    )
    parser.add_argument(
        '--corruptions',
        nargs='*',
        help="of imagecorruptions; by default its 15 'common' ones",
    )
    parser.add_argument('--severities', nargs='+', type=int, default=[1, 3, 5])
    parser.add_argument('--ood', type=Path, help='folder of images')
    parser.add_argument(
        '--max-images', type=int, help='test on about so many, evenly taken'
    )
    parser.add_argument(
        '--held-out',
        nargs='+',
        action=CfgOptions,
        help="options of the test's data set that make it another one: a\n"
        'temperature is fitted on that',
    )
    add_arguments_of_runs(parser)
    args = parser.parse_args()
    check_runs(parser, args)
    if min(args.kl_weights) <= 0 or len({*args.kl_weights}) < len(
        args.kl_weights
    ):
        parser.error(f'--kl-weights must be > 0, got {args.kl_weights}')
    if args.draws < 2:
        parser.error(f'--draws must be >= 2, got {args.draws}')
    if args.max_images is not None and args.max_images < 1:
        parser.error(f'--max-images must be >= 1, got {args.max_images}')
    if not {*args.severities} <= {*range(1, 6)} or len(
        {*args.severities}
    ) < len(args.severities):
        parser.error(
            f'--severities must be some of 1 to 5, got {args.severities}'
        )
    check_names(parser, args)
    if not args.report_only:
        args.corruptions = check_corruptions(parser, args.corruptions)
        if args.ood:
            try:
                images(args.ood)
            except FileNotFoundError as error:
                parser.error(f'--ood {error}')
        check_stage2(parser, args)
        check_held_out(parser, args)
        check_records(parser, args)
    return args


def check_names(
    parser: argparse.ArgumentParser, args: argparse.Namespace
) -> None:
    """Refuse two arms in one folder, and a config in the place of its own
    child."""
    configs = [args.plain, args.stage2, *args.others]
    stems = [path.stem for path in configs]
    taken = [*REFERENCES, *weight_names(args)]
    if len({*stems}) < len(stems) or {*stems} & {*taken}:
        parser.error(
            'configs must differ in their file names, and from '
            f'{", ".join(taken)}: got {", ".join(stems)}'
        )
    for path in () if args.report_only else configs:
        if not path.is_file():
            parser.error(f'no file {path}')
        if path.resolve().parent == children_of(args).resolve():
            parser.error(
                f'--out {args.out}: configs of its own go to '
                f'{children_of(args)}, where {path} is; take another folder'
            )


def children_of(args: argparse.Namespace) -> Path:
    """Where configs go that leave out the images that are held out."""
    return args.out / 'configs'


def weight_names(args: argparse.Namespace) -> list[str]:
    return [f'stage2-kl-{weight:g}' for weight in args.kl_weights]


def row_names(args: argparse.Namespace) -> list[str]:
    """Of all rows of the table, in their order."""
    others = [path.stem for path in args.others]
    return [*REFERENCES, *weight_names(args), *others]


def check_held_out(
    parser: argparse.ArgumentParser, args: argparse.Namespace
) -> None:
    """Build the data set that a temperature is fitted on."""
    if not args.held_out:
        return
    cfg = merged(args.plain, args.cfg_options)
    init_default_scope(cfg.default_scope)
    try:
        DATASETS.build(held_out(args, cfg))
    except (OSError, KeyError, TypeError, ValueError) as error:
        parser.error(f'--held-out {args.held_out}: {error}')


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What a test is made of, for its records."""
    found = dict(
        corruptions=args.corruptions,
        severities=args.severities,
        draws=args.draws,
        ood=args.ood and str(args.ood),
        max_images=args.max_images,
    )
    return {**found, 'held_out': args.held_out} if args.held_out else found


def check_records(
    parser: argparse.ArgumentParser, args: argparse.Namespace
) -> None:
    """Refuse to write over figures of another test."""
    folders = [args.out / name for name in row_names(args)]
    there = [p for f in folders for p in f.glob('seed_*/calibration.json')]
    found_of = [(p, json.loads(p.read_text())) for p in there]
    if args.records:
        found_of += [(args.records, r) for r in read_records(args.records)]
    for path, record in found_of:
        found = record.get('settings')
        if found != settings(args):
            parser.error(
                f'{path} is of another test, {found}, and would be lost or '
                f'mixed with this one, {settings(args)}: move it away, or '
                'take another --out and --records'
            )


def check_corruptions(
    parser: argparse.ArgumentParser, names: list[str] | None
) -> list[str]:
    """Those of the package that are asked for."""
    if names == []:
        return []
    try:
        from imagecorruptions import get_corruption_names
    except ImportError as error:
        parser.error(
            f'--corruptions needs imagecorruptions ({error}): pip install '
            'imagecorruptions, or --corruptions without a name for none'
        )
    known = [*get_corruption_names('common')]
    known_too = [*known, *get_corruption_names('validation')]
    if unknown := [name for name in names or () if name not in known_too]:
        parser.error(
            f'--corruptions {" ".join(unknown)}: choose from '
            f'{" ".join(known_too)}'
        )
    return names or known


def check_stage2(
    parser: argparse.ArgumentParser, args: argparse.Namespace
) -> None:
    compat.register_config_sources()
    cfg = Config.fromfile(args.stage2)
    if cfg.model.get('freeze') != 'features':
        parser.error(
            f"{args.stage2}: model.freeze must be 'features', got "
            f'{cfg.model.get("freeze")!r}'
        )
    args.field = args.field or FIELDS[cfg.default_scope]
    # a head without a latent=dict(...) has its defaults
    head, _, field = args.field.rpartition('.latent.')
    owner: Any = cfg.to_dict()
    for name in head.split('.'):
        owner = owner.get(name) if isinstance(owner, Mapping) else None
    if field != 'beta' or not isinstance(owner, Mapping):
        parser.error(
            f'--field {args.field}: must be HEAD.latent.beta, of a head in '
            f'{args.stage2}'
        )
    if cfg.default_scope == 'mmdet' and args.max_images:
        parser.error(
            '--max-images: mmdet counts every image of its '
            'annotations; give it fewer by --cfg-options'
        )


# Arms and their training
def arms(args: argparse.Namespace, configs: Mapping[Path, Path]) -> list[Arm]:
    """What is trained, PLAIN first."""
    own, stage2 = args.cfg_options, configs[args.stage2]
    without = ['model.train_draws=mean', f'{args.field}=0']
    return [
        Arm(PLAIN, configs[args.plain], own),
        *(Arm(path.stem, configs[path], own) for path in args.others),
        Arm(
            CONTROL,
            stage2,
            [*own, *without, 'model.test_draws=mean'],
            from_plain=True,
        ),
        *(
            Arm(
                name,
                stage2,
                [*own, f'{args.field}={weight:g}'],
                from_plain=True,
                draws=True,
            )
            for name, weight in zip(weight_names(args), args.kl_weights)
        ),
    ]


def without_held_out(
    paths: Sequence[Path], folder: Path, options: Sequence[str] = ()
) -> dict[Path, Path]:
    """Each config as a child that leaves out the training images on which
    the temperature is fitted.

    Raises:
        SystemExit: if a config, or an option, which is stronger than the
            child, chooses images itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    children = {}
    for path in paths:
        cfg = merged(path, options)
        init_default_scope(cfg.default_scope)
        dataset = cfg.train_dataloader.dataset
        for field in ('dataset', 'datasets', 'indices'):
            if dataset.get(field) is not None:
                sys.exit(
                    f'{path}: train_dataloader.dataset must be a data set '
                    f'itself without indices, got {dataset.type} with '
                    f'{field}: its every tenth image is held out for the '
                    'temperature; or name other images by --held-out'
                )
        count = len(DATASETS.build(dataset))
        children[path] = folder / path.name
        children[path].write_text(
            f'_base_ = {str(path.resolve())!r}\n\n'
            'train_dataloader = dict(\n'
            f'    dataset=dict(indices=[i for i in range({count}) '
            f'if i % {EVERY}]))\n'
        )
    return children


def train(args: argparse.Namespace, every_arm: Sequence[Arm]) -> bool:
    """Every arm and seed, PLAIN before what starts from it; whether all are
    finished."""
    done = True
    for from_plain in (False, True):
        runs = [
            (
                arm.config,
                seed,
                args.out / arm.name / f'seed_{seed}',
                trained_with(args, arm, seed),
                arm.name,
            )
            for seed in args.seeds
            for arm in every_arm
            if arm.from_plain is from_plain and done
        ]
        for run in runs if args.records else ():
            refuse_other_record(args.records, *run)
        done = done and train_all(runs, args.jobs, code=args.commit)
    return done


def trained_with(args: argparse.Namespace, arm: Arm, seed: int) -> list[str]:
    if not arm.from_plain:
        return arm.options
    start = last_checkpoint(args.out / PLAIN / f'seed_{seed}')
    return [*arm.options, f'load_from={start}']


def merged(config: Path, options: Sequence[str]) -> Config:
    """A config with options as the command line has them."""
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(options_of(options))
    return cfg


def measure_all(args: argparse.Namespace, every_arm: Sequence[Arm]) -> None:
    """The records of all finished runs that have none of this test yet."""
    own = settings(args)
    sets: ImageSets | None = None
    for seed in args.seeds:
        for arm in every_arm:
            work_dir = args.out / arm.name / f'seed_{seed}'
            names = [arm.name, *([TEMPERATURE] if arm.name == PLAIN else [])]
            paths = [record_path(args.out, name, seed) for name in names]
            if all(is_of(path, own) for path in paths):
                for name, path in zip(names, paths):
                    keep(path, args.records, name)
                continue
            if sets is None:
                sets = ImageSets(args, merged(args.plain, args.cfg_options))
            print('measure', work_dir, flush=True)
            draws = f'model.test_draws.latent={args.draws}'
            options = [*arm.options, *([draws] if arm.draws else [])]
            found = sets.figures(
                merged(arm.config, options),
                str(last_checkpoint(work_dir)),
                scaled=arm.name == PLAIN,
            )
            of_run = json.loads((work_dir / 'record.json').read_text())
            for name, path, metrics in zip(names, paths, found):
                record = dict(of_run, arm=name, settings=own, metrics=metrics)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(record, indent=1) + '\n')
                keep(path, args.records, name)


def record_path(out: Path, name: str, seed: int) -> Path:
    return out / name / f'seed_{seed}' / 'calibration.json'


def is_of(path: Path, own: Mapping[str, Any]) -> bool:
    """Whether a record is there, of a test like this one."""
    if not path.exists():
        return False
    return json.loads(path.read_text()).get('settings') == own


def keep(path: Path, records: Path | None, name: str) -> None:
    if records:
        keep_record(records, name, json.loads(path.read_text()))


def figures_of(args: argparse.Namespace) -> Records:
    """The figures of every arm and seed, of the runs or of the records."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    tests = []
    for name in row_names(args):
        found[name] = {}
        for seed in args.seeds:
            path = record_path(args.out, name, seed)
            record = (
                json.loads(path.read_text())
                if path.exists()
                else find_record(args.records, name, seed)
            )
            if record:
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
        configs = [args.plain, *args.others, args.stage2]
        used = (
            {path: path for path in configs}
            if args.held_out
            else without_held_out(configs, children_of(args), args.cfg_options)
        )
        every_arm = arms(args, used)
        done = train(args, every_arm)
        if done:
            measure_all(args, every_arm)
    args.out.mkdir(parents=True, exist_ok=True)
    text = table(figures_of(args))
    (args.out / 'calibration.md').write_text(text)
    print(text)
    if not done:
        sys.exit('some runs failed: see above')


if __name__ == '__main__':
    main()
