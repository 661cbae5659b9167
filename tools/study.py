"""Train several configs over several seeds and tabulate them, resumably.

Each run is `tools/train.py` in a process of its own on one thread. Running
the command again skips finished runs and resumes interrupted ones. The table
is written from the runs' logs; the first config is the baseline of the
paired differences.

    python tools/study.py BASELINE.py AIB.py AIB_QT.py \
        --out work_dirs/studies/bccd --seeds 1 2 3 4 5

Where the maps were evaluated (mmaib.AttentionEvalHook) the table tells what
the first metric loses when they are mirrored, flattened, shuffled, and where
they look.

Each finished run leaves a record.json: metrics, seed, options, commit,
versions, seconds. `--records DIR` keeps a copy, by which the table is written
on another machine too.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import median
from threading import Event, Lock, Thread
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from steps import entries, last_checkpoint

from mmaib.cli.cfg_options import options_of
from mmaib.compat import PACKAGES, register_config_sources
from mmaib.evaluation.nothing_found import completed
from mmaib.files import write_whole
from mmaib.layers.capture import MAP_CHANGES
from mmaib.preflight import check_data, named_weights

METRICS = (
    'coco/bbox_mAP',
    'coco/bbox_mAP_50',
    'coco/segm_mAP',
    'mIoU',
    'aAcc',
    'accuracy/top1',
)
CHANGES = tuple(MAP_CHANGES)
OF_MAPS = {
    'attention/auc': 'AUC',
    'attention/auc_norm': "AUC of the features' norm",
    'attention/auc_centre': 'AUC of the centre',
    'attention/energy': 'energy',
    'attention/area': 'area',
    'attention/fitting': 'IoU',
    'attention/contrast': 'contrast',
    'attention/saturated': 'saturated',
    'attention/bits_per_image': 'bits an image',
}
SECONDS = 'seconds per step'
# of a line in MMEngine's log
STAMP = '%Y/%m/%d %H:%M:%S'
STAMPED = re.compile(r'^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - ', re.M)
PARSING = Lock()
# names of what a training's log tells of maps and latents begin so
MONITORS = ('attention_', 'anchor', 'info_', 'gate_', 'kl_')
TRAIN = Path(__file__).with_name('train.py')
START = 'load_from='
WEIGHTS = 'checkpoint to start from'
# of MMEngine's log, and of the evaluations behind a training
PROGRESS = re.compile(
    r'((?:Epoch|Iter)\(\w+\)[][\d /]+|evaluation \d+ of \d+)'
    r'(?:.*?eta: (.+?)(?:  |\n))?'
)
EVERY = 15.0  # seconds between two looks at it


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
        help='more folders of records, such as of other --cfg-options:\n'
        'a row for each config in each, named by its folder',
    )
    parser.add_argument(
        '--interval',
        action='store_true',
        help="behind each mean half of its 95 %% interval, by Student's t\n"
        'over seeds, not the standard deviation (needs scipy)',
    )
    add_arguments_of_runs(parser)
    args = parser.parse_args()
    check_runs(parser, args)
    for folder in args.compare:
        if not any(folder.glob('*.seed_*.json')):
            parser.error(f'--compare {folder}: no records there')
    args.configs += args.readout
    if len({config.stem for config in args.configs}) < len(args.configs):
        parser.error('configs must differ in their file names')
    return args


def add_arguments_of_runs(parser: argparse.ArgumentParser) -> None:
    """How runs are started and where they are kept."""
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument(
        '--records', type=Path, help='folder for the records of finished runs'
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


def commit() -> str:
    """What git says of this checkout."""
    command = ['git', 'describe', '--always', '--dirty', '--abbrev=12']
    try:
        done = subprocess.run(
            command, cwd=TRAIN.parent, capture_output=True, text=True
        )
    except FileNotFoundError:
        return 'unknown'
    return done.stdout.strip() or 'unknown'


def check_runs(
    parser: argparse.ArgumentParser, args: argparse.Namespace
) -> None:
    """Refuse no process at all, and two runs in one work dir."""
    if args.jobs < 1:
        parser.error(f'--jobs must be >= 1, got {args.jobs}')
    if len({*args.seeds}) < len(args.seeds):
        parser.error(f'--seeds must differ, got {args.seeds}')


def run_dir(out: Path, config: Path, seed: int) -> Path:
    return out / config.stem / f'seed_{seed}'


def read_config(path: Path) -> Config:
    with PARSING:  # MMEngine parses through files of its own
        register_config_sources()
        return Config.fromfile(path)


def identity(config: Path, seed: int, options: list) -> dict[str, Any]:
    """What makes a run another one."""
    cfg = read_config(config)
    text = json.dumps(cfg.to_dict(), sort_keys=True, default=str)
    cfg.merge_from_dict(options_of(options))
    weights = {
        field: digest(Path(path).expanduser().read_bytes())
        for field, path in named_weights(cfg)
        if Path(path).expanduser().is_file()
    }
    return {
        '--cfg-options': options,
        'seed': seed,
        'config': digest(text.encode()),
        WEIGHTS: weights,
    }


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def differs(marker: Path, own: Mapping[str, Any]) -> list[str]:
    """In what a run that left its identity is another one."""
    text = marker.read_text()
    if not text.startswith('{'):  # an earlier version's: options alone
        found = {**own, '--cfg-options': text.splitlines()}
        known = False
    else:
        told = json.loads(text)
        found, known = {**own, **told}, WEIGHTS in told
    return [
        name
        for name in own
        if without_place(found[name], known) != without_place(own[name], known)
    ]


def refusal(work_dir: Path, own: Mapping[str, Any]) -> str | None:
    """Why a run can neither be skipped nor resumed nor begun in a folder, or
    None."""
    marker = work_dir / 'finished'
    begun = work_dir / 'identity.json'
    saved = [*work_dir.glob('*.pth'), *work_dir.glob('last_checkpoint')]
    if marker.exists():
        found, how = marker, 'finished'
    elif not saved:
        return None  # nothing of what was begun there is gone on with
    elif begun.exists():
        found, how = begun, 'begun'
    else:
        return (
            f'{work_dir}: {saved[0].name} in it is of a run that is not known '
            'here, and would be resumed or written over; take another --out'
        )
    if other := differs(found, own):
        return (
            f'{work_dir}: {how} with another {", another ".join(other)}; '
            'take another --out'
        )
    return None


def refuse_other_runs(runs: Iterable[tuple]) -> None:
    """Before anything is trained.

    Raises:
        SystemExit: if a folder has another run, see :func:`refusal`.
    """
    found = [
        refusal(work_dir, identity(config, seed, options))
        for config, seed, work_dir, options, *_ in runs
        if work_dir.exists()
    ]
    if refused := [line for line in found if line]:
        sys.exit('\n'.join(refused))


def without_place(value: Any, known: bool = False) -> Any:
    """Options with the end of a checkpoint's path, as studies are moved;
    without it where its content is known."""
    if not isinstance(value, list):
        return value
    return [
        str(Path(*Path(word).parts[-3:])) if word.startswith(START) else word
        for word in value
        if not (known and word.startswith(START))
    ]


def where(log: Path) -> str | None:
    """How far a training is, and what is left, by its log."""
    found = [*PROGRESS.finditer(log.read_text()[-20000:])]
    if not found:
        return None
    step, left = found[-1].groups()
    return step.strip() + (f', {left} left' if left else '')


@contextmanager
def following(work_dir: Path) -> Iterator[None]:
    """Prints how far a run is, as long as it goes on."""
    done = Event()

    def follow() -> None:
        last = None
        while not done.wait(EVERY):
            line = where(work_dir / 'stdout.log')
            if line != last:
                print(f'       {work_dir}: {line}', flush=True)
                last = line

    thread = Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def train(config: Path, seed: int, work_dir: Path, options: list) -> bool:
    """One run, resumed where it stopped; what it is of is written before its
    first step, and a marker when it is finished. Whether it is now."""
    own = identity(config, seed, options)
    if reason := refusal(work_dir, own):
        print(f'FAILED {reason}', flush=True)
        return False
    marker = work_dir / 'finished'
    if marker.exists():
        return True
    text = json.dumps(own)
    begun = work_dir / 'identity.json'
    write_whole(begun, text.encode(), work_dir / '.identity.json')
    command = [sys.executable, str(TRAIN), str(config)]
    command += ['--work-dir', str(work_dir), '--resume', '--cfg-options']
    command += [f'randomness.seed={seed}', *options]
    print('start ', work_dir, flush=True)
    with open(work_dir / 'stdout.log', 'a') as log, following(work_dir):
        done = subprocess.run(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
        )
    if done.returncode:
        log_file = work_dir / 'stdout.log'
        last = log_file.read_text().strip().rpartition('\n')[2]
        print(f'FAILED {log_file}: {last}', flush=True)
        return False
    marker.write_text(text)
    print('done  ', work_dir, flush=True)
    return True


def record_name(config: Path, seed: int, name: str | None = None) -> str:
    return f'{name or config.stem}.seed_{seed}.json'


def refuse_other_record(
    records: Path,
    config: Path,
    seed: int,
    work_dir: Path,
    options: list,
    name: str | None = None,
) -> None:
    """Before anything is trained.

    Raises:
        SystemExit: if a record would be written over one of other options.
    """
    path = records / record_name(config, seed, name)
    if not path.exists():
        return
    found = without_place(json.loads(path.read_text())['options'])
    own = without_place(options)
    if found != own:
        sys.exit(
            f'--records {records}: {path.name} is of --cfg-options {found}, '
            f'and would be written over by one of {own}; take another folder'
        )


def write_record(
    config: Path,
    seed: int,
    work_dir: Path,
    options: list,
    records: Path | None = None,
    code: str | None = None,
    name: str | None = None,
) -> None:
    """What a finished run ended with, in its work dir and among the
    records, there under a name of its own if the config's is not enough."""
    path = work_dir / 'record.json'
    if not path.exists():
        record = {
            'config': config.stem,
            'seed': seed,
            'options': options,
            'commit': code or commit(),
            'versions': {
                p.module: found[1]
                for p in PACKAGES
                if (found := p.distribution())
            },
            'device': torch.cuda.get_device_name()
            if torch.cuda.is_available()
            else platform.processor() or platform.machine(),
            'seconds': seconds(work_dir),
            'metrics': read_log(work_dir),
        }
        path.write_text(json.dumps(record, indent=1) + '\n')
    if records:
        records.mkdir(parents=True, exist_ok=True)
        copy = records / record_name(config, seed, name)
        copy.write_text(path.read_text())


