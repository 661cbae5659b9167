"""The `mmaib` command: ``mmaib COMMAND``, or ``python -m mmaib COMMAND``."""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from traceback import walk_tb

from mmaib import __version__

from .parser import COMMANDS, parser_of

USAGE = """\
usage: mmaib COMMAND ...

Information-bottleneck attention for MMDetection, MMSegmentation and \
MMPretrain.

{commands}

mmaib COMMAND --help shows the arguments of a command."""
# what mmaib refuses an argument, a config or a file with
REFUSALS = (ValueError, TypeError, KeyError, OSError, ImportError)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run a command.

    Args:
        argv: its name and arguments; those of the process by default.
        prog: name of the program in messages; ``mmaib COMMAND`` by default.

    Returns:
        the exit code: 0; 1 if what was checked is not well; 2 if an
        argument, a config or a file was refused, which is reported on one line
        where the refusal is mmaib's own and work has not begun.
    """
    words = [*(sys.argv[1:] if argv is None else argv)]
    if not words or words[0] in ('-h', '--help'):
        lines = (f'  {k:<10} {what}' for k, (_, what) in COMMANDS.items())
        print(USAGE.format(commands='\n'.join(lines)))
        return 0 if words else 2
    if words[0] == '--version':
        print(__version__)
        return 0
    name, *rest = words
    if name not in COMMANDS:
        known = ', '.join(COMMANDS)
        print(
            f'mmaib: no command {name!r}; there are {known}', file=sys.stderr
        )
        return 2
    prog = prog or f'mmaib {name}'
    args = parser_of(name, prog).parse_args(rest)
    args.command = [*prog.split(), *rest]
    reuse_memory()
    module = import_module(f'mmaib.cli.{name}')
    try:
        check_out(args, name)
        work = module.prepare(args)
    except REFUSALS as error:
        if not _is_own(error):
            raise
        text = error.args[0] if isinstance(error, KeyError) else error
        print(f'{prog}: {text}', file=sys.stderr)
        return 2
    return work() or 0


def check_out(args: argparse.Namespace, name: str) -> None:
    """Before work, that what a command writes can be written."""
    folders = ('explain', 'readout', 'visualize')
    for field, is_folder in (('out', name in folders), ('work_dir', True)):
        if not (given := getattr(args, field, None)):
            continue
        path = Path(given)
        option = f'--{field.replace("_", "-")} {given}'
        if is_folder and path.exists() and not path.is_dir():
            raise ValueError(f'{option}: a file, name a folder')
        if not is_folder and path.is_dir() and name != 'test':
            raise ValueError(f'{option}: a folder, name a file')
        there = next(p for p in path.absolute().parents if p.exists())
        if not there.is_dir():
            raise ValueError(f'{option}: {there} is a file')
        nearest = path if path.exists() else there
        if not os.access(nearest, os.W_OK):
            raise ValueError(f'{option}: {nearest} cannot be written to')


def reuse_memory() -> None:
    """Let glibc reuse the memory that tensors free. By default it gives back
    what is larger than 32 MB, and the kernel clears it for the next tensor:
    on a CPU a seventh of the time of an R50's training step, half of that of
    a gate, for a tenth more memory (docs/results/speed.md). With a variable
    ``MALLOC_...`` in the environment that is left to it."""
    if any(name.startswith('MALLOC_') for name in os.environ):
        return
    m_trim_threshold, m_mmap_threshold = -1, -3  # of malloc.h
    with suppress(AttributeError, OSError, TypeError):  # not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(m_mmap_threshold, 2**30)
        mallopt(m_trim_threshold, 2**31 - 1)


def run() -> None:
    """The console script."""
    sys.exit(main())


def _is_own(error: BaseException) -> bool:
    """Whether mmaib raised it, not what it called."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    return frame.f_globals.get('__name__', '').partition('.')[0] == 'mmaib'
