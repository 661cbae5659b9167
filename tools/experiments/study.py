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

`--values FIELD V...` trains the last config with each of these values of a
field, an information gate's weight for instance, a row each. If the maps'
bits were evaluated, curve.png has the first metric and the maps' AUC over
them, the first of several configs as a dashed line. A `{seed}` in
`--cfg-options` is the run's, so that a readout may start from its seed's
checkpoint: `load_from=DIR/BASE/seed_{seed}/epoch_12.pth`.

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
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from matplotlib.figure import Figure
from records import find_record, records_of, train_all

from mmaib.cli.cfg_options import options_of
from mmaib.cli.loading import read_config
from mmaib.cli.runs import commit, run_logged
from mmaib.visualization.tables import (
    METRICS,
    Column,
    Runs,
    cell,
    columns_of_maps,
    columns_of_metrics,
    markdown,
    tabulate,
    values,
    with_nothing_found,
)
from mmaib.visualization.work_dirs import (
    SECONDS,
    ended_with,
    entries,
    labelled,
    last_checkpoint,
    read_json,
)

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
METRICS_OF_TEST = 'metrics.json'
BITS, AUC = 'attention/bits_per_image', 'attention/auc'


class Arm(NamedTuple):
    """What is trained with every seed.

    Attributes:
        name: of its folder and of its records.
        config: path.
        options: of the config, with ``{seed}`` in place of the seed.
        start: the arm from whose checkpoint of the same seed it starts.
        test: whether that checkpoint is tested, and nothing trained.
    """

    name: str
    config: Path
    options: Sequence[str] = ()
    start: 'Arm | None' = None
    test: bool = False

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
    add('--gpus', type=int, default=1, help='of each run, by torchrun')
    add('--cfg-options', nargs='+', default=[], help='for mmaib train')
    add('--report-only', action='store_true', help='train nothing')
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments, without two runs in one folder."""
    args = parser.parse_args()
    try:
        options_of(args.cfg_options)
    except ValueError as error:
        parser.error(str(error))
    for name in ('jobs', 'gpus'):
        if (number := getattr(args, name)) < 1:
            parser.error(f'--{name} must be >= 1, got {number}')
    if len({*args.seeds}) < len(args.seeds):
        parser.error(f'--seeds must differ, got {args.seeds}')
    return args


def train_arms(
    arms: Sequence[Arm], args: argparse.Namespace, keep: bool = True
) -> bool:
    """Train what is not finished, seed by seed, so that an unfinished study
    is still paired, and after all others what starts from another arm; then
    test what is only tested.

    Args:
        arms: of the study.
        args: of the command.
        keep: what runs ended with among the records; without, nothing that
            is there already is of other options.

    Returns:
        whether all are finished now.
    """

    def run(arm: Arm, seed: int) -> tuple:
        options = options_of_run(arm, seed, args)
        if arm.start:
            options.append(f'load_from={checkpoint_of(arm.start, seed, args)}')
        work_dir = arm.work_dir(args.out, seed)
        return arm.config, seed, work_dir, options, arm.name

    return all(
        train_all(
            [
                run(arm, seed)
                for seed in args.seeds
                for arm in arms
                if bool(arm.start) is later and not arm.test
            ],
            args.jobs,
            args.records,
            args.commit,
            keep,
            args.gpus,
        )
        for later in (False, True)
    ) and all(
        [
            tested(arm, seed, args)
            for seed in args.seeds
            for arm in arms
            if arm.test
        ]
    )


def checkpoint_of(arm: Arm, seed: int, args: argparse.Namespace) -> Path:
    """The last checkpoint of an arm's run.

    Raises:
        SystemExit: if that run is not finished.
    """
    work_dir = arm.work_dir(args.out, seed)
    if not (work_dir / 'finished').exists():
        sys.exit(f'{work_dir} is not finished: train {arm.name} first')
    return last_checkpoint(work_dir)


def options_of_run(arm: Arm, seed: int, args: argparse.Namespace) -> list[str]:
    options = [*args.cfg_options, *arm.options]
    return [option.replace('{seed}', str(seed)) for option in options]


def tested(arm: Arm, seed: int, args: argparse.Namespace) -> bool:
    """Test a checkpoint of another arm, once; whether that is done."""
    assert arm.start
    work_dir = arm.work_dir(args.out, seed)
    if (work_dir / METRICS_OF_TEST).exists():
        return True
    command = [
        sys.executable, '-m', 'mmaib', 'test', arm.config,
        checkpoint_of(arm.start, seed, args),
        '--work-dir', work_dir, '--out', work_dir / METRICS_OF_TEST,
        '--out-item', 'metrics',
    ]  # fmt: skip
    if options := options_of_run(arm, seed, args):
        command += ['--cfg-options', *options]
    print('test  ', work_dir, flush=True)
    failed = run_logged([*map(str, command)], work_dir / 'stdout.log')
    if failed:
        print(f'FAILED {work_dir}/stdout.log', flush=True)
    return not failed


def finished(arm: Arm, args: argparse.Namespace) -> Runs:
    """The metrics of the seeds that are finished, of their logs or records."""
    found = {}
    for seed in args.seeds:
        work_dir = arm.work_dir(args.out, seed)
        metrics = read_json(work_dir / METRICS_OF_TEST) or ended_with(work_dir)
        if not metrics:
            record = find_record(args.records, arm.name, seed, arm.config)
            metrics = (record or {}).get('metrics')
        if metrics:
            found[seed] = metrics
    return found


def best(arm: Arm, args: argparse.Namespace, metric: str) -> list[float]:
    """The highest value of all evaluations, for each seed that is finished."""
    return [
        max(there)
        for seed in args.seeds
        if ended_with(work_dir := arm.work_dir(args.out, seed))
        and (there := [
            entry[metric]
            for log in work_dir.glob('*/vis_data/scalars.json')
            for entry in entries(log)
            if metric in entry
        ])
    ]  # fmt: skip


def paper_table(
    head: Sequence[str],
    rows: Sequence[PaperRow],
    args: argparse.Namespace,
    metrics: Mapping[str, str],
    show: Callable[[Sequence[float]], str],
) -> list[str]:
    """The paper's layout, with its figures beside those of the runs: of the
    last epoch and, in brackets, of the best one.

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
            text = show(found) if arm else '-'
            if arm and (top := best(arm, args, metric)) and top != found:
                text += f' ({show(top)})'
            line.append(text)
            if column in known:
                line.append(row.paper.get(column, '-'))
        lines.append(line)
    return markdown(lines)


