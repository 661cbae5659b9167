"""Write a data set once: whole files under their names, checked by sums."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from mmaib.files import sha256_of, write_whole

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
    for name, content in files:
        sums[name] = hashlib.sha256(content).hexdigest()
        path = out / name
        if not (path.is_file() and path.read_bytes() == content):
            _write(path, content)
    written = dict(version=version, files=sums)
    _write(out / SUMS, json.dumps(written, indent=1).encode())
    return True


def _write(path: Path, content: bytes) -> None:
    # two builders may write at once
    write_whole(path, content, path.with_name(f'.{path.name}.{os.getpid()}'))