def seconds(work_dir: Path) -> int | None:
    """How long a run's trainings took, those that were killed too, by the
    first and last line of their logs; None without a log."""
    spent = []
    for path in work_dir.glob('*/*.log'):
        stamps = STAMPED.findall(path.read_text())
        if stamps:
            first, last = (
                datetime.strptime(stamps[i], STAMP) for i in (0, -1)
            )
            spent.append((last - first).total_seconds())
    return round(sum(spent)) if spent else None


def read_record(
    args: argparse.Namespace, config: Path, seed: int
) -> dict[str, float] | None:
    """Metrics of a finished run: of its log, or of its record."""
    found = read_log(run_dir(args.out, config, seed))
    if found is None and args.records:
        path = args.records / record_name(config, seed)
        if path.exists():
            return json.loads(path.read_text())['metrics']
    return found


def refuse_missing_data(runs: Sequence[tuple]) -> None:
    """Of each config's first run that is not finished."""
    seen: set[Path] = set()
    for config, _, work_dir, options, *_ in runs:
        if config in seen or (work_dir / 'finished').exists():
            continue
        seen.add(config)
        cfg = read_config(config)
        cfg.merge_from_dict(options_of(options))
        try:
            check_data(cfg, ('train_dataloader', 'val_dataloader'))
        except FileNotFoundError as error:
            sys.exit(f'{config}: {error}')


