from __future__ import annotations

import builtins
import hashlib
import io
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import torch
from mmengine.dist import broadcast_object_list

# MMEngine's ranks hand each other results there
PARTS = '.dist_test'


@contextmanager
def without_files(evaluator: Any, *kept: str | os.PathLike) -> Iterator[None]:
    """An evaluator of MMEngine whose metrics leave no file.

    Args:
        evaluator: it writes as ever afterwards.
        kept: folders that are written to all the same.
    """
    # where the ranks hand each other results
    parts = {getattr(m, 'collect_dir', None) for m in evaluator.metrics}
    folders = [*kept, *filter(None, parts)]
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        shared = [scratch]  # the first rank may read what others wrote
        broadcast_object_list(shared)
        for name in ('process', 'evaluate'):
            guarded = discarded_writes(shared[0], *folders)
            call = guarded(getattr(evaluator, name))
            stack.enter_context(patch.object(evaluator, name, call))
        yield


@contextmanager
def discarded_writes(scratch: str, *kept: str | os.PathLike) -> Iterator[None]:
    """What this thread writes inside goes to another folder; read back, it is
    what was written. Elsewhere on disk nothing is new, changed or removed,
    whatever a metric's fields are called.

    That holds for ``open``, which Pillow, Matplotlib, NumPy and MMEngine's
    local files go through, for ``torch.save``, ``cv2.imwrite``, and for
    files and folders that are made, renamed and removed by :mod:`os` and
    :mod:`shutil`; not for other libraries in C, files that were open before,
    or remote storage.

    Args:
        scratch: that folder; temporary files go there, too.
        kept: folders that are written to as ever.
    """
    owner = threading.get_ident()  # others, as TensorBoard's, write their logs
    get_temp_dir()  # which multiprocessing makes once, and keeps
    with ExitStack() as stack:
        passed = [Path(os.path.realpath(p)) for p in (scratch, '/dev', *kept)]

        def instead(path: Any) -> Path | None:
            """Where it is written instead; None if where it says."""
            if threading.get_ident() != owner or not isinstance(
                path, (str, bytes, os.PathLike)
            ):
                return None
            real = Path(os.path.realpath(os.fsdecode(path)))
            if PARTS in real.parts or {*passed} & {real, *real.parents}:
                return None
            digest = hashlib.sha256(bytes(real)).hexdigest()
            found = Path(scratch, 'instead', digest, real.name)
            found.parent.mkdir(parents=True, exist_ok=True)
            return found

        def replace(owner_of: Any, name: str, new: Callable) -> None:
            old = getattr(owner_of, name)
            made = patch.object(
                owner_of, name, lambda *a, **k: new(old, *a, **k)
            )
            stack.enter_context(made)

        def opened(
            old: Callable, file: Any, mode: str = 'r', *args: Any, **more: Any
        ) -> Any:
            found = instead(file)
            if found and not found.exists():
                if {*mode}.isdisjoint('wxa+'):
                    found = None
                elif {*mode}.isdisjoint('wx') and os.path.isfile(file):
                    shutil.copyfile(file, found)  # which is gone on with
            return old(found or file, mode, *args, **more)

        def removed(old: Callable, path: Any, *args: Any, **more: Any) -> None:
            # below a descriptor is a folder that is removed by its name
            found = None if 'dir_fd' in more else instead(path)
            if found is None:
                old(path, *args, **more)
            else:  # a file; of folders nothing is there
                found.unlink(missing_ok=True)

        def moved(old: Callable, source: Any, to: Any, **more: Any) -> None:
            if instead(source) is None and instead(to) is None:
                old(source, to, **more)
            else:
                shutil.copyfile(source, to)

        def saved(
            old: Callable, obj: Any, f: Any, *args: Any, **more: Any
        ) -> None:
            old(obj, instead(f) or f, *args, **more)

        def painted(
            old: Callable, filename: str, *args: Any, **more: Any
        ) -> bool:
            return old(str(instead(filename) or filename), *args, **more)

        stack.enter_context(patch.object(tempfile, 'tempdir', scratch))
        for module in (builtins, io):
            replace(module, 'open', opened)
        for name in ('remove', 'unlink', 'mkdir', 'rmdir'):
            replace(os, name, removed)
        replace(shutil, 'rmtree', removed)
        for name in ('rename', 'replace'):
            replace(os, name, moved)
        replace(torch, 'save', saved)
        replace(cv2, 'imwrite', painted)
        yield
