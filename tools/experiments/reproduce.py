"""Every numbered table and figure of the papers, by one command each.

    python tools/experiments/reproduce.py --list
    python tools/experiments/reproduce.py --table aib/5 --dry-run
    python tools/experiments/reproduce.py --table aib/2 --rows 3
    python tools/experiments/reproduce.py --table aib/7 --gpus 8
    python tools/experiments/reproduce.py --figure rect/9

`--list` prints what each needs and how far it is. `--table` and `--figure`
train what is not finished, as `study.py` does, each run once for all that
take it, in `--out`/runs, and write the paper's layout, its figures beside
those of the runs; `--dry-run` prints the commands. `--rows` and `--columns`
take a part. `--gpus` is for each run; the learning rate follows the batch
(`auto_scale_lr`). docs/reproduce.md has the hours.

`--scale tiny` proves the commands in minutes: the same configs with an eighth
of the channels, for two epochs of sixteen images of other data, which the
package makes itself. Its figures mean nothing.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from papers import CELLS, HOURS, SAMPLES, SOURCES, TINY, Cell
from scipy.io import savemat
from study import (
    CONFIGS,
    Arm,
    PaperRow,
    conclude,
    finished,
    options_of_run,
    paper_table,
    parsed,
    parser_of_runs,
    train_arms,
)

from mmaib.cli.loading import read_config
from mmaib.cli.runs import command_of
from mmaib.datasets import digits, trees
from mmaib.visualization.work_dirs import last_checkpoint

# where the commands find the python that runs this
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
NARROWED = 8
WIDTHS = (
    'base_channels', 'channels', 'in_channels', 'last_conv',
    'latent_channels', 'mid_channels', 'out_channels', 'stem_channels',
)  # fmt: skip
# backbones without a field for their widths
FIXED = ('VGG', 'mmaib.EfficientNetFeatures', 'MobileNetV3')


def arms_of(rows: Sequence[PaperRow], pattern: str = '.*') -> list[Arm]:
    """Each once, and those that others start from."""
    found = [a for row in rows for a in row.arms.values()]
    found = [a for a in found if re.fullmatch(pattern, a.name)]
    found += [a.start for a in found if a.start]
    return [*{arm.name: arm for arm in found}.values()]


def hours(arms: Sequence[Arm], seeds: int) -> str:
    """GPU-hours, as far as they are estimated."""
    found = [
        next((h for p, h in HOURS.items() if re.search(p, a.name)), None)
        for a in arms
        if not a.test
    ]
    if None in found or not found:
        return '? h' if found else '-'
    return f'{seeds * sum(filter(None, found)):.0f} h'


def described(name: str, args: argparse.Namespace) -> str:
    """A line of the list: what it needs, and how far it is."""
    found = CELLS[name]
    arms = arms_of(found.rows(), found.arms)
    seeds = args.seeds or found.seeds
    runs = [arm.work_dir(args.runs, seed) for arm in arms for seed in seeds]
    done = sum(
        (run / file).exists()
        for run in runs
        for file in ('finished', 'metrics.json')
    )
    state = f'{len(arms)} arms, {done} of {len(runs)} runs'
    if not arms:
        state = 'no training' if found.commands else 'nothing to run'
    spent = hours(arms, len(seeds))
    return f'{name:14} {found.title:40} {state:24} {spent:>6}  {found.data}'


def chosen(found: Cell, args: argparse.Namespace) -> list[PaperRow]:
    """The part of a table that is asked for.

    Raises:
        SystemExit: if there is none, or if a row has nothing to be trained.
    """
    columns = args.columns or (TINY if args.tiny else None)

    def kept(cells: Mapping[str, Any]) -> dict[str, Any]:
        return {c: cells[c] for c in cells if c in (columns or cells)}

    every = found.rows()
    rows = [
        PaperRow(row.labels, kept(row.arms), kept(row.paper))
        for row in every
        if row.labels[0] in (args.rows or row.labels)
    ]
    if every and not arms_of(rows):
        names = ', '.join(dict.fromkeys(row.labels[0] for row in every))
        known = dict.fromkeys(c for r in every for c in (*r.arms, *r.paper))
        sys.exit(
            f'--rows {args.rows}, --columns {args.columns}: no config for '
            f'any of these; rows: {names}; columns: {", ".join(known)}'
        )
    if args.rows and (without := [r for r in rows if not r.arms]):
        labels = ', '.join(' '.join(row.labels[:2]) for row in without)
        sys.exit(f'--rows {args.rows}: no config for {labels}')
    return rows


def tiny_arm(arm: Arm, folder: Path) -> Arm:
    """The same of a narrowed model, whose config :func:`write_tiny` writes to
    the folder, without what an option says of the data."""
    options = [
        f'{field}={int(value) // NARROWED}'
        if field.rpartition('.')[2] in WIDTHS
        else f'{field}={value}'
        for field, value in (option.split('=') for option in arm.options)
        if '_dataloader.' not in field
    ]
    start = arm.start and tiny_arm(arm.start, folder)
    config = folder / arm.config.name
    return Arm(arm.name, config, options, start, arm.test)


def write_tiny(config: Path, out: Path) -> None:
    """A config of a narrowed model on sample data, for two epochs."""
    prefix = re.match(r'(aib\S*-literal_)?', config.stem)
    assert prefix
    sample = SAMPLES.get(config.stem[prefix.end() :])
    if sample:
        name = f'{sample.format(prefix[0])}.py'
        config = CONFIGS / 'sample' / name
    cfg = read_config(config)
    for name in ('train', 'val', 'test'):
        loader = cfg[f'{name}_dataloader']
        loader.update(batch_size=8, num_workers=0, persistent_workers=False)
        if sample:
            loader.dataset.indices = 16
        else:
            loader.dataset = dict(
                type='mmaib.ClutteredDigits',
                split='train' if name == 'train' else 'val',
                num_images=16,
                pipeline=[dict(type='PackInputs')],
            )
            cfg.model.head.num_classes = 10
    if 'max_iters' in cfg.train_cfg:
        cfg.train_cfg.update(max_iters=4, val_interval=2)
        cfg.default_hooks.checkpoint.interval = 2
    else:
        cfg.train_cfg.update(max_epochs=2, val_interval=1)
    backbone = cfg.model.backbone.get('backbone', cfg.model.backbone)
    narrow(cfg.model, 1 if sample or backbone.type in FIXED else NARROWED)
    out.parent.mkdir(parents=True, exist_ok=True)
    cfg.dump(out)


def narrow(part: Any, divisor: int) -> None:
    """Divide every width of a model's config, and drop pretrained weights."""
    if 'Pretrained' in str(part.get('init_cfg')):
        part.pop('init_cfg')
    for field, value in part.items():
        if isinstance(value, dict):
            narrow(value, divisor)
        elif field in WIDTHS and isinstance(value, int):
            part[field] = value // divisor if value > 3 else value
        elif field in WIDTHS and isinstance(value, (list, tuple)):
            part[field] = [width // divisor for width in value]


def sample_data(folder: Path) -> None:
    """Make the data of `--scale tiny`, and have configs find them."""
    for maker in (trees, digits):
        name = maker.__name__.rpartition('.')[2]
        if not (folder / name).exists():
            maker.build(folder / name)
    patches = folder / 'svhn' / 'test_32x32.mat'
    if not patches.exists():
        patches.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 9))
        content = dict(X=pixels.astype(np.uint8))
        savemat(patches, content)
    os.environ['MMAIB_DATA'] = str(folder)


