"""Runs: trainings in processes of their own, resumed where they stopped,
and what their logs say.

What a run is of (its config, seed, options and the content of the checkpoints
that it starts from) is written before its first step and compared at each
resume.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mmaib.compat import PACKAGES
from mmaib.files import alone_in, sha256_of, write_whole
from mmaib.preflight import named_weights
from mmaib.visualization.work_dirs import ended_with, read_json

from .cfg_options import options_of
from .loading import read_config

ROOT = Path(__file__).resolve().parents[2]
# of a line in MMEngine's log
STAMP = '%Y/%m/%d %H:%M:%S'
STAMPED = re.compile(r'^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - ', re.M)
START = 'load_from='
WEIGHTS = 'checkpoint to start from'
# of MMEngine's log, and of the evaluations after a training
PROGRESS = re.compile(
    r'((?:Epoch|Iter)\(\w+\)[][\d /]+|evaluation \d+ of \d+)'
    r'(?:.*?eta: (.+?)(?:  |\n))?'
)
EVERY = 15.0


def commit() -> str:
    """What git says of this checkout; of an installed package unknown, also
    where its folder is within another repository."""
    if not (ROOT / '.git').exists():
        return 'unknown'
    command = ['git', 'describe', '--always', '--dirty', '--abbrev=12']
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True
        )
    except FileNotFoundError:
        return 'unknown'
    return done.stdout.strip() or 'unknown'


def identity(config: Path, seed: int, options: list) -> dict[str, Any]:
    """What makes a run another one."""
    cfg = read_config(config)
    text = json.dumps(cfg.to_dict(), sort_keys=True, default=str)
    cfg.merge_from_dict(options_of(options))
    weights = {
        field: sha256_of(Path(path).expanduser())[:16]
        for field, path in named_weights(cfg)
        if Path(path).expanduser().is_file()
    }
    return {
        # without the checkpoint's place, as studies are moved
        '--cfg-options': [o for o in options if not o.startswith(START)],
        'seed': seed,
        'config': hashlib.sha256(text.encode()).hexdigest()[:16],
        WEIGHTS: weights,
    }


def refusal(work_dir: Path, own: Mapping[str, Any]) -> str | None:
    """Why a run can neither be skipped nor resumed nor begun in a folder, or
    None."""
    saved = [*work_dir.glob('*.pth'), *work_dir.glob('last_checkpoint')]
    if (marker := work_dir / 'finished').exists():
        how = 'finished'
    elif not saved:
        return None  # nothing of what was begun there is gone on with
    elif (marker := work_dir / 'identity.json').exists():
        how = 'begun'
    else:
        return (
            f'{work_dir}: {saved[0].name} in it is of a run that is not known '
            'here, and would be resumed or written over; take another --out'
        )
    stored = read_json(marker)
    other = [n for n in own if n in stored and own[n] != stored[n]]
    if other:
        return (
            f'{work_dir}: {how} with another {", another ".join(other)}; '
            'take another --out'
        )
    return None


def where(log: Path) -> str | None:
    """How far a training is, and what is left, by its log."""
    found = [*PROGRESS.finditer(log.read_text()[-20000:])]
    if not found:
        return None
    step, left = found[-1].groups()
    return step.strip() + (f', {left} left' if left else '')


def run_logged(words: Sequence[str], log: Path, **options: Any) -> int:
    """Run a program whose output goes to a file; its exit code. How far it is
    is printed as long as it goes on: in a line that is written over on a
    terminal, elsewhere in a line each time. See :func:`stopped_with`."""
    terminal = sys.stdout.isatty()
    clear, end = ('\r\x1b[K', '') if terminal else ('', '\n')
    last = None
    log.parent.mkdir(parents=True, exist_ok=True)
    options.update(stderr=subprocess.STDOUT)
    with (
        open(log, 'a') as file,
        subprocess.Popen(words, stdout=file, **options) as program,
        stopped_with(program),
    ):
        while True:
            with suppress(subprocess.TimeoutExpired):
                program.wait(1 if terminal else EVERY)
                break
            if (line := where(log)) != last:
                text = f'{clear}       {log.parent}: {line}'
                print(text, end=end, flush=True)
                last = line
    if terminal:
        print(end=clear, flush=True)
    return program.returncode


@contextmanager
def stopped_with(program: subprocess.Popen) -> Iterator[None]:
    """What ends this process ends a program: an error, Ctrl-C, and, as only
    a main thread can handle signals, a SIGTERM there."""
    main = threading.current_thread() is threading.main_thread()
    if main:
        code = 128 + signal.SIGTERM
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(code))
    try:
        yield
    except BaseException:
        program.terminate()
        raise
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


def last_line(log: Path) -> str:
    """The last line that a program printed."""
    return log.read_text().strip().rpartition('\n')[2]


def command_of(
    config: Path, seed: int, work_dir: Path, options: list, gpus: int = 1
) -> list[str]:
    """What trains a run, after python: on several GPUs by torchrun."""
    words = ['-m', 'mmaib', 'train', str(config)]
    words += ['--work-dir', str(work_dir), '--resume']
    if gpus > 1:
        start = ['-m', 'torch.distributed.run', '--standalone']
        start.append(f'--nproc-per-node={gpus}')
        words = [*start, *words, '--launcher', 'pytorch']
    return [*words, '--cfg-options', f'randomness.seed={seed}', *options]


def train(
    config: Path, seed: int, work_dir: Path, options: list, gpus: int = 1
) -> bool:
    """One run, resumed where it stopped, by one process at a time; what it is
    of is written before its first step, and a marker when it is finished.
    Whether it is now."""
    work_dir.mkdir(parents=True, exist_ok=True)
    try:
        with alone_in(work_dir, wait=False) as lock:
            return _train(config, seed, work_dir, options, gpus, lock)
    except BlockingIOError:
        print(f'FAILED {work_dir}: another process trains in it', flush=True)
        return False


def _train(
    config: Path,
    seed: int,
    work_dir: Path,
    options: list,
    gpus: int,
    lock: list[int],
) -> bool:
    own = identity(config, seed, options)
    if reason := refusal(work_dir, own):
        print(f'FAILED {reason}', flush=True)
        return False
    marker = work_dir / 'finished'
    if marker.exists():
        return True
    text = json.dumps(own)
    write_whole(work_dir / 'identity.json', text.encode())
    command = command_of(config, seed, work_dir, options, gpus)
    print('start ', work_dir, flush=True)
    log = work_dir / 'stdout.log'
    if run_logged(
        [sys.executable, *command],
        log,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        pass_fds=lock,  # held on, should this process be killed
    ):
        print(f'FAILED {log}: {last_line(log)}', flush=True)
        return False
    marker.write_text(text)
    print('done  ', work_dir, flush=True)
    return True


def write_record(
    config: Path,
    seed: int,
    work_dir: Path,
    options: list,
    code: str | None = None,
) -> dict[str, Any]:
    """What a finished run ended with, written once, in its work dir."""
    path = work_dir / 'record.json'
    if record := read_json(path):
        return record
    record = {
        'config': config.stem,
        'seed': seed,
        'options': options,
        'commit': code or commit(),
        'versions': {
            p.module: found[1] for p in PACKAGES if (found := p.distribution())
        },
        'device': device_name(),
        'seconds': seconds(work_dir),
        'metrics': ended_with(work_dir),
    }
    write_whole(path, (json.dumps(record, indent=1) + '\n').encode())
    return record


def seconds(work_dir: Path) -> int | None:
    """How long a run's trainings took, those that were killed too, by the
    first and last line of their logs; None without a log."""
    spent = []
    for path in work_dir.glob('*/*.log'):
        found = STAMPED.findall(path.read_text())
        stamps = [datetime.strptime(stamp, STAMP) for stamp in found]
        if stamps:
            spent.append((stamps[-1] - stamps[0]).total_seconds())
    return round(sum(spent)) if spent else None


def device_name() -> str:
    """Name of the GPU or CPU: on another the same seed ends elsewhere."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    known = Path('/proc/cpuinfo')
    text = known.read_text() if known.exists() else ''
    lines = r'^(model name|cpu family|model)\s*: (.+)$'
    fields = dict(re.findall(lines, text, re.M))
    name = fields.pop('model name', platform.processor())
    model = ', '.join(f'{k} {fields[k]}' for k in sorted(fields))
    return ', '.join(filter(None, (name or platform.machine(), model)))


