"""The text of a config in MMEngine's pure-Python style over a base config in
that style: the base config is imported, and types are classes."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mmengine.registry
from mmengine.registry import Registry
from mmengine.utils import get_installed_path

import mmaib.registry

from .look import SIZES, WrapError
from .plan import Expression
from .write import flat


def pure_python(
    cfg: Any, original: str, out: Path, command: str, fields: dict[str, Any]
) -> str:
    """The text of a config with these fields over a base config; the command
    is in its first line.

    Raises:
        WrapError: if Python cannot import the base config.
    """
    imports: dict[str, set[str]] = {}
    lines = []
    for field, value in fields.items():
        value = _as_python(value, imports)
        merged = isinstance(value, dict) and cfg.get(field)
        if merged and not value.pop('_delete_', False):
            lines.append(f'{field}.merge({flat(value)})')
        else:
            lines.append(f'{field} = {flat(value)}')
    return '\n'.join(
        [
            f'# Made by: {command}',
            'from mmengine.config import read_base',
            '',
            *(
                f'from {module} import {", ".join(sorted(names))}'
                for module, names in sorted(imports.items())
            ),
            '',
            'with read_base():',
            f'    from {_module(original, out)} import *  # noqa: F403',
            '',
            *lines,
            '',
        ]
    )


def _module(original: str, out: Path) -> str:
    """How the written file imports the base config."""
    path = Path(original).resolve().with_suffix('')
    way = Path(os.path.relpath(path, out.parent.resolve())).parts
    dots = '.' * (1 + way.count('..'))
    for library in filter(find_spec, SIZES):
        root = Path(get_installed_path(library))
        if path.is_relative_to(root):
            way, dots = (library, *path.relative_to(root).parts), ''
    names = [name for name in way if name != '..']
    if bad := [name for name in names if not name.isidentifier()]:
        raise WrapError(
            f'{original} is in the pure-Python style, in which the written '
            f'config imports it, and {bad[0]!r} is no name that Python can '
            'import: rename it, with _ for -, or write --out beside it'
        )
    return dots + '.'.join(names)


def _as_python(value: Any, imports: dict[str, set[str]]) -> Any:
    """A value with its types as classes, noting what is to be imported."""
    if isinstance(value, Expression):
        text = re.sub(r'\{\{(.*?)\}\}', r'\1', value)
        return Expression(text.replace('_base_.', ''))
    if isinstance(value, (list, tuple)):
        return type(value)(_as_python(item, imports) for item in value)
    if isinstance(value, dict):
        return {
            name: _imported(item, imports)
            if name in ('type', 'base') and isinstance(item, str)
            else _as_python(item, imports)
            for name, item in value.items()
        }
    return _imported(value, imports) if callable(value) else value


def _imported(kind: Any, imports: dict[str, set[str]]) -> Any:
    """The name of a class, which is then imported; text that names none of
    mmaib's, MMEngine's or by its path stays."""
    found = _registered(kind) if isinstance(kind, str) else kind
    if found is None:
        module, _, name = kind.rpartition('.')
        if module not in sys.modules:
            return kind
    else:
        module, name = found.__module__, found.__qualname__
    # the shortest public way to it
    folders = module.split('.')
    ways = ['.'.join(folders[: i + 1]) for i in range(len(folders))]
    kept = getattr(sys.modules[module], name)
    way = next(w for w in ways if getattr(sys.modules[w], name, None) is kept)
    imports.setdefault(way, set()).add(name)
    return Expression(name)


def _registered(name: str) -> Any:
    """What a name ``'mmaib.X'``, or one of MMEngine's, stands for."""
    package = name.rpartition('.')[0]
    if package in ('', 'mmaib'):
        source = mmaib.registry if package else mmengine.registry
        for registry in vars(source).values():
            if isinstance(registry, Registry):
                with suppress(KeyError):  # not one of these
                    if found := registry.get(name):
                        return found
    return None
