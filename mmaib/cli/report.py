"""One page about runs: see :mod:`mmaib.visualization.report`."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable

from mmaib.visualization.report import render


def prepare(args: argparse.Namespace) -> Callable[[], None]:
    """Read the runs; what is left to do is to write the page."""
    out = args.out or args.work_dirs[0] / 'report.html'
    if out.exists() and '<html' not in out.read_text(errors='replace')[:999]:
        raise ValueError(
            f'--out {out}: no page of a report, name another file'
        )
    page = render(
        args.work_dirs,
        args.max_images,
        args.title,
        shlex.join(args.command),
    )

    def work() -> None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page)
        print(f'{out} ({len(page.encode()) / 1e6:.1f} MB)')

    return work
