"""Processes of tests that begin with torch and the base libraries imported,
which a new interpreter takes five seconds of a core for. mmaib is not among
them: each process imports what it needs of it."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# the server is a process of its own, in which no test ran; it has no thread
# and has computed nothing, which a fork would not survive
SERVED = multiprocessing.get_context('forkserver')
SERVED.set_forkserver_preload(
    ['matplotlib.pyplot', 'mmdet.apis', 'mmseg.apis', 'mmpretrain.apis']
)


def take_environment(environ: Mapping[str, str]) -> None:
    """The server has that of its own start."""
    os.environ.clear()
    os.environ.update(environ)


def run_python(
    words: Sequence[str], environ: Mapping[str, str], output: Path
) -> int:
    """Run what ``python WORDS`` does, a file or ``-m MODULE`` with its
    arguments; the exit code.

    Args:
        words: file or module, and arguments.
        environ: all of the environment.
        output: gets what it prints.
    """
    given = [*words], dict(environ), os.getcwd(), str(output)
    process = SERVED.Process(target=_run, args=given)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _run(
    words: list[str], environ: dict[str, str], folder: str, output: str
) -> None:
    with open(output, 'wb') as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(folder)
    take_environment(environ)
    sys.path[:0] = environ.get('PYTHONPATH', '').split(os.pathsep)
    if words[0] == '-m':
        _, module, *arguments = words
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name='__main__', alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        runpy.run_path(words[0], run_name='__main__')


def programs(run: Callable[..., Any]) -> SimpleNamespace:
    """The module subprocess, of which a function stands in for each
    program."""

    class Program(nullcontext):
        def __init__(self, words: Sequence[str], **kwargs: Any) -> None:
            super().__init__(self)
            self.given = partial(run, words, **kwargs)

        def wait(self, timeout: float) -> None:
            self.returncode = self.given().returncode

    return SimpleNamespace(
        run=run,
        Popen=Program,
        STDOUT=subprocess.STDOUT,
        TimeoutExpired=subprocess.TimeoutExpired,
    )