def filled(
    found: Cell, rows: Sequence[PaperRow], out: Path, args: argparse.Namespace
) -> Iterator[str]:
    """A table's or figure's commands after its trainings, of the first
    seed."""
    seed = (*args.seeds, *found.seeds)[0]
    models = []
    for arm in arms_of(rows, found.arms):
        if not re.fullmatch(found.arms, arm.name):
            continue
        work_dir = arm.work_dir(args.runs, seed)
        weights = (arm.start or arm).work_dir(args.runs, seed)
        checkpoint = weights / 'last_checkpoint'
        if checkpoint.exists():
            checkpoint = last_checkpoint(weights)
        models.append(
            dict(
                run=arm.name,
                work_dir=work_dir,
                config=work_dir / arm.config.name,
                checkpoint=checkpoint,
            )
        )
    runs = ' '.join(f'{m["config"]}={m["checkpoint"]}' for m in models)
    for command in found.commands:
        if args.tiny and found.tiny:
            command += f' {found.tiny}'
        if '{work_dir}' in command or '{config}' in command:
            yield from (command.format(out=out, **m) for m in models)
        else:
            yield command.format(out=out, runs=runs)


def plot(
    found: Cell, rows: Sequence[PaperRow], args: argparse.Namespace
) -> Figure | None:
    """A panel of lines for each of the cell's: over seeds, or over the values
    of the rows; None of no run."""
    panels: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    assert found.lines
    for row in rows:
        for column, arm in row.arms.items():
            panel, line = found.lines(row, column)
            metric = found.metrics.get(column, 'accuracy/top1')
            for seed, run in finished(arm, args).items():
                x = seed if line else float(row.labels[1])
                panels[panel][line].append((x, run[metric]))
    if not panels:
        return None
    figure = Figure((4 * len(panels), 3.5), layout='constrained')
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (panel, lines) in zip(axes, panels.items()):
        for label, points in lines.items():
            axis.plot(*zip(*sorted(points)), 'o-', label=label)
        axis.set(title=panel, ylabel='accuracy, %')
        if '' in lines:
            axis.set_xscale('log')
        else:
            axis.legend(fontsize='small')
            axis.set_xlabel('split')
    return figure


