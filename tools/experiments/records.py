"""The runs of a study, so many at a time, and its records: a file of JSON
lines with what each run ended with, from which tables are made elsewhere."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from threading import Lock
from typing import Any

from mmaib.cli import runs
from mmaib.cli.loading import read_config
from mmaib.cli.runs import START, identity, refusal
from mmaib.files import alone_in, write_whole
from mmaib.preflight import check_data
from mmaib.visualization.work_dirs import read_records

WRITING = Lock()


def set_of_records(path: Path) -> tuple[Path, str]:
    """The file, and the set in it, that ``FILE.jsonl#SET`` names: a study
    keeps runs of one config with other options as sets of one file."""
    if path.is_file():  # with a # in its name
        return path, ''
    name, _, group = path.name.partition('#')
    return path.with_name(name), group


def records_of(path: Path) -> list[dict[str, Any]]:
    """The records of a file, of ``FILE.jsonl#SET`` those of the sets that
    match, such as ``rect-*``."""
    file, pattern = set_of_records(path)
    records = read_records(file)
    if not pattern:
        return records
    return [r for r in records if fnmatch(r.get('set', ''), pattern)]


def without_place(options: Iterable[str]) -> list[str]:
    """Options with the end of a checkpoint's path, as studies are moved."""
    return [
        str(Path(*Path(word).parts[-3:])) if word.startswith(START) else word
        for word in options
    ]


def find_record(
    records: Path | None, name: str, seed: int, config: Path
) -> dict[str, Any] | None:
    """A run's record in a study's file, or in a set of it, if both are
    there.

    Raises:
        SystemExit: if it is of another config.
    """
    if records is None:
        return None
    file, group = set_of_records(records)
    record = _by_run(file).get((group, name, seed))
    if record and record.get('config', config.stem) != config.stem:
        sys.exit(
            f'--records {records}: {name}, seed {seed}, is of the config '
            f'{record["config"]}, not of {config.stem}: take another file or '
            'set, FILE.jsonl#SET'
        )
    return record


def _by_run(file: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Records by set, name and seed."""
    return {
        (record.get('set', ''), record['name'], record['seed']): record
        for record in read_records(file)
    }


def keep_record(records: Path, name: str, record: Mapping[str, Any]) -> None:
    """Put a run's line into a study's file, or into a set of it, in place of
    an earlier one of the same name and seed."""
    file, group = set_of_records(records)
    named = {'set': group} if group else {}
    file.parent.mkdir(parents=True, exist_ok=True)
    with WRITING, alone_in(file.parent):
        by_run = _by_run(file)
        by_run[group, name, record['seed']] = {**named, 'name': name, **record}
        lines = [json.dumps(by_run[key]) for key in sorted(by_run)]
        write_whole(file, '\n'.join([*lines, '']).encode())


def refuse_other_runs(
    trainings: Iterable[tuple], records: Path | None
) -> None:
    """Before anything is trained.

    Raises:
        SystemExit: if a folder has another run, see :func:`refusal`, or a
            record would be written over by one of other options.
    """
    refused = []
    for config, seed, work_dir, options, *names in trainings:
        if work_dir.exists():
            reason = refusal(work_dir, identity(config, seed, options))
            refused += [reason] if reason else []
        name = [*names, config.stem][0]
        if record := find_record(records, name, seed, config):
            given = record.get('options', [])
            found, own = map(without_place, (given, options))
            if found != own:
                refused.append(
                    f'--records {records}: {name}, seed {seed}, is of '
                    f'--cfg-options {found}, and would be written over by one '
                    f'of {own}; take another file'
                )
    if refused:
        sys.exit('\n'.join(refused))


def refuse_missing_data(trainings: Sequence[tuple]) -> None:
    """Check the data of each config's first run that is not finished."""
    seen: set[Path] = set()
    for config, _, work_dir, options, *_ in trainings:
        if config in seen or (work_dir / 'finished').exists():
            continue
        seen.add(config)
        cfg = read_config(config, options)
        try:
            check_data(cfg, ('train_dataloader', 'val_dataloader'))
        except FileNotFoundError as error:
            sys.exit(f'{config}: {error}')


def train_all(
    trainings: Iterable[tuple],
    jobs: int,
    records: Path | None = None,
    code: str | None = None,
    keep: bool = True,
    gpus: int = 1,
) -> bool:
    """Train each of these, so many at a time, in their order, and
    keep their records; whether all are finished. A run is what `train`
    takes, without `gpus`, and, if its config is not enough, a name for its
    record. Without `keep` nothing is written to the records.

    Raises:
        SystemExit: before the first, if a folder has another run, the data
            of any are not there, or a record would be written over.
    """
    trainings = [*trainings]
    refuse_other_runs(trainings, records)
    refuse_missing_data(trainings)

    def run(one: tuple) -> bool:
        config, seed, work_dir, options, *names = one
        if not runs.train(config, seed, work_dir, options, gpus):
            return False
        record = runs.write_record(config, seed, work_dir, options, code)
        if records and keep:
            keep_record(records, [*names, config.stem][0], record)
        return True

    with ThreadPoolExecutor(jobs) as pool:
        return all([*pool.map(run, trainings)])