def run(
    commands: list[str],
    *args: object,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> float:
    """Run another program; seconds it took.

    Args:
        commands: those so far.
        *args: of Python.
        cwd, env: where it runs, and what is set there.
        log: where its output goes, which is visible without.

    Raises:
        SystemExit: with the command, if it fails.
    """
    words = [sys.executable, *map(str, args)]
    commands.append(shlex.join(['python', *words[1:]]))
    print(f'\n== {commands[-1]}', flush=True)
    begun = time.perf_counter()
    options: dict[str, Any] = dict(cwd=cwd, env={**os.environ, **(env or {})})
    if log is None:
        failed, why = subprocess.run(words, **options).returncode, ''
    elif failed := run_logged(words, log, **options):
        why = f'\n{log}: {last_line(log)}'
    if failed:
        sys.exit(f'stopped: this command failed\n  {commands[-1]}{why}')
    return time.perf_counter() - begun


def look(
    commands: list[str],
    config: Path,
    checkpoint: Path,
    out: Path,
    title: str,
    pictures: int,
    start: Callable[..., float] | None = None,
) -> dict[str, float]:
    """So many pictures of a trained model's maps, and the page of this title
    about its folder, ``report.html``; seconds of each. ``start``:
    :func:`run`, in another folder or environment."""
    start = start or partial(run, env={'OMP_NUM_THREADS': '1'})
    seconds = {}
    if pictures:
        seconds['pictures'] = start(
            commands, '-m', 'mmaib', 'visualize', config, checkpoint,
            '--out', out / 'attention', '--max-images', pictures,
        )  # fmt: skip
    seconds['report'] = start(
        commands, '-m', 'mmaib', 'report', out, '--title', title
    )
    return seconds