def conclude(
    path: Path, lines: Sequence[str], note: str, done: bool = True
) -> None:
    """Write a table to a file, and print it.

    Raises:
        SystemExit: if not all runs are done.
    """
    command = ' '.join(['python', *sys.argv])
    text = '\n'.join([*lines, '', f'{note} Command: `{command}`', ''])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
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
        '--values', nargs='+', default=[], metavar='FIELD VALUE',
        help='of the last config',
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
        if not records_of(path):
            parser.error(f'--compare {path}: no records there')
    field, *several = args.values or ['']
    if args.values and len({*several}) < max(len(several), 1):
        parser.error(f'--values {field}: values that differ, got {several}')
    # a part that the config does not have would fail each training
    part = {} if args.report_only else read_config(args.configs[-1])
    for key in () if args.report_only else field.split('.')[:-1]:
        if key not in part:
            parser.error(f'--values {field}: no {key} in {args.configs[-1]}')
        part = part[key]
    configs = [*args.configs, *args.readout]
    if len({config.stem for config in configs}) < len(configs):
        parser.error('configs must differ in their file names')
    return args


def other_records(path: Path) -> dict[str, Runs]:
    """The metrics of each config's seeds in a file of records, by the set or
    the file, and the config's name up to its first underscore, where that is
    one config's alone."""
    records: dict[str, dict[int, dict[str, float]]] = defaultdict(dict)
    for record in records_of(path):
        key = labelled(record, path.stem)
        records[key][record['seed']] = record['metrics']
    short = [name.partition('_')[0] for name in records]
    return {
        name if short.count(first) > 1 else first: runs
        for first, (name, runs) in zip(short, records.items())
    }