def tiny_rows(
    rows: Sequence[PaperRow], args: argparse.Namespace
) -> list[PaperRow]:
    """The rows of narrowed models, without the paper's figures, and their
    configs and data on disk."""
    if not (args.dry_run or args.report_only):
        sample_data(args.configs.with_name('data'))
        for arm in arms_of(rows):
            write_tiny(arm.config, args.configs / arm.config.name)
    return [
        PaperRow(
            row.labels,
            {c: tiny_arm(arm, args.configs) for c, arm in row.arms.items()},
            {},
        )
        for row in rows
    ]


def train(arms: Sequence[Arm], args: argparse.Namespace) -> bool:
    """Train them, or print how; whether all are finished now."""
    if not args.dry_run:
        return args.report_only or not arms or train_arms(arms, args)
    for seed in args.seeds:
        for arm in arms:
            words = command_of(
                arm.config,
                seed,
                arm.work_dir(args.runs, seed),
                options_of_run(arm, seed, args),
                args.gpus,
            )
            if not arm.test:
                print(shlex.join(['python', *words]))
    return True


def make(name: str, args: argparse.Namespace) -> None:
    """Train what a table or figure needs, and write it."""
    found = CELLS[name]
    rows = chosen(found, args)
    args.seeds = args.seeds or [*found.seeds][: 1 if args.tiny else None]
    out = args.out / re.sub('[ /]', '-', name)
    args.out = args.runs
    if args.tiny:
        rows = tiny_rows(rows, args)
    else:
        # a batch of another size than the config's, on fewer GPUs
        args.cfg_options = ['auto_scale_lr.enable=True', *args.cfg_options]
    done = train(arms_of(rows, found.arms), args)
    if found.head and not args.dry_run:
        note = f'{found.note} Last epoch (best epoch), mean ± standard '
        note += f'deviation over seeds {" ".join(map(str, args.seeds))}.'
        if args.tiny:
            note += ' Narrowed models on sample data: no figures of the paper.'
        table = paper_table(found.head, rows, args, found.metrics, found.show)
        conclude(out / 'table.md', table, note)
    if (
        found.lines
        and not args.dry_run
        and (figure := plot(found, rows, args))
    ):
        figure.savefig(out / 'plot.png')
    if not done:
        sys.exit('some runs failed: see above')
    for command in filled(found, rows, out, args):
        print(command, flush=True)
        if not args.dry_run:
            out.mkdir(parents=True, exist_ok=True)
            env = {**os.environ, 'PATH': PATH}
            if subprocess.run(
                command, shell=True, cwd=CONFIGS.parent, env=env
            ).returncode:
                sys.exit('stopped: this command failed')


def main() -> None:
    parser = parser_of_runs(
        __doc__, Path('work_dirs/reproduce'), seeds=(), jobs=1
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('--list', action='store_true')
    for kind in ('table', 'figure'):
        names = [n.split()[1] for n in CELLS if n.startswith(kind)]
        what.add_argument(
            f'--{kind}', choices=names, metavar='PAPER/N', help=' '.join(names)
        )
    parser.add_argument(
        '--scale',
        choices=('paper', 'tiny'),
        default='paper',
        help='tiny: narrowed models on sample data',
    )
    parser.add_argument('--rows', nargs='+', help='by their first cells')
    parser.add_argument('--columns', nargs='+')
    parser.add_argument('--dry-run', action='store_true')
    args = parsed(parser)
    args.tiny = args.scale == 'tiny'
    args.out = args.out.resolve() / ('tiny' if args.tiny else '')
    args.runs, args.configs = args.out / 'runs', args.out / 'configs'
    if args.list:
        print(*(described(name, args) for name in CELLS), sep='\n')
        print(SOURCES)
        return
    kind = 'table' if args.table else 'figure'
    name = f'{kind} {args.table or args.figure}'
    if not (arms_of(CELLS[name].rows()) or CELLS[name].commands):
        sys.exit(f'{name}, {CELLS[name].title}: nothing to run')
    make(name, args)


if __name__ == '__main__':
    main()
