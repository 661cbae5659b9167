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
which the table is written on another machine too.
"""

import argparse
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path

from mmaib.cli.runs import (
    SECONDS,
    commit,
    find_record,
    read_log,
    run_dir,
    train_all,
)
from mmaib.visualization.tables import (
    CHANGES,
    METRICS,
    OF_MAPS,
    cell,
    counted,
    lost,
    markdown,
    metrics_to_tabulate,
    paired,
    values,
    with_nothing_found,
)
from mmaib.visualization.work_dirs import last_checkpoint, read_records


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('configs', nargs='+', type=Path)
    parser.add_argument(
        '--readout',
        nargs='+',
        type=Path,
        default=[],
        help="configs that start from the first config's checkpoint of the\n"
        'same seed',
    )
    parser.add_argument(
        '--metrics',
        nargs='+',
        default=[],
        help='fields of the last evaluation, as in the log; by default\n'
        f'those of {", ".join(METRICS)} that are there',
    )
    parser.add_argument(
        '--compare',
        nargs='+',
        type=Path,
        default=[],
        help='more files of records, such as of other --cfg-options:\n'
        'a row for each config in each, named by its file',
    )
    parser.add_argument(
        '--interval',
        action='store_true',
        help="after each mean half of its 95 %% interval, by Student's t\n"
        'over seeds, not the standard deviation',
    )
    add_arguments_of_runs(parser)
    args = parser.parse_args()
    check_runs(parser, args)
    for path in args.compare:
        if not read_records(path):
            parser.error(f'--compare {path}: no records there')
    args.configs += args.readout
    if len({config.stem for config in args.configs}) < len(args.configs):
        parser.error('configs must differ in their file names')
    return args


def add_arguments_of_runs(parser: argparse.ArgumentParser) -> None:
    """How runs are started and where they are kept."""
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument(
        '--records',
        type=Path,
        help='file (.jsonl) for the records of finished runs',
    )
    parser.add_argument(
        '--commit', default=commit(), help="of the code; git's by default"
    )
    parser.add_argument('--seeds', nargs='+', type=int, default=[1, 2, 3])
    parser.add_argument('--jobs', type=int, default=2)
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], help='passed on to train.py'
    )
    parser.add_argument(
        '--report-only', action='store_true', help='train nothing'
    )


def check_runs(
    parser: argparse.ArgumentParser, args: argparse.Namespace
) -> None:
    """Refuse no process at all, and two runs in one work dir."""
    if args.jobs < 1:
        parser.error(f'--jobs must be >= 1, got {args.jobs}')
    if len({*args.seeds}) < len(args.seeds):
        parser.error(f'--seeds must differ, got {args.seeds}')


def read_record(
    args: argparse.Namespace, config: Path, seed: int
) -> dict[str, float] | None:
    """Metrics of a finished run: of its log, or of its record."""
    found = read_log(run_dir(args.out, config, seed))
    record = find_record(args.records, config.stem, seed)
    return record['metrics'] if found is None and record else found


def other_records(path: Path) -> dict[str, dict[int, dict[str, float]]]:
    """The metrics of each config's seeds in a file of records, by the file or
    the label before the config's name, and the config's name up to its first
    underscore, where that is one config's alone."""
    records: dict[str, dict[int, dict[str, float]]] = defaultdict(dict)
    for record in read_records(path):
        label, _, name = record['name'].rpartition(': ')
        key = f'{label or path.stem}: {name}'
        records[key][record['seed']] = record['metrics']
    short = [name.partition('_')[0] for name in records]
    return {
        name if short.count(first) > 1 else first: runs
        for first, (name, runs) in zip(short, records.items())
    }


def table(args: argparse.Namespace) -> str:
    """Markdown table of what was run so far."""
    logs = {
        config.stem: {
            seed: log
            for seed in args.seeds
            if (log := read_record(args, config, seed))
        }
        for config in args.configs
    }
    for path in args.compare:
        logs.update(other_records(path))
    logs = with_nothing_found(logs)
    first = args.configs[0].stem
    base = logs[first]
    metrics = metrics_to_tabulate(args.metrics, logs.values())
    head = ['config', 'seeds']
    shown = partial(cell, interval=args.interval)
    for metric in metrics:
        head += [metric, 'paired difference']
    everywhere = [run for runs in logs.values() for run in runs.values()]
    drops, of_maps = [], []
    if metrics:
        drops = [f'ablation/{change}/{metrics[0]}' for change in CHANGES]
        drops = [d for d in drops if any(d in run for run in everywhere)]
        of_maps = [m for m in OF_MAPS if any(m in run for run in everywhere)]
    head += [f'lost by {drop.split("/")[1]}' for drop in drops]
    head += [OF_MAPS[name] for name in of_maps]
    head.append(SECONDS)
    rows = [head, ['---'] * len(head)]
    for config, runs in logs.items():
        row = [config, ', '.join(map(str, runs)) or 'not run']
        count = partial(counted, of=len(runs))
        for metric in metrics:
            row.append(count(values(runs, metric), shown))
            own = count(paired(runs, base, metric), shown)
            row.append('-' if config == first else own)
        for drop in drops:
            row.append(count(lost(runs, metrics[0], drop), shown))
        for name in of_maps:
            digits = 0 if 'bits' in name else 3
            row.append(
                count(values(runs, name), partial(shown, digits=digits))
            )
        row.append(count(values(runs, SECONDS), partial(cell, digits=2)))
        rows.append(row)
    command = ' '.join(['python', *sys.argv])
    spread = '95 % interval' if args.interval else 'standard deviation'
    return '\n'.join(
        [
            *markdown(rows),
            '',
            f'Mean ± {spread} over seeds, last evaluation. '
            f'Command: `{command}`',
            '',
        ]
    )


def main() -> None:
    args = parse_args()
    # Seed by seed, so that an unfinished study is still paired.
    base_models = [c for c in args.configs if c not in args.readout]
    runs = [
        (config, seed, run_dir(args.out, config, seed), args.cfg_options)
        for seed in args.seeds
        for config in base_models
    ]
    finished = args.report_only or train_all(
        runs, args.jobs, args.records, args.commit
    )
    if finished and not args.report_only:
        first = {s: run_dir(args.out, base_models[0], s) for s in args.seeds}
        runs = [
            (
                config,
                seed,
                run_dir(args.out, config, seed),
                [
                    *args.cfg_options,
                    f'load_from={last_checkpoint(first[seed])}',
                ],
            )
            for seed in args.seeds
            for config in args.readout
        ]
        finished = train_all(runs, args.jobs, args.records, args.commit)
    args.out.mkdir(parents=True, exist_ok=True)
    text = table(args)
    (args.out / 'table.md').write_text(text)
    print(text)
    if not finished:
        sys.exit('some runs failed: see above')


if __name__ == '__main__':
    main()
