"""Train several configs over several seeds and tabulate them, resumably.

Each run is `mmaib train` in a process of its own on one thread. Running
the command again skips finished runs and resumes interrupted ones. The table
is written from the runs' logs; the first config is the baseline of the
paired differences.

    python tools/experiments/study.py BASELINE.py AIB.py AIB_QT.py \\
        --out work_dirs/studies/bccd --seeds 1 2 3 4 5

Where the maps were evaluated (mmaib.AttentionEvalHook) the table shows what
the first metric loses when they are mirrored, flattened, shuffled, and where
they look.

Each finished run leaves a record.json: metrics, seed, options, commit,
versions, seconds. `--records FILE.jsonl` keeps it as a line, from
which the table is written on another machine too; FILE.jsonl#SET keeps runs
with other --cfg-options apart in the same file.

The other studies of this folder are data for :func:`train_arms` and
:func:`conclude`.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mmaib.cli.runs import commit, find_record, read_log, train_all
from mmaib.visualization.tables import (
    METRICS,
    Column,
    Runs,
    cell,
    columns_of_maps,
    columns_of_metrics,
    markdown,
    metrics_to_tabulate,
    tabulate,
    values,
    with_nothing_found,
)
from mmaib.visualization.work_dirs import (
    SECONDS,
    labelled,
    last_checkpoint,
    read_records,
)

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


class Arm(NamedTuple):
    """What is trained with every seed.

    Attributes:
        name: of its folder and of its records.
        config: path.
        options: of the config, with ``{seed}`` in place of the seed.
        start: name of the arm from whose checkpoint of the same seed it
            starts.
    """

    name: str
    config: Path
    options: Sequence[str] = ()
    start: str | None = None

    def work_dir(self, out: Path, seed: int) -> Path:
        return out / self.name / f'seed_{seed}'


class PaperRow(NamedTuple):
    """A row of a paper's table.

    Attributes:
        labels: its first cells.
        arms: by the column that has its figure.
        paper: the paper's figures as printed, by column.
    """

    labels: tuple[str, ...]
    arms: Mapping[str, Arm]
    paper: Mapping[str, str]


def parser_of_runs(
    description: str | None,
    out: Path | None = None,
    seeds: Sequence[int] = (1, 2, 3),
    jobs: int = 2,
) -> argparse.ArgumentParser:
    """How runs are started and where they are kept."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add = parser.add_argument
    add('--out', type=Path, default=out, required=out is None)
    add('--records', type=Path, help='FILE.jsonl[#SET] for finished runs')
    add('--commit', default=commit(), help="of the code; git's by default")
    add('--seeds', nargs='+', type=int, default=seeds)
    add('--jobs', type=int, default=jobs)
    add('--cfg-options', nargs='+', default=[], help='for mmaib train')
    add('--report-only', action='store_true', help='train nothing')
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments, without two runs in one folder."""
    args = parser.parse_args()
    if args.jobs < 1:
        parser.error(f'--jobs must be >= 1, got {args.jobs}')
    if len({*args.seeds}) < len(args.seeds):
        parser.error(f'--seeds must differ, got {args.seeds}')
    return args


def train_arms(
    arms: Sequence[Arm], args: argparse.Namespace, keep: bool = True
) -> bool:
    """Train what is not finished, seed by seed, so that an unfinished study
    is still paired, and after all others what starts from another arm.

    Args:
        arms: of the study.
        args: of the command.
        keep: what runs ended with among the records; without, nothing that
            is there already is of other options.

    Returns:
        whether all are finished now.
    """
    by_name = {arm.name: arm for arm in arms}

    def run(arm: Arm, seed: int) -> tuple:
        options = [*args.cfg_options]
        options += [o.replace('{seed}', str(seed)) for o in arm.options]
        if arm.start:
            start = by_name[arm.start].work_dir(args.out, seed)
            options.append(f'load_from={last_checkpoint(start)}')
        work_dir = arm.work_dir(args.out, seed)
        return arm.config, seed, work_dir, options, arm.name

    return all(
        train_all(
            [
                run(arm, seed)
                for seed in args.seeds
                for arm in arms
                if bool(arm.start) is later
            ],
            args.jobs,
            args.records,
            args.commit,
            keep,
        )
        for later in (False, True)
    )


def finished(arm: Arm, args: argparse.Namespace) -> Runs:
    """The metrics of the seeds that are finished, of their logs or records."""
    found = {}
    for seed in args.seeds:
        metrics = read_log(arm.work_dir(args.out, seed))
        if not metrics:
            record = find_record(args.records, arm.name, seed) or {}
            metrics = record.get('metrics')
        if metrics:
            found[seed] = metrics
    return found


def paper_table(
    head: Sequence[str],
    rows: Sequence[PaperRow],
    args: argparse.Namespace,
    metrics: Mapping[str, str],
    show: Callable[[Sequence[float]], str],
) -> list[str]:
    """The paper's layout, with its figures beside ours.

    Args:
        head: of the rows' labels.
        rows: of the table.
        args: of the command.
        metrics: of the logs, by column; accuracy by default.
        show: one cell of the table.
    """
    columns = dict.fromkeys(c for r in rows for c in (*r.arms, *r.paper))
    known = {column for row in rows for column in row.paper}
    lines = [[*head]]
    for column in columns:
        lines[0].append(f'{column}, here')
        lines[0] += [f'{column}, paper'] * (column in known)
    for row in rows:
        line = [*row.labels]
        for column in columns:
            metric = metrics.get(column, 'accuracy/top1')
            arm = row.arms.get(column)
            found = values(finished(arm, args), metric) if arm else []
            line.append(show(found) if arm else '-')
            if column in known:
                line.append(row.paper.get(column, '-'))
        lines.append(line)
    return markdown(lines)


def conclude(
    args: argparse.Namespace,
    name: str,
    lines: Sequence[str],
    note: str,
    done: bool = True,
) -> None:
    """Write a table to a file of this name, and print it.

    Raises:
        SystemExit: if not all runs are done.
    """
    command = ' '.join(['python', *sys.argv])
    text = '\n'.join([*lines, '', f'{note} Command: `{command}`', ''])
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / name).write_text(text)
    print(text)
    if not done:
        sys.exit('some runs failed: see above')


def parse_args() -> argparse.Namespace:
    parser = parser_of_runs(__doc__)
    add = parser.add_argument
    add('configs', nargs='+', type=Path)
    add(
        '--readout', nargs='+', type=Path, default=[],
        help="configs that start from the first config's checkpoint of the\n"
        'same seed',
    )  # fmt: skip
    add(
        '--metrics', nargs='+', default=[],
        help='fields of the last evaluation, as in the log; by default\n'
        f'those of {", ".join(METRICS)} that are there',
    )  # fmt: skip
    add(
        '--compare', nargs='+', type=Path, default=[],
        help='more records, such as of other --cfg-options: FILE.jsonl or\n'
        'sets in it, "FILE.jsonl#SET-*"; a row for each config in each,\n'
        'named by its set or file',
    )  # fmt: skip
    add(
        '--interval', action='store_true',
        help="after each mean half of its 95 %% interval, by Student's t\n"
        'over seeds, not the standard deviation',
    )  # fmt: skip
    args = parsed(parser)
    for path in args.compare:
        if not read_records(path):
            parser.error(f'--compare {path}: no records there')
    configs = [*args.configs, *args.readout]
    if len({config.stem for config in configs}) < len(configs):
        parser.error('configs must differ in their file names')
    return args


def other_records(path: Path) -> dict[str, Runs]:
    """The metrics of each config's seeds in a file of records, by the set or
    the file, and the config's name up to its first underscore, where that is
    one config's alone."""
    records: dict[str, dict[int, dict[str, float]]] = defaultdict(dict)
    for record in read_records(path):
        key = labelled(record, path.stem)
        records[key][record['seed']] = record['metrics']
    short = [name.partition('_')[0] for name in records]
    return {
        name if short.count(first) > 1 else first: runs
        for first, (name, runs) in zip(short, records.items())
    }


def table(arms: Sequence[Arm], args: argparse.Namespace) -> list[str]:
    """Of what was run so far, a row a config."""
    logs = {arm.name: finished(arm, args) for arm in arms}
    for path in args.compare:
        logs.update(other_records(path))
    rows = with_nothing_found(logs)
    metrics = metrics_to_tabulate(args.metrics, rows.values())
    show = partial(cell, interval=args.interval)
    seconds = partial(values, name=SECONDS)
    columns = [
        *columns_of_metrics(metrics, rows[arms[0].name], show),
        *columns_of_maps(rows.values(), metrics, show),
        Column(SECONDS, seconds, partial(cell, digits=2)),
    ]
    return markdown(tabulate('config', rows, columns))


def main() -> None:
    args = parse_args()
    first = args.configs[0].stem
    arms = [Arm(config.stem, config) for config in args.configs]
    arms += [Arm(path.stem, path, start=first) for path in args.readout]
    done = args.report_only or train_arms(arms, args)
    spread = '95 % interval' if args.interval else 'standard deviation'
    conclude(
        args,
        'table.md',
        table(arms, args),
        f'Mean ± {spread} over seeds, last evaluation.',
        done,
    )


if __name__ == '__main__':
    main()
