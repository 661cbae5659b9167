"""Write a data set once: whole files under their names, checked by sums."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from mmaib.files import alone_in, sha256_of, write_whole

SUMS = 'SHA256SUMS.json'


def is_complete(out: Path, version: int) -> bool:
    """Whether every file of the data set is there as it was written.

    Args:
        out: folder of the data set.
        version: of what its files are to hold.
    """
    try:
        written = json.loads((out / SUMS).read_text())
        return written['version'] == version and all(
            sha256_of(out / name) == digest
            for name, digest in written['files'].items()
        )
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return False


def build(out: Path, files: Iterable[tuple[str, bytes]], version: int) -> bool:
    """Write what is missing, damaged or of another version; False if
    nothing was.

    Files of other names are left alone.

    Args:
        out: folder of the data set.
        files: names below ``out`` and contents; not consumed if the data
            set is complete.
        version: raised whenever the contents change.
    """
    if is_complete(out, version):
        return False
    sums = {}
    out.mkdir(parents=True, exist_ok=True)
    with alone_in(out):
        for name, content in files:
            sums[name] = hashlib.sha256(content).hexdigest()
            path = out / name
            if not (path.is_file() and path.read_bytes() == content):
                write_whole(path, content)
        written = dict(version=version, files=sums)
        write_whole(out / SUMS, json.dumps(written, indent=1).encode())
    return True


def command(
    name: str,
    build: Callable[[Path], bool],
    about: Callable[[Path], Iterable[str]],
) -> None:
    """``python -m mmaib.datasets.NAME --out DIR``.

    Args:
        name: of the data set.
        build: writes it; False if it was there.
        about: lines on what is there.
    """
    parser = argparse.ArgumentParser(description=f'Write {name}.')
    parser.add_argument('--out', type=Path, default=Path('data', name))
    out = parser.parse_args().out
    try:
        built = build(out)
    except (ModuleNotFoundError, ValueError) as error:
        sys.exit(f'mmaib.datasets.{name}: {error}')
    print(*about(out), sep='\n')
    print('written' if built else 'already complete, checksums right')
