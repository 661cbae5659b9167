"""``--cfg-options`` of every tool."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import DictAction


def options_of(
    words: Sequence[str], option: str = '--cfg-options'
) -> dict[str, Any]:
    """``--cfg-options`` as a config takes them: MMEngine's ``KEY=VALUE``, in
    which a path stays one.

    MMEngine takes spaces out of a value and splits it at commas, so that
    ``load_from=/data/a, b/epoch_1.pth`` is a list of no files. A value is left
    as it is if a file or folder is there whose name, or the name of one that
    it lies in, has a comma, space, bracket or quote; else it is MMEngine's.

    Raises:
        ValueError: if a word is not KEY=VALUE, naming the ``option``.
    """
    found: dict[str, Any] = {}
    action = DictAction(['--cfg-options'], 'options')
    for word in words:
        key, given, value = word.partition('=')
        if not given:
            raise ValueError(f'{option}: {word!r} must be KEY=VALUE')
        if _is_path(value):
            found[key] = value
        else:
            parsed = Namespace(options=found)
            try:
                action(ArgumentParser(), parsed, [word])
            except AssertionError as error:  # of brackets
                raise ValueError(f'{option}: {word!r}: {error}') from error
            found = parsed.options
    return found


def _is_path(value: str) -> bool:
    """Whether a value is a path that MMEngine would take apart."""
    path = Path(value).expanduser()
    return any(
        # not p.exists(), which raises of a name that is too long for a file
        {*p.name} & {*', ()[]\'"'} and os.path.exists(p)
        for p in (path, *path.parents)
    )
