"""``--cfg-options`` of every tool."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from mmengine.config import DictAction


class CfgOptions(DictAction):
    """MMEngine's ``KEY=VALUE``, in which a path stays one.

    MMEngine takes spaces out of a value and splits it at commas, so that
    ``load_from=/data/a, b/epoch_1.pth`` is a list of no files. A value is left
    as it is if a file or folder is there whose name, or the name of one that
    it lies in, has a comma, space, bracket or quote; else it is MMEngine's.
    """

    def __call__(
        self,
        parser: ArgumentParser,
        namespace: Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        for word in [values] if isinstance(values, str) else values or ():
            key, given, value = word.partition('=')
            if not given:
                parser.error(f'{option_string}: {word!r} must be KEY=VALUE')
            if _is_path(value):
                found = getattr(namespace, self.dest) or {}
                setattr(namespace, self.dest, {**found, key: value})
            else:
                super().__call__(parser, namespace, [word], option_string)


def _is_path(value: str) -> bool:
    """Of those that MMEngine would take apart."""
    path = Path(value).expanduser()
    return any(
        # not p.exists(), which raises of a name that is too long for a file
        {*p.name} & {*', ()[]\'"'} and os.path.exists(p)
        for p in (path, *path.parents)
    )


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def options_of(words: Sequence[str]) -> dict[str, Any]:
    """``--cfg-options`` as a config takes them.

    Raises:
        ValueError: if a word is not KEY=VALUE.
    """
    parser = _Parser(add_help=False)
    parser.add_argument('--cfg-options', nargs='*', action=CfgOptions)
    return parser.parse_args(['--cfg-options', *words]).cfg_options or {}
