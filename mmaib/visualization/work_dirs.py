"""Runs in work dirs, finished or in progress, and records of studies."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from statistics import median
from typing import Any

from mmengine.config import Config

from .tables import Runs, with_nothing_found

SECONDS = 'seconds per step'
# names of what a training's log says of maps and latents begin so
MONITORS = ('attention_', 'anchor', 'info_', 'gate_', 'kl_')
Series = dict[int, float]  # step -> value
RECORD = 'record'
FIELDS = {'name', 'seed', 'metrics'}  # of one
SCORES_FILE = 'scores.json'  # of a folder of pictures
# what no table shows of a log
TIMES = {'lr', 'base_lr', 'epoch', 'iter', 'step', 'time', 'data_time'}


@dataclass
class Run:
    """One training, or the record of one."""

    name: str  # of its config
    path: Path  # work dir, or the record's file
    seed: int | None = None  # if known
    options: list[str] = field(default_factory=list)  # of a study
    state: str = RECORD  # how far it is
    step: int = 0
    epoch: int = 0
    # series of the log, by name; those of evaluations by the training's steps
    training: dict[str, Series] = field(default_factory=dict)
    evaluation: dict[str, Series] = field(default_factory=dict)
    # what it ended with, or has reached
    metrics: dict[str, float] = field(default_factory=dict)
    config: Config | None = None  # None of a record
    pictures: list[Path] = field(default_factory=list)  # have a SCORES_FILE
    # the newest that an AttentionVisHook made of each image, by its name
    snapshots: dict[str, Path] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)  # the record


@dataclass
class Group:
    """The seeds of one config, with the same options."""

    label: str
    runs: list[Run]

    @property
    def metrics(self) -> Runs:
        """By seed, of which each has one run here."""
        return {run.seed: run.metrics for run in self.runs}


def read_log(work_dir: Path) -> Run:
    """What MMEngine's log of a work dir has, all its starts together, as far
    as it is."""
    run = Run(work_dir.name, work_dir)
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    for entry in (numbers(e) for path in logs for e in entries(path)):
        series = run.evaluation
        if 'loss' in entry:
            run.step = int(entry.get('iter', entry.get('step', run.step)))
            run.epoch = int(entry.get('epoch', 0))
            series = run.training
        elif any(name.startswith('ablation/') for name in entry):
            run.metrics.update(entry)  # a line of its own after it
        else:
            # one that found nothing has not the AP of the one before
            run.metrics = entry
        for name, value in entry.items():
            series.setdefault(name, {})[run.step] = value
    return run


def ended_with(work_dir: Path) -> dict[str, float] | None:
    """Last evaluation, last monitors and median step time of a finished
    run."""
    if not (work_dir / 'finished').exists():
        return None
    log = read_log(work_dir)
    found = {
        f'train/{name}': [*series.values()][-1]
        for name, series in log.training.items()
        if name.startswith(MONITORS)
    }
    # not of a run that is shorter than the interval of its log
    if times := log.training.get('time'):
        found[SECONDS] = median(times.values())
    return {**found, **log.metrics}


def read_run(path: Path) -> Run:
    """A run from its work dir, from what is there so far."""
    record = read_json(path / 'record.json')
    # the newest, where a work dir was used for several
    names = sorted(path.glob('*.py'), key=_changed)
    dumped = [*names, *sorted(path.glob('*/vis_data/config.py'))]
    config = None
    for dump in reversed(dumped):
        try:
            config = Config.fromfile(dump, import_custom_modules=False)
            break
        except Exception as error:  # a config runs any code
            print(f'{dump} cannot be read: {type(error).__name__}: {error}')
    seed = (config or {}).get('randomness', {}).get('seed')
    if named := re.fullmatch(r'seed_(\d+)', path.name):
        seed = int(named[1])
    run = read_log(path)
    run.name = record.get('config') or (names[-1].stem if names else path.name)
    run.seed, run.options = record.get('seed', seed), record.get('options', [])
    run.config, run.facts = config, record
    # a test of a checkpoint, such as the demo's
    tests = path.glob('*/*/vis_data/scalars.json')
    for folder in sorted({test.parents[2] for test in tests}):
        if (tested := read_log(folder)).training:
            continue
        run.metrics.update(tested.metrics)
        for found in folder.glob('*/*.json'):
            run.metrics.update(numbers(read_json(found)))
    run.state = _state(run)
    run.pictures = sorted(p.parent for p in path.glob(f'*/{SCORES_FILE}'))
    images = path.glob('*/vis_data/vis_image/attention_*_*.png')
    for image in sorted(images, key=_changed):
        name = image.stem.removeprefix('attention_').rpartition('_')[0]
        run.snapshots[name] = image
    return run


def read_records(file: Path) -> list[dict[str, Any]]:
    """The records of a study, a line a run; none if there is no file.

    Raises:
        ValueError: if a line is not JSON.
    """
    try:
        lines = file.read_text().splitlines() if file.is_file() else []
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise ValueError(f'{file}: not lines of JSON ({error})') from error


def labelled(record: Mapping[str, Any], otherwise: str = '') -> str:
    """A run's name, after that of its set."""
    group = record.get('set', otherwise)
    return f'{group}: {record["name"]}' if group else record['name']


