"""Every numbered table and figure of the papers, by one command each.

    python tools/experiments/reproduce.py --list
    python tools/experiments/reproduce.py --table aib/5 --dry-run
    python tools/experiments/reproduce.py --table aib/2 --rows 3
    python tools/experiments/reproduce.py --figure rect/9

`--list` prints what each needs and how far it is. `--table` and `--figure`
train what is not finished, as `study.py` does, each in a folder of its own in
`--out`, and write the paper's layout, its figures beside ours; `--dry-run`
prints the commands. `--rows` and `--columns` take a part of a table.
`--scale tiny` takes shrunken models on sample data instead: another data set,
whose figures are not the paper's.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from papers import CELLS, SCORES, Commands, Study
from study import (
    CONFIGS,
    Arm,
    PaperRow,
    conclude,
    paper_table,
    parsed,
    parser_of_runs,
    train_arms,
)

# where the commands find the python that runs this
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])


def arms_of(rows: Sequence[PaperRow]) -> list[Arm]:
    """Each once."""
    arms = {a.name: a for row in rows for a in row.arms.values()}
    return [*arms.values()]


def folder_of(root: Path, name: str, tiny: bool) -> Path:
    name = re.sub('[ /]', '-', name)
    return root.resolve() / (f'{name}-tiny' if tiny else name)


def state(name: str, args: argparse.Namespace) -> str:
    """How far a table or figure is."""
    found = CELLS[name]
    if isinstance(found, Commands):
        missing = 'no command yet' if found.data != '-' else 'nothing to run'
        return 'by commands' if found.commands else missing
    folder = folder_of(args.out, name, args.tiny)
    arms = arms_of(found.rows(args.tiny))
    seeds = args.seeds or found.seeds
    runs = [arm.work_dir(folder, seed) for arm in arms for seed in seeds]
    done = sum((run / 'finished').exists() for run in runs)
    return f'{len(arms)} arms, {done} of {len(runs)} runs'


def commands_of(name: str, args: argparse.Namespace) -> list[str]:
    """What makes a table or figure of trained models, or of none."""
    found = CELLS[name]
    assert isinstance(found, Commands)
    out = shlex.quote(str(folder_of(args.out, name, args.tiny)))
    source = CELLS.get(found.of or '')
    if not isinstance(source, Study):
        return [command.format(out=out) for command in found.commands]
    folder = folder_of(args.out, str(found.of), args.tiny)
    seed = (*args.seeds, *source.seeds)[0]
    runs = [
        (arm, shlex.quote(str(arm.work_dir(folder, seed))))
        for arm in arms_of(source.rows(args.tiny))
        if re.fullmatch(found.arms, arm.name)
    ]
    if found.commands == [SCORES]:
        folders = ' '.join(work_dir for _, work_dir in runs)
        return [SCORES.format(out=out, runs=folders)]
    return [
        command.format(
            out=out,
            run=arm.name,
            config=f'{work_dir}/{arm.config.name}',
            checkpoint=f'"$(cat {work_dir}/last_checkpoint)"',
        )
        for command in found.commands
        for arm, work_dir in runs
    ]


def chosen(
    rows: Sequence[PaperRow], args: argparse.Namespace
) -> list[PaperRow]:
    """The part of a table that is asked for.

    Raises:
        SystemExit: if there is none, or if a row has nothing to be trained.
    """

    def kept(cells: Mapping[str, str] | Mapping[str, Arm]) -> dict:
        return {
            column: cells[column]
            for column in cells
            if column in (args.columns or cells)
        }

    found = [
        PaperRow(row.labels, kept(row.arms), kept(row.paper))
        for row in rows
        if row.labels[0] in (args.rows or row.labels)
    ]
    names = ', '.join(dict.fromkeys(row.labels[0] for row in rows))
    columns = dict.fromkeys(c for r in rows for c in (*r.arms, *r.paper))
    if not arms_of(found):
        sys.exit(
            f'--rows {args.rows}, --columns {args.columns}: no config for '
            f'any of these; rows: {names}; columns: {", ".join(columns)}'
        )
    if args.rows and (without := [r for r in found if not r.arms]):
        labels = ', '.join(' '.join(row.labels[:2]) for row in without)
        sys.exit(f'--rows {args.rows}: no config for {labels}')
    return found


def study(name: str, args: argparse.Namespace) -> None:
    """Train what a table needs, and write it."""
    found = CELLS[name]
    assert isinstance(found, Study)
    rows = chosen(found.rows(args.tiny), args)
    args.seeds = args.seeds or found.seeds
    args.out = folder_of(args.out, name, args.tiny)
    arms = arms_of(rows)
    if args.dry_run:
        for seed in args.seeds:
            for arm in arms:
                words = ['python', '-m', 'mmaib', 'train', arm.config]
                words += ['--work-dir', arm.work_dir(args.out, seed)]
                words += ['--resume', '--cfg-options', *args.cfg_options]
                words += [o.replace('{seed}', f'{seed}') for o in arm.options]
                words.append(f'randomness.seed={seed}')
                print(shlex.join(map(str, words)))
        return
    done = args.report_only or train_arms(arms, args)
    note = (
        f'{found.note} Last epoch, mean ± standard deviation over the '
        f'finished of seeds {" ".join(map(str, args.seeds))}.'
    ).strip()
    if args.tiny:
        note += ' Shrunken models on sample data: no figures of the paper.'
    table = paper_table(found.head, rows, args, found.metrics, found.show)
    conclude(args, 'table.md', table, note, done)


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
        help='tiny: shrunken models on sample data',
    )
    parser.add_argument('--rows', nargs='+', help='by their first cells')
    parser.add_argument('--columns', nargs='+')
    parser.add_argument('--dry-run', action='store_true')
    args = parsed(parser)
    args.tiny = args.scale == 'tiny'
    if args.list:
        for name, found in CELLS.items():
            now = state(name, args)
            data = 'sample data' if args.tiny else found.data
            print(f'{name:14} {found.title:40} {now:24} {data}')
        return
    kind = 'table' if args.table else 'figure'
    name = f'{kind} {args.table or args.figure}'
    if isinstance(CELLS[name], Study):
        study(name, args)
        return
    commands = commands_of(name, args)
    if not commands:
        sys.exit(f'{name}, {CELLS[name].title}: {state(name, args)}')
    for command in commands:
        print(command, flush=True)
        if not args.dry_run:
            folder_of(args.out, name, args.tiny).mkdir(
                parents=True, exist_ok=True
            )
            subprocess.run(
                command,
                shell=True,
                check=True,
                cwd=CONFIGS.parent,
                env={**os.environ, 'PATH': PATH},
            )


if __name__ == '__main__':
    main()
