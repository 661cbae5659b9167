"""What the tools that run other tools share."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(
    commands: list[str],
    *args: object,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> float:
    """Run one of our tools with its output visible; seconds it took.

    Raises:
        SystemExit: with the command, if it fails.
    """
    words = [sys.executable, *map(str, args)]
    commands.append(shlex.join(['python', *words[1:]]))
    print(f'\n== {commands[-1]}', flush=True)
    begun = time.perf_counter()
    done = subprocess.run(words, cwd=cwd, env={**os.environ, **(env or {})})
    if done.returncode:
        sys.exit(f'stopped: this command failed\n  {commands[-1]}')
    return time.perf_counter() - begun


def last_checkpoint(work_dir: Path, root: Path = Path()) -> Path:
    """Of a training's folder, which may have been moved since.

    Args:
        work_dir: the folder.
        root: what it is relative to.
    """
    path = (root / work_dir / 'last_checkpoint').read_text().strip()
    return work_dir / Path(path).name


def entries(log: Path) -> Iterator[dict[str, float]]:
    """Lines of a log, but one that is being written or that a kill cut."""
    for line in log.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def look(
    run: Callable[..., float],
    commands: list[str],
    config: Path,
    checkpoint: Path,
    out: Path,
    title: str,
    pictures: int,
    tools: str = 'tools',
) -> dict[str, float]:
    """Pictures of a trained model's maps, and the page about its folder;
    seconds of each.

    Args:
        run: :func:`run`, or the same with its folder and environment.
        commands: those so far.
        config, checkpoint: of the model.
        out: folder of its training; the page is its ``report.html``.
        title: of the page.
        pictures: how many; 0 for none.
        tools: folder of our tools, as the commands name it.
    """
    seconds = {}
    if pictures:
        seconds['pictures'] = run(
            commands, f'{tools}/analysis_tools/attention.py', config,
            checkpoint, '--out', out / 'attention', '--max-images', pictures,
        )  # fmt: skip
    seconds['report'] = run(
        commands, f'{tools}/analysis_tools/report.py', out, '--title', title
    )
    return seconds