def train_all(
    runs: Iterable[tuple],
    jobs: int,
    records: Path | None = None,
    code: str | None = None,
) -> bool:
    """:func:`train` each of these, so many at a time, in their order, and
    keep their records; whether all are finished. A run is what `train`
    takes and, if its config is not enough, a name for its record.

    Raises:
        SystemExit: before the first, if a folder has another run, the data
            of any are not there, or a record would be written over.
    """

    def run(
        config: Path,
        seed: int,
        work_dir: Path,
        options: list,
        name: str | None = None,
    ) -> bool:
        done = train(config, seed, work_dir, options)
        if done:
            write_record(config, seed, work_dir, options, records, code, name)
        return done

    runs = [*runs]
    refuse_other_runs(runs)
    if records:
        for run_of in runs:
            refuse_other_record(records, *run_of)
    refuse_missing_data(runs)
    with ThreadPoolExecutor(jobs) as pool:
        return all(list(pool.map(lambda one: run(*one), runs)))


def markdown(rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return ['| ' + ' | '.join(row) + ' |' for row in rows]


def read_log(work_dir: Path) -> dict[str, float] | None:
    """Last evaluation and median step time of a finished run."""
    if not (work_dir / 'finished').exists():
        return None
    training: dict[str, float] = {}
    evaluation: dict[str, float] = {}
    times = []
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for entry in entries(path):
            if 'loss' in entry:
                times.append(entry['time'])
                training.update(monitors(entry))
            elif any(name.startswith('causal/') for name in entry):
                evaluation.update(entry)  # a line of its own behind it
            else:
                evaluation = entry
    if times:  # not of a run that is shorter than the interval of its log
        training[SECONDS] = median(times)
    return {**training, **evaluation}


def monitors(entry: Mapping[str, float]) -> dict[str, float]:
    """What a line of the training's log says of maps and latents."""
    found = {k: v for k, v in entry.items() if k.startswith(MONITORS)}
    return {f'train/{k}': v for k, v in found.items()}


def cell(
    values: Sequence[float], digits: int = 4, interval: bool = False
) -> str:
    """Mean, and the standard deviation of more than one, or half of the
    95 % interval of their mean."""
    if not values:
        return 'not run'
    text = f'{np.mean(values):.{digits}f}'
    if len(values) > 1:
        spread = float(np.std(values, ddof=1))
        if interval:
            from scipy.stats import t

            quantile = t.ppf(0.975, len(values) - 1)
            spread *= float(quantile) / len(values) ** 0.5
        text += f' ± {spread:.{digits}f}'
    return text


def counted(
    values: Sequence[float], show: Callable = cell, of: int = 0
) -> str:
    """A cell, with the count of the runs if not all have a value; '-' if
    none has."""
    if of and not values:
        return '-'
    missing = f' ({len(values)} of {of})' if len(values) < of else ''
    return show(values) + missing


Runs = Mapping[int, Mapping[str, float]]  # by seed


def values(runs: Runs, name: str) -> list[float]:
    """A figure of the runs that have it."""
    return [run[name] for run in runs.values() if name in run]


def lost(runs: Runs, metric: str, changed: str) -> list[float]:
    """What the runs that have both lose of a metric."""
    both = [run for run in runs.values() if {metric, changed} <= run.keys()]
    return [run[metric] - run[changed] for run in both]


def paired(runs: Runs, base: Runs, metric: str) -> list[float]:
    """Differences in the seeds that both have."""
    return [
        run[metric] - base[seed][metric]
        for seed, run in runs.items()
        if metric in run and metric in base.get(seed, {})
    ]


def with_nothing_found(
    logs: Mapping[str, Runs],
) -> dict[str, dict[int, dict[str, float]]]:
    """See :func:`completed`."""
    everywhere = [run for runs in logs.values() for run in runs.values()]
    return {
        config: {
            seed: completed(run, runs.values(), everywhere)
            for seed, run in runs.items()
        }
        for config, runs in logs.items()
    }


def metrics_to_tabulate(
    asked: Sequence[str], logs: Iterable[Mapping[int, Mapping[str, float]]]
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


def other_records(folder: Path) -> dict[str, dict[int, dict[str, float]]]:
    """The metrics of each config's seeds in a folder of records, by the
    folder and what stands before the config's first underscore, where that
    is one config's alone."""
    records: dict[str, dict[int, dict[str, float]]] = defaultdict(dict)
    for path in sorted(folder.glob('*.seed_*.json')):
        record = json.loads(path.read_text())
        name = path.name.partition('.seed_')[0]
        records[name][record['seed']] = record['metrics']
    short = [name.partition('_')[0] for name in records]
    return {
        f'{folder.name}: {name if short.count(first) > 1 else first}': runs
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
    for folder in args.compare:
        logs.update(other_records(folder))
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
        drops = [f'causal/{change}/{metrics[0]}' for change in CHANGES]
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
    hosts = [c for c in args.configs if c not in args.readout]
    runs = [
        (config, seed, run_dir(args.out, config, seed), args.cfg_options)
        for seed in args.seeds
        for config in hosts
    ]
    finished = args.report_only or train_all(
        runs, args.jobs, args.records, args.commit
    )
    if finished and not args.report_only:
        first = {s: run_dir(args.out, hosts[0], s) for s in args.seeds}
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