def find_runs(folders: Iterable[Path]) -> list[Run]:
    """The runs and records in work dirs, studies, files and folders of
    records.

    Raises:
        FileNotFoundError: if a folder has none.
    """
    runs: dict[tuple, Run] = {}
    for folder in folders:
        logs = folder.rglob('vis_data/scalars.json')
        dirs = {log.parents[2] for log in logs}
        # a test inside a run's folder belongs to the run
        own = sorted(
            d for d in dirs if read_log(d).training or not dirs & {*d.parents}
        )
        found: dict[tuple, Run] = {(d.resolve(),): read_run(d) for d in own}
        known = [_identity(run) for run in found.values()]
        files = [folder] if folder.is_file() else folder.rglob('*.jsonl')
        for path in sorted(files):
            for record in read_records(path):
                if not (
                    isinstance(record, dict)
                    and record.keys() >= FIELDS
                    and isinstance(record['metrics'], dict)
                    and isinstance(record['seed'], int)
                    and isinstance(record.get('options', []), list)
                ):
                    continue  # of something else, such as explanations
                run = Run(
                    labelled(record),
                    path,
                    record['seed'],
                    record.get('options', []),
                    metrics=numbers(record['metrics']),
                    facts=record,
                )
                if _identity(run) not in known:
                    found[path.resolve(), run.name, run.seed] = run
        if not found:
            raise FileNotFoundError(
                f'{folder}: no run with a log (vis_data/scalars.json), and no '
                'records (*.jsonl)'
            )
        runs.update(found)
    return [*runs.values()]


def _identity(run: Run) -> tuple:
    """What a record of a run has in common with its work dir."""
    config = run.facts.get('config', run.name)
    return config, run.seed, _shared(run.options)


def grouped(runs: Iterable[Run]) -> list[Group]:
    """Runs that differ in their seed alone, together. The first group without
    a map comes first, as what the others are compared with."""
    groups: dict[tuple, list[Run]] = defaultdict(list)
    seen: Counter[tuple] = Counter()
    for run in runs:
        home = run.path.absolute()
        if run.state != RECORD:
            home = home.parents[1]
        config = repr(_without_seed(run.config))
        key = run.name, home, *_shared(run.options), config
        seen[key, run.seed] += 1
        groups[key, seen[key, run.seed]].append(run)
    result: dict[str, Group] = {}
    for ((name, home, *_), _), members in groups.items():
        place = f'{name}, {home.stem}'
        labels = chain([name, place], (f'{place} ({i})' for i in count(2)))
        label = next(text for text in labels if text not in result)
        members.sort(key=lambda run: (run.seed is None, run.seed))
        result[label] = Group(label, members)
    # where a detector found nothing its AP is 0
    metrics = with_nothing_found({k: g.metrics for k, g in result.items()})
    for label, group in result.items():
        for run in group.runs:
            run.metrics = metrics[label][run.seed]
    return sorted(result.values(), key=_has_map)


def _shared(options: Iterable[str]) -> list[str]:
    """What seeds have in common."""
    own = ('load_from=', 'randomness.seed=')
    return [option for option in options if not option.startswith(own)]


def _has_map(group: Group) -> bool:
    return any(
        name.startswith(('attention', 'train/attention', 'ablation'))
        for run in group.runs
        for name in [*run.metrics, *run.training]
    )


def differences(configs: Mapping[str, Mapping | None]) -> list[list[str]]:
    """Fields that are not the same in all configs, each with its value in
    every one; a part that only some have is one field."""
    found: list[list[str]] = []
    missing = object()

    def walk(prefix: str, values: Sequence[Any]) -> None:
        if all(isinstance(value, dict) for value in values):
            for key in dict.fromkeys(k for value in values for k in value):
                below = [value.get(key, missing) for value in values]
                walk(f'{prefix}.{key}' if prefix else key, below)
            return
        texts = ['-' if v is missing else repr(v) for v in values]
        if len({*texts}) > 1:
            found.append([prefix, *texts])

    walk('', [_without_seed(config) for config in configs.values()])
    return found


def _without_seed(config: Mapping | None) -> dict[str, Any]:
    """A config without what may differ between the seeds of a study."""
    own = ('work_dir', 'resume', 'load_from', 'launcher', 'log_level')
    found = _plain({k: v for k, v in (config or {}).items() if k not in own})
    found['randomness'] = found.get('randomness') or {}
    found['randomness'].pop('seed', None)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    return {k: v for k, v in entry.items() if isinstance(v, int | float)}


def read_json(path: Path) -> dict[str, Any]:
    """Nothing of a file that is not there, or cut off."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _changed(path: Path) -> float:
    return path.stat().st_mtime


def _state(run: Run) -> str:
    """Whether it is finished, or how far it has come."""
    train = (run.config or {}).get('train_cfg') or {}
    of, last = f'step {run.step}', f'iter_{train.get("max_iters")}.pth'
    wanted = train.get('max_epochs', train.get('max_iters'))
    if 'max_epochs' in train:
        of, last = f'epoch {run.epoch}', f'epoch_{wanted}.pth'
    of += f' of {wanted}' if wanted else ''
    # the last epoch is whole with its checkpoint
    if (run.path / 'finished').exists() or (run.path / last).exists():
        return f'finished, {of}'
    logs = run.path.glob('*/vis_data/scalars.json')
    written = datetime.fromtimestamp(max(map(_changed, logs), default=0))
    return f'{of}, last written {written:%Y-%m-%d %H:%M}'


def entries(log: Path) -> Iterator[dict[str, float]]:
    """Lines of a log, but what is being written or a kill left of one."""
    for line in log.read_text(errors='replace').splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict):
            yield entry


def last_checkpoint(work_dir: Path, root: Path = Path()) -> Path:
    """The last checkpoint of a training's folder, which may have been moved
    since; relative to ``root``."""
    path = (root / work_dir / 'last_checkpoint').read_text().strip()
    return work_dir / Path(path).name