def arms_of(args: argparse.Namespace) -> list[Arm]:
    """An arm for each config, for each value and for each readout."""
    arms = [Arm(config.stem, config) for config in args.configs]
    if args.values:
        last = arms.pop()
        field, *several = args.values
        leaf = field.rpartition('.')[2]
        arms += [
            Arm(f'{last.name}_{leaf}-{v}', last.config, [f'{field}={v}'])
            for v in several
        ]
    return arms + [Arm(p.stem, p, start=arms[0]) for p in args.readout]


def curve(
    rows: Mapping[str, Runs], base_model: Sequence[float], metric: str
) -> Figure:
    """The metric and, where it was measured, the AUC over bits an image, by
    the values that end the rows' names."""
    panels = {metric: metric, AUC: 'AUC of the map'}
    if not any(values(runs, AUC) for runs in rows.values()):
        del panels[AUC]
    figure = Figure((4.4 * len(panels), 3.6), 130, layout='constrained')
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (name, title) in zip(axes, panels.items()):
        axis.set(xscale='log', xlabel='bits an image (labels: value)')
        axis.set_ylabel(title)
        centres = []
        for label, runs in rows.items():
            measured = [r for r in runs.values() if {BITS, name} <= {*r}]
            if not measured:
                continue
            x, y = ([run[key] for run in measured] for key in (BITS, name))
            centres.append((mean(x), mean(y)))
            # one seed has no bar
            x_bar, y_bar = (stdev(v) if len(v) > 1 else 0 for v in (x, y))
            axis.errorbar(*centres[-1], y_bar, x_bar, 'o', c='C0', capsize=2)
            axis.annotate(
                label.rpartition('-')[2], centres[-1], (3, 3), fontsize=8,
                textcoords='offset points', rotation=60,
            )  # fmt: skip
        axis.plot(*zip(*centres), color='C0', alpha=0.5)
        if name == metric and base_model:
            axis.axhline(mean(base_model), ls='--', color='grey')
    return figure


def rows_of(
    arms: Sequence[Arm], args: argparse.Namespace
) -> dict[str, dict[int, dict[str, float]]]:
    """What was run so far, a row an arm, and other records."""
    logs = {arm.name: finished(arm, args) for arm in arms}
    for path in args.compare:
        logs.update(other_records(path))
    return with_nothing_found(logs)


def metrics_to_tabulate(
    asked: Sequence[str], logs: Iterable[Runs]
) -> Sequence[str]:
    """The metrics to tabulate.

    Raises:
        SystemExit: if the logs have none, or not one that was asked for.
    """
    runs = [run for config in logs for run in config.values()]
    # a detector that finds nothing has no calibration, for instance
    join = set.union if asked else set.intersection
    there = join(*map(set, runs)) if runs else set(asked)
    metrics = asked or [metric for metric in METRICS if metric in there]
    if runs and not (metrics and there.issuperset(metrics)):
        sys.exit(
            f'--metrics {" ".join(metrics)}: the logs have {sorted(there)}'
        )
    return metrics


def table(rows: Mapping[str, Runs], args: argparse.Namespace) -> list[str]:
    """In Markdown, the first row the baseline of the differences."""
    metrics = metrics_to_tabulate(args.metrics, rows.values())
    show = partial(cell, interval=args.interval)
    columns = [
        *columns_of_metrics(metrics, next(iter(rows.values())), show),
        *columns_of_maps(rows.values(), metrics, show),
        Column(SECONDS, SECONDS, partial(cell, digits=2)),
    ]
    return markdown(tabulate('config', rows, columns))


def main() -> None:
    args = parse_args()
    arms = arms_of(args)
    done = args.report_only or train_arms(arms, args)
    rows = rows_of(arms, args)
    if args.values and any(values(runs, BITS) for runs in rows.values()):
        metric = metrics_to_tabulate(args.metrics, rows.values())[0]
        several = {a.name: rows[a.name] for a in arms if a.options}
        plain = {} if arms[0].options else rows[arms[0].name]
        args.out.mkdir(parents=True, exist_ok=True)
        figure = curve(several, values(plain, metric), metric)
        figure.savefig(args.out / 'curve.png')
    spread = '95 % interval' if args.interval else 'standard deviation'
    conclude(
        args.out / 'table.md',
        table(rows, args),
        f'Mean ± {spread} over seeds, last evaluation.',
        done,
    )


if __name__ == '__main__':
    main()
