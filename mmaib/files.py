"""Atomic file writes, and hashes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def alone_in(folder: Path, wait: bool = True) -> Iterator[list[int]]:
    """With no other process inside the same block, between reading and
    writing a file of a folder for instance; on Windows several may be.

    Args:
        folder: there already.
        wait: until the others have left.

    Yields:
        file descriptors; a child that inherits them stays inside.

    Raises:
        BlockingIOError: if another is inside, without ``wait``.
    """
    if fcntl is None:
        yield []
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield [number]
    finally:
        os.close(number)


def check_empty(option: str, folder: Path, begun: bool = False) -> None:
    """Refuse to write into a folder that has somebody's files.

    Args:
        option: that names it.
        folder: there or not.
        begun: whether the files are of the command that writes there.

    Raises:
        ValueError: if there are others.
    """
    if not begun and folder.exists() and any(folder.iterdir()):
        raise ValueError(f'{option} {folder}: not empty, take another folder')


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under its name once all of it is on the disk; until then
    it is ``.NAME.partial``. Where two processes may write it at once, within
    :func:`alone_in`.

    Args:
        path: of the file; its folder is made.
        content: of the file.

    Raises:
        OSError: if it cannot be written; nothing is left of it then, and
            what had the name before still has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.partial')
    try:
        with partial.open('wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file's contents, read piece by piece."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
