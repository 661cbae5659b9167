"""Write a data set once: whole files under their names, checked by sums."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path

SUMS = 'SHA256SUMS.json'


def is_complete(out: Path, required: Collection[str]) -> bool:
    """Whether every file of the data set is there with its checksum.

    Args:
        out: folder of the data set.
        required: names without which it is none.
    """
    try:
        sums = json.loads((out / SUMS).read_text())
        return {*required} <= {*sums} and all(
            hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
            for name, digest in sums.items()
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def build(
    out: Path, files: Iterable[tuple[str, bytes]], required: Collection[str]
) -> bool:
    """Write what is missing or damaged; False if nothing was.

    Files of other names are left alone.

    Args:
        out: folder of the data set.
        files: names below ``out`` and contents; not consumed if the data
            set is complete.
        required: as in :func:`is_complete`.
    """
    if is_complete(out, required):
        return False
    sums = {}
    for name, content in files:
        sums[name] = hashlib.sha256(content).hexdigest()
        path = out / name
        if not (path.is_file() and path.read_bytes() == content):
            _write(path, content)
    _write(out / SUMS, json.dumps(sums, indent=1).encode())
    return True


def _write(path: Path, content: bytes) -> None:
    """Write a file so that its name never stands for half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.{os.getpid()}')
    partial.write_bytes(content)
    os.replace(partial, path)
